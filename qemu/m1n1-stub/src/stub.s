// The whole stub. QEMU enters at EL2 on one core, MMU off.

.equ IMAGE, 0x40200000
.equ TREE, 0x48000000
.equ SPIN_TABLE, 0x48100000             // 8 bytes a core, by its number
// `ci/boots` takes the places from the ELF file.
.global IMAGE, TREE, SPIN_TABLE

.section .text._start, "ax"
.global _start
_start:
    bl      host_extensions
    mov     x19, #1
    // Every core that there is: PSCI CPU_ON fails for the first that is not.
1:  ldr     x0, =0xc4000003
    mov     x1, x19
    adr     x2, waiting_core
    ldr     x3, =SPIN_TABLE
    add     x3, x3, x19, lsl #3
    smc     #0
    add     x19, x19, #1
    cbz     x0, 1b

    ldr     x0, =TREE
    mov     x1, #0
    mov     x2, #0
    mov     x3, #0
    ldr     x4, =IMAGE
    br      x4

// x0: the core's word in the table. It is called with four arguments of 0, as m1n1 does.
waiting_core:
    mov     x20, x0
    bl      host_extensions
1:  ldr     x4, [x20]
    cbnz    x4, 2f
    wfe
    b       1b
2:  mov     x0, #0
    mov     x1, #0
    mov     x2, #0
    mov     x3, #0
    blr     x4
3:  wfe
    b       3b

// E2H, and TGE as m1n1 has it.
host_extensions:
    mov     x9, #(1 << 34)
    orr     x9, x9, #(1 << 27)
    msr     hcr_el2, x9
    isb
    ret
