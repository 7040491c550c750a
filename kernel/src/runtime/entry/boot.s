// From the firmware to Rust. `boot.rs` has the contract of both sides.
//
// Registers that keep their values throughout, on each core:
//     x20  boot core: device tree; other cores: their `Handover`
//     x21  exception level at entry, 1 or 2
//     x22  virtual counter near the first instruction

// The Image header: Linux, Documentation/arch/arm64/booting.rst.
.section .head.text, "ax"
.global _start
_start:
    b       boot_core
    .long   0
    .quad   0                           // text_offset: any 2 MiB boundary will do
    .quad   __image_size                // larger than the file: includes the memory to be cleared
    .quad   (1 << 3) | (1 << 1)         // anywhere in memory; pages of 4 KiB; little endian
    .quad   0, 0, 0
    .ascii  "ARM\x64"
    .long   0
// A slot for the image's SHA-256, which `image-builder kernel` fills. The slot stays zero in an
// image from elsewhere.
    .ascii  "SHA-256="
.global __image_sha256
__image_sha256:
    .space  32

.section .text.boot, "ax"

// Entry of the boot core.
//
// From Linux's boot loaders: the MMU is off, and x0 is the physical address of the device tree.
// From Hermit's loader: the core is at EL1 with the MMU on. x0 is the address of the boot
// information, which contains the address of the device tree.
boot_core:
    msr     daifset, #0xf
    mov     x20, x0
    mrs     x1, CurrentEL
    cmp     x1, #(1 << 2)
    b.ne    1f
    mrs     x1, sctlr_el1
    tbz     x1, #0, 1f
    ldr     x20, [x0, #{HERMIT_DEVICE_TREE}]
    adrp    x0, __image_start
    adrp    x1, __image_end
    bl      clean
    mov     x1, #{SCTLR_OFF_LOW}
    movk    x1, #{SCTLR_OFF_HIGH}, lsl #16
    msr     sctlr_el1, x1               // the map is an identity map, so no address changes
    isb
1:  bl      leave_el2
    isb
    mrs     x22, cntvct_el0

    // The early map, an identity map. Device memory covers all but the 2 MiB blocks of the device
    // tree and the image: the processor accesses device memory only where the program does. The
    // tables are written past the cache. So cache lines with older contents are invalidated before
    // and after.
    adrp    x0, early_tables
    bl      invalidate_early_tables
    mov     x6, x0
    mov     x3, #0
    mov     x4, #0
    bl      new_table                   // the root: maps nothing
    mov     x10, x0
    mov     x3, #0
    mov     x4, #(1 << 30)
    bl      table_below                 // the first 512 GiB, which contain the console
    movz    x8, #{DATA_BLOCK_HIGH}, lsl #48
    movk    x8, #{DATA_BLOCK_LOW}
    cbz     x20, 1f
    tst     x20, #3                     // there is no tree: `start.rs` reports that
    b.ne    1f
    dc      cvac, x20                   // bytes that the loader may have left in the cache only
    dsb     sy
    ldr     w2, [x20, #4]               // the tree's size in bytes, big endian
    rev     w2, w2
    mov     w3, #{MAX_TREE_SIZE}
    cmp     w2, w3
    csel    w2, w2, w3, lo
    mov     x1, x20
    add     x2, x1, x2
    bl      map_normal
1:  adrp    x1, __image_start
    ldr     x2, [x1, #16]               // the header's image_size: includes the place for the names
    add     x2, x1, x2
    bl      map_normal
    mov     x8, #{CODE_BLOCK_LOW}
    adrp    x1, __image_start
    adrp    x2, __text_end
    bl      map_normal
    dsb     sy
    bl      invalidate_early_tables
    mov     x1, #{SCTLR_EARLY_LOW}
    movk    x1, #{SCTLR_EARLY_HIGH}, lsl #16
    bl      enable_mmu

    // Relocate: the format of SHT_RELR. An even word is the address of a pointer; the bits of an
    // odd word, from bit 1, say which of the 63 words that follow are pointers too.
    adrp    x0, __image_start
    adrp    x1, __relr_start
    add     x1, x1, :lo12:__relr_start
    adrp    x2, __relr_end
    add     x2, x2, :lo12:__relr_end
3:  cmp     x1, x2
    b.hs    7f
    ldr     x3, [x1], #8
    tbnz    x3, #0, 4f
    add     x4, x0, x3
    ldr     x5, [x4]
    add     x5, x5, x0
    str     x5, [x4], #8
    b       3b
4:  mov     x6, x4
5:  lsr     x3, x3, #1
    cbz     x3, 6f
    tbz     x3, #0, 8f
    ldr     x5, [x6]
    add     x5, x5, x0
    str     x5, [x6]
8:  add     x6, x6, #8
    b       5b
6:  add     x4, x4, #(63 * 8)
    b       3b

    // The names of functions are in the file where .bss begins. Their place is behind the image's
    // own memory, up to the header's image_size.
7:  adrp    x1, __bss_start
    add     x1, x1, :lo12:__bss_start
    adrp    x2, __image_end
    ldr     x3, [x0, #16]
    add     x3, x0, x3
9:  cmp     x2, x3
    b.hs    10f
    ldp     x4, x5, [x1], #16
    stp     x4, x5, [x2], #16
    b       9b

10: adrp    x1, __bss_start
    add     x1, x1, :lo12:__bss_start
    adrp    x2, __bss_end
    add     x2, x2, :lo12:__bss_end
11: cmp     x1, x2
    b.hs    12f
    stp     xzr, xzr, [x1], #16
    b       11b

12: adrp    x1, {EARLY_STACKS}
    add     x1, x1, :lo12:{EARLY_STACKS}
    add     x1, x1, #{EXCEPTION_STACK_SIZE}
    add     x2, x1, #{EARLY_STACK_SIZE}
    mov     x3, #0
    bl      set_up_core
    mov     x0, x20
    mov     x1, x21
    mov     x2, x22
    bl      {boot_core_main}

// Entry of a core from a spin table, with nothing in its registers. The core waits for its
// `Handover` with the MMU and the caches off.
.global waiting_core
waiting_core:
    msr     daifset, #0xf
    mrs     x0, mpidr_el1
    mov     x1, #0xffffff
    movk    x1, #0xff, lsl #32
    and     x0, x0, x1
    adrp    x1, {WAITING}
    add     x1, x1, :lo12:{WAITING}
    mov     x2, #{MAX_CORES}
1:  ldr     x3, [x1]
    cmp     x3, x0
    b.eq    2f
    add     x1, x1, #16
    subs    x2, x2, #1
    b.ne    1b
3:  wfe                                 // a core that the tree does not list
    b       3b
2:  ldr     x0, [x1, #8]
    cbnz    x0, secondary_core
    wfe
    b       2b

// Entry of every other core: x0 is the physical address of its `Handover`.
.global secondary_core
secondary_core:
    msr     daifset, #0xf
    mov     x20, x0
    bl      leave_el2
    adrp    x0, {TABLES}
    add     x0, x0, :lo12:{TABLES}
    mov     x1, #{SCTLR_LOW}
    movk    x1, #{SCTLR_HIGH}, lsl #16
    bl      enable_mmu
    ldp     x1, x2, [x20]
    ldr     x3, [x20, #16]
    bl      set_up_core
    mov     x0, x3
    bl      {secondary_core_main}

// Drops from EL2 to EL1, or stays at EL2 if the host extensions are on. Apple's cores cannot turn
// the extensions off, and m1n1 leaves them on. There the registers named _EL1 are those of EL2.
// From here to `set_up_core`, a fault stops the core at `early_fault`. Sets x21; uses x0, x1.
leave_el2:
    adrp    x0, early_vectors
    add     x0, x0, :lo12:early_vectors
    msr     vbar_el1, x0
    mrs     x21, CurrentEL
    lsr     x21, x21, #2
    cmp     x21, #2
    b.lo    2f
    b.hi    3f
    mrs     x0, hcr_el2
    and     x0, x0, #(1 << 34)          // E2H, unchanged
    orr     x0, x0, #(1 << 31)          // RW: EL1 is AArch64
    orr     x0, x0, #(3 << 40)          // API, APK: pointer authentication does not trap
    msr     hcr_el2, x0
    isb
    msr     cntvoff_el2, xzr
    msr     vttbr_el2, xzr              // one VMID on all cores: `tlbi vmalle1is` acts on the caller's
    mrs     x0, id_aa64pfr0_el1         // a GIC with system registers: allow access to them
    ubfx    x0, x0, #24, #4
    cbz     x0, 1f
    mrs     x0, s3_4_c12_c9_5           // ICC_SRE_EL2
    mov     x1, #9                      // Enable, SRE
    orr     x0, x0, x1
    msr     s3_4_c12_c9_5, x0
    isb
1:  mrs     x0, hcr_el2
    tbnz    x0, #34, 4f                 // E2H was on, or reads as one after a write of zero
    mrs     x0, cnthctl_el2
    orr     x0, x0, #3                  // EL1 may use the physical counter and timer
    msr     cnthctl_el2, x0
    mov     x0, #0x33ff                 // RES1, and no trap of floating point
    msr     cptr_el2, x0
    msr     hstr_el2, xzr
    mov     x0, #0                      // debugging does not trap, and EL1 has all counters that
    mrs     x1, id_aa64dfr0_el1         // there are: MDCR_EL2.HPMN
    sbfx    x1, x1, #8, #4
    cmp     x1, #1
    b.lt    5f
    mrs     x0, pmcr_el0
    ubfx    x0, x0, #11, #5
5:  msr     mdcr_el2, x0
    mrs     x0, midr_el1
    msr     vpidr_el2, x0
    mrs     x0, mpidr_el1
    msr     vmpidr_el2, x0
    mov     x0, #{SCTLR_OFF_LOW}
    movk    x0, #{SCTLR_OFF_HIGH}, lsl #16
    msr     sctlr_el1, x0
    mov     x0, #0x3c5                  // EL1h, everything masked
    msr     spsr_el2, x0
    msr     elr_el2, x30
    eret
4:  orr     x0, x0, #(1 << 27)          // TGE: with E2H, the EL2&0 translation regime
    msr     hcr_el2, x0
    isb
2:  ret
3:  wfi                                 // EL3: the protocol forbids it, and there is no console
    b       3b

// Turns MMU and caches on. x0: root table, x1: SCTLR_EL1. Uses x2, x3.
enable_mmu:
    mov     x2, #(3 << 20)              // CPACR_EL1.FPEN: floating point does not trap
    msr     cpacr_el1, x2
    mov     x2, #{MAIR_LOW}
    movk    x2, #{MAIR_HIGH}, lsl #16
    msr     mair_el1, x2
    movz    x2, #{TCR_LOW}
    movk    x2, #{TCR_HIGH}, lsl #16
    mrs     x3, id_aa64mmfr0_el1        // PARange, limited to 48 bits
    and     x3, x3, #0xf
    cmp     x3, #5
    b.ls    1f
    mov     x3, #5
1:  bfi     x2, x3, #32, #3             // TCR_EL1.IPS
    msr     tcr_el1, x2
    // Falls through.

// Switches the core to another root table. Both tables map this code at the same address. The MMU
// is off in between: no core may see two sizes of block for one address (Arm ARM, D8.16,
// break-before-make). Accesses no memory. x0: root table, x1: SCTLR_EL1. Uses x2.
.global set_root_table
set_root_table:
    mrs     x2, sctlr_el1
    bic     x2, x2, #1
    msr     sctlr_el1, x2
    isb
    msr     ttbr0_el1, x0
    isb
    tlbi    vmalle1
    ic      iallu
    dsb     nsh
    isb
    msr     sctlr_el1, x1
    isb
    ret

// x0: a `Handover`, x1: the function to run on its stacks, which does not return.
.global move_to_stacks
move_to_stacks:
    mov     x19, x1
    ldp     x1, x2, [x0]
    ldr     x3, [x0, #16]
    bl      set_up_core
    blr     x19

// x1: top of the exception stack, x2: top of the stack, x3: number of the core. Uses x4. All
// registers set here are the core's own, so each core runs this code. Rust runs on SP_EL0. So an
// exception always finds a good stack in SP_ELx.
set_up_core:
    msr     spsel, #1
    mov     sp, x1
    msr     spsel, #0
    mov     sp, x2
    msr     tpidr_el1, x3
    msr     cntv_ctl_el0, xzr           // no alarm and no event stream, which would end each sleep:
    msr     cntkctl_el1, xzr            // both may be on after a reset
    adrp    x4, exception_vectors
    add     x4, x4, :lo12:exception_vectors
    msr     vbar_el1, x4
    mrs     x4, id_aa64mmfr1_el1        // PAN: nothing is mapped for user mode; should a fault in
    ubfx    x4, x4, #20, #4             // the tables ever map anything there, PAN denies access
    cbz     x4, 1f
    .inst   0xd500419f                  // msr pan, #1
1:  isb
    msr     daifclr, #4                 // SError is a fault to be reported; the others stay masked
    mov     x4, x30
    mov     x29, #0                     // ends the chain of frames
    mov     x30, #0
    ret     x4

// Maps the 2 MiB blocks that contain x1 to x2 as memory with the attributes x8. x0: root table.
// Uses x1, x3, x4, x5, x6, x7, x9, x10.
map_normal:
    mov     x9, x30
    and     x1, x1, #~((1 << 21) - 1)
1:  cmp     x1, x2
    b.hs    2f
    ubfx    x10, x1, #39, #9
    add     x10, x0, x10, lsl #3
    and     x3, x1, #~((1 << 39) - 1)
    mov     x4, #(1 << 30)
    bl      table_below
    ubfx    x10, x1, #30, #9
    add     x10, x5, x10, lsl #3
    and     x3, x1, #~((1 << 30) - 1)
    mov     x4, #(1 << 21)
    bl      table_below
    ubfx    x10, x1, #21, #9
    orr     x3, x1, x8
    str     x3, [x5, x10, lsl #3]
    add     x1, x1, #(1 << 21)
    b       1b
2:  ret     x9

// x5: the table that the descriptor at x10 points to. If the descriptor points to no table, a new
// table is made: blocks of device memory of x4 bytes each, from the address x3 on. Uses x3, x6, x7.
table_below:
    ldr     x5, [x10]
    tbz     x5, #1, 1f
    bic     x5, x5, #3
    ret
1:  orr     x5, x6, #3
    str     x5, [x10]
    movz    x5, #{DEVICE_BLOCK_HIGH}, lsl #48
    movk    x5, #{DEVICE_BLOCK_LOW}
    orr     x3, x3, x5
    // Falls through.

// x5: the next free table, at x6, filled with the descriptors x3, x3 + x4, and so on. Uses x3, x7.
new_table:
    mov     x5, x6
    add     x7, x6, #4096
1:  str     x3, [x6], #8
    add     x3, x3, x4
    cmp     x6, x7
    b.lo    1b
    ret

// Cleans and invalidates the cache lines of x0 to x1. Uses x0, x2, x3.
clean:
    mrs     x2, ctr_el0
    ubfx    x2, x2, #16, #4             // DminLine: log2 of words
    mov     x3, #4
    lsl     x3, x3, x2
1:  dc      civac, x0
    add     x0, x0, x3
    cmp     x0, x1
    b.lo    1b
    dsb     sy
    ret

// Invalidates the cache lines of the early tables. Uses x2, x3, x4, x5.
invalidate_early_tables:
    mrs     x2, ctr_el0
    ubfx    x2, x2, #16, #4
    mov     x3, #4
    lsl     x3, x3, x2
    adrp    x4, early_tables
    mov     x5, #{EARLY_TABLES_SIZE}
    add     x5, x4, x5
1:  dc      ivac, x4
    add     x4, x4, x3
    cmp     x4, x5
    b.lo    1b
    dsb     sy
    ret

.section .boot_tables, "aw", @nobits
.balign 4096
.global early_tables                    // for the probe
early_tables:
    .skip   {EARLY_TABLES_SIZE}
