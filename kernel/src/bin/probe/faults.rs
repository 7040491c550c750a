//! Trials that the processor stops: what the memory map forbids, and instructions that there are not.

use alloc::format;
use alloc::vec;
use core::arch::asm;
use core::hint::black_box;

use crate::os::{Function, first_table, say};
use crate::threads::{count_in, write_line};

/// Where nothing is, and what is no place for more than a byte.
pub const NOWHERE: usize = 7;
/// The instruction RET.
const RET: u32 = 0xd65f_03c0;
static CONSTANT: u32 = RET;
static ENTRY_POINTS: [Function; 2] = [count_in, write_line];

/// Says at which address the fault is to come, for the report to be compared.
pub fn aim(address: usize) {
    say(&format!("aim: {address:#x}\n"));
}

#[inline(never)]
pub fn read(address: usize) -> bool {
    aim(address);
    // SAFETY: none: it is to fault.
    unsafe { (address as *const u8).read_volatile() == 0 }
}

#[inline(never)]
pub fn write(address: usize) -> bool {
    aim(address);
    // SAFETY: none: it is to fault.
    unsafe { (address as *mut u8).write_volatile(1) };
    false
}

#[inline(never)]
pub fn run(address: usize) -> bool {
    aim(address);
    // SAFETY: none: it is to fault.
    unsafe { asm!("blr {}", in(reg) address, clobber_abi("C")) };
    false
}

pub fn null() -> bool {
    read(NOWHERE)
}

pub extern "C" fn null_there(_: usize) {
    null();
}

pub fn write_constant() -> bool {
    write(ENTRY_POINTS.as_ptr() as usize)
}

pub fn run_stack() -> bool {
    run(black_box([RET]).as_ptr() as usize)
}

pub fn run_heap() -> bool {
    run(vec![RET; 1 << 20].as_ptr() as usize)
}

pub fn run_constant() -> bool {
    run((&raw const CONSTANT) as usize)
}

#[inline(never)]
pub fn undefined() -> bool {
    // SAFETY: none: it is to fault.
    unsafe { asm!("udf #7") };
    false
}

/// The number in a boot argument, in hexadecimal.
pub fn hexadecimal(text: &str) -> usize {
    usize::from_str_radix(text.trim_start_matches("0x"), 16).unwrap_or(0)
}

/// Reads a word that does not lie on a multiple of its size, near the register at `device`.
#[inline(never)]
pub fn misaligned_device(device: &str) -> bool {
    let address = hexadecimal(device) + 1;
    aim(address);
    // SAFETY: none: it is to fault.
    unsafe { asm!("ldr {:w}, [{}]", out(reg) _, in(reg) address) };
    false
}

/// Changes the descriptor that maps `address` in the tables that the processor walks.
pub fn change_descriptor(address: usize, change: impl Fn(u64) -> u64) {
    let mut table = first_table() as u64;
    for level in 0..4 {
        let index = address >> (39 - 9 * level) & 511;
        let entry = (table & 0xffff_ffff_f000) as *mut u64;
        // SAFETY: the tables are mapped where they lie, and nobody else changes them now. What
        // becomes of the address is up to the trial.
        unsafe {
            let value = entry.add(index).read_volatile();
            if level < 3 && value & 3 == 3 {
                table = value;
                continue;
            }
            entry.add(index).write_volatile(change(value));
            asm!("dsb ishst", "tlbi vmalle1is", "dsb ish", "isb");
        }
        return;
    }
}

/// Reads memory that user mode may use, which PAN forbids.
pub fn user_page() -> bool {
    let block = vec![0_u8; 4 << 20];
    let address = block.as_ptr() as usize + (2 << 20);
    change_descriptor(address, |entry| entry | 1 << 6);
    read(address)
}

#[inline(never)]
#[expect(unconditional_recursion, reason = "it is to overflow the stack")]
pub fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    recurse(depth + 1) + frame[black_box(3)]
}

pub extern "C" fn overflow(_: usize) {
    recurse(1);
}
