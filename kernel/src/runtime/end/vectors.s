// The exception vectors. Rust runs on SP_EL0, so an exception in it arrives at the first group,
// on the core's own exception stack; one in the second group is a fault in the report of another.

.macro vector kind
    .balign 128
    sub     sp, sp, #{FRAME_SIZE}
    stp     x0, x1, [sp]
    mov     x0, #\kind
    b       exception
.endm

.macro nested_vector
    .balign 128
    b       nested_exception
.endm

.section .text.vectors, "ax"
.balign 2048
.global exception_vectors
exception_vectors:
    vector  0                           // from SP_EL0: synchronous
    vector  1                           // IRQ
    vector  2                           // FIQ
    vector  3                           // SError
    .rept 12                            // from SP_ELx; from a lower level, where nothing runs
    nested_vector
    .endr

// Those until there are stacks and Rust can run: nothing is known that the fault could be told on.
.global early_vectors
early_vectors:
    .rept 16
    .balign 128
    b       early_fault
    .endr

// Stops the core where a debugger, or m1n1's hypervisor, finds what happened: x0 to x2.
.balign 128
early_fault:
    mrs     x0, esr_el1
    mrs     x1, elr_el1
    mrs     x2, far_el1
1:  wfi
    b       1b

.balign 4
exception:
    stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    stp     x18, x19, [sp, #144]
    stp     x20, x21, [sp, #160]
    stp     x22, x23, [sp, #176]
    stp     x24, x25, [sp, #192]
    stp     x26, x27, [sp, #208]
    stp     x28, x29, [sp, #224]
    mrs     x1, sp_el0
    stp     x30, x1, [sp, #240]
    mrs     x1, elr_el1
    mrs     x2, spsr_el1
    stp     x1, x2, [sp, #256]
    mrs     x1, esr_el1
    mrs     x2, far_el1
    stp     x1, x2, [sp, #272]
    mov     x1, sp
    bl      {exception_main}

nested_exception:
    adrp    x0, {LAST_RESORT_STACK}
    add     x0, x0, :lo12:{LAST_RESORT_STACK}
    add     sp, x0, #{LAST_RESORT_STACK_SIZE}
    mrs     x0, esr_el1
    mrs     x1, elr_el1
    mrs     x2, far_el1
    bl      {nested_exception_main}
