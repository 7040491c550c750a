//! Exceptions: none is expected, each is reported and ends the run.
//!
//! Interrupts are masked for good (`sched/idle.rs` says how they are used nevertheless), so what
//! arrives here is a fault. The report shows what happened in words, the registers and the way
//! there; it runs on the core's exception stack, so that an overflow of the stack is reported
//! like any other fault, as what it is.

use core::arch::global_asm;
use core::fmt::Write;

use super::{backtrace, fault};
use crate::report::Code;
use crate::runtime::arch::esr::Syndrome;
use crate::runtime::arch::handover::Raw;
use crate::runtime::arch::this_core;
use crate::runtime::mem::stacks;

/// What `vectors.s` saves, in this order.
#[repr(C)]
#[derive(Debug)]
struct Frame {
    x: [u64; 31],
    sp: u64,
    elr: u64,
    spsr: u64,
    esr: u64,
    far: u64,
}

/// The stack for a fault in the report of another: one is enough, as only one core reports.
static LAST_RESORT_STACK: Raw<[u8; LAST_RESORT_STACK_SIZE]> = Raw::new([0; LAST_RESORT_STACK_SIZE]);
const LAST_RESORT_STACK_SIZE: usize = 4096;

global_asm!(
    include_str!("vectors.s"),
    FRAME_SIZE = const size_of::<Frame>(),
    exception_main = sym exception_main,
    nested_exception_main = sym nested_exception_main,
    LAST_RESORT_STACK = sym LAST_RESORT_STACK,
    LAST_RESORT_STACK_SIZE = const LAST_RESORT_STACK_SIZE,
);

const _: () = {
    // The offsets that `vectors.s` stores to.
    assert!(core::mem::offset_of!(Frame, sp) == 248);
    assert!(core::mem::offset_of!(Frame, elr) == 256);
    assert!(core::mem::offset_of!(Frame, far) == 280);
    assert!(size_of::<Frame>().is_multiple_of(16));
};

extern "C" fn exception_main(kind: u64, frame: &Frame) -> ! {
    let core = this_core::current();
    let syndrome = Syndrome(frame.esr);
    let details = |out: &mut dyn Write| {
        for (i, x) in frame.x.iter().enumerate() {
            write!(out, "  x{i:<2} {x:016x}{}", if i % 4 == 3 { "\n" } else { "" })?;
        }
        writeln!(out, "  sp  {:016x}", frame.sp)?;
        write!(out, "  pc  {:016x}  spsr {:08x}", frame.elr, frame.spsr)?;
        writeln!(out, "  esr {:08x}  far {:016x}", frame.esr, frame.far)?;
        backtrace::write(out, frame.elr, frame.x[29])
    };
    let at = backtrace::Place(frame.elr);
    let overflow = stacks::guarded_core(frame.far).filter(|_| syndrome.is_translation_fault());
    match kind {
        0 if let Some(owner) = overflow => fault::end(
            Code::Exception,
            format_args!("stack overflow on core {owner} at {at}"),
            fault::HINT,
            &details,
        ),
        0 if syndrome.has_address() => fault::end(
            Code::Exception,
            format_args!("{syndrome}, address {:#x}, at {at}, core {core}", frame.far),
            fault::HINT,
            &details,
        ),
        0 => fault::end(
            Code::Exception,
            format_args!("{syndrome} at {at}, core {core}"),
            fault::HINT,
            &details,
        ),
        _ => {
            let kind = ["", "IRQ", "FIQ", "SError"][kind as usize % 4];
            fault::end(
                Code::Exception,
                format_args!("unexpected {kind} at {at}, core {core}"),
                fault::HINT,
                &details,
            )
        }
    }
}

extern "C" fn nested_exception_main(esr: u64, elr: u64, far: u64) -> ! {
    fault::end_in_fault(format_args!(
        "{} in the report of another fault, at {}, address {far:#x}",
        Syndrome(esr),
        backtrace::Place(elr),
    ))
}
