// Boot loaders, each in one flat image with the header of an arm64 `Image`: Linux,
// Documentation/arch/arm64/booting.rst. QEMU starts them at EL1 or EL2 with the device tree in x0. The
// section is kept, though nothing refers to it: "R". The last words of each are its parameters.

.macro loader name
.balign 64
.global loader_\name
loader_\name:
    b       . + 0x40
    .long   0
    .quad   0, 0x1000, 0xa, 0, 0, 0     // text_offset, image_size, flags, reserved
    .ascii  "ARM\x64"
    .long   0
.endm

.section .rodata.loaders, "aR"

// Copies the device tree to where it is to lie, and jumps to the image there.
loader  moves
    ldr     x1, 3f
    ldr     x2, 2f
    mov     x3, x1
    ldr     w4, [x0, #4]                // the tree's size, big endian
    rev     w4, w4
1:  ldr     x5, [x0], #8
    str     x5, [x3], #8
    subs    w4, w4, #8
    b.hi    1b
    mov     x0, x1
    br      x2
.balign 8
2:  .quad   0                           // the image's address
3:  .quad   0                           // the tree's address
.global loader_moves_end
loader_moves_end:

// Jumps to the image with an address in x0 where there is no device tree.
loader  without_tree
    ldr     x0, 2f
    ldr     x1, 1f
    br      x1
.balign 8
1:  .quad   0                           // the image's address
2:  .quad   0                           // the address
.global loader_without_tree_end
loader_without_tree_end:

// On a Raspberry Pi 4: fills the registers of each core that reset leaves UNKNOWN with rubbish of its
// own, before the image has the core. The other cores wait for words at 0xd8 and behind, which the
// board's spin table has, too; here they are called by those words, and then wait for them again.
.equ    SPIN_TABLE, 0xd8
loader  rubbish
    mov     x20, x0
    mov     x2, #SPIN_TABLE + 8
    adr     x1, 3f
    stp     x1, x1, [x2]
    str     x1, [x2, #16]
    dsb     sy
    sev
1:  ldp     x3, x4, [x2]                // until each of them has been here
    ldr     x5, [x2, #16]
    orr     x3, x3, x4
    orr     x3, x3, x5
    cbnz    x3, 1b
    bl      5f
    mov     x0, x20
    ldr     x4, 2f
    br      x4
3:  bl      5f
    mrs     x5, mpidr_el1
    and     x5, x5, #3
    mov     x2, #SPIN_TABLE
    add     x2, x2, x5, lsl #3
    str     xzr, [x2]
    dsb     sy
    sev
4:  wfe
    ldr     x4, [x2]
    cbz     x4, 4b
    br      x4
5:  mrs     x9, mpidr_el1               // the rubbish: uses x9, x10
    mvn     x9, x9
    bic     x10, x9, #(1 << 34)
    msr     hcr_el2, x10
    mrs     x10, mpidr_el1
    lsl     x10, x10, #40
    msr     cntvoff_el2, x10
    msr     vttbr_el2, x9
    msr     vtcr_el2, x9
    msr     vpidr_el2, x9
    msr     vmpidr_el2, x9
    msr     cptr_el2, x9
    msr     hstr_el2, x9
    msr     mdcr_el2, x9
    msr     cnthctl_el2, x9
    msr     tpidr_el2, x9
    msr     sctlr_el1, x9
    msr     ttbr0_el1, x9
    msr     ttbr1_el1, x9
    msr     tcr_el1, x9
    msr     mair_el1, x9
    msr     cpacr_el1, xzr
    msr     vbar_el1, x9
    msr     tpidr_el1, x9
    msr     tpidr_el0, x9
    msr     tpidrro_el0, x9
    msr     contextidr_el1, x9
    msr     sp_el0, x9
    msr     sp_el1, x9
    msr     elr_el1, x9
    msr     spsr_el1, x9
    msr     cntkctl_el1, x9
    msr     cntv_cval_el0, xzr
    mov     x10, #1
    msr     cntv_ctl_el0, x10
    msr     cntp_ctl_el0, x10
    isb
    ret
.balign 8
2:  .quad   0                           // the image's address
.global loader_rubbish_end
loader_rubbish_end:
