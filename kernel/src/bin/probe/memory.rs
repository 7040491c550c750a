//! Trials of the heap, and of memory that becomes read-only.

use alloc::vec;
use alloc::vec::Vec;
use core::hint::black_box;
use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering};

use hermit_abi as abi;
use kernel::system::{self, Memory};

use crate::early_map::image_start;
use crate::faults::aim;
use crate::os::{Thread, alloc, cores, join_all, say, start};
use crate::threads::sleep;

/// Bytes of the blocks that use up the heap.
const CHUNK: usize = 1 << 20;

/// Blocks of many sizes keep what is written to them, come aligned, and can be had again.
pub fn memory() -> bool {
    for _ in 0..3 {
        let sizes = [1, 31, 4096, 65_537, 3 << 20, 16 << 20];
        let mut blocks = Vec::new();
        for (i, size) in sizes.into_iter().enumerate() {
            let Some(block) = alloc(size, 64).filter(|block| block.addr().get() % 64 == 0) else {
                return false;
            };
            // SAFETY: the block is that large and new.
            unsafe { block.write_bytes(i as u8 + 1, size) };
            blocks.push((block, size));
        }
        for (i, (block, size)) in blocks.into_iter().enumerate() {
            // SAFETY: written above; allocated with this size and alignment, not used again.
            unsafe {
                let bytes = core::slice::from_raw_parts(block.as_ptr(), size);
                if bytes.iter().any(|&byte| byte != i as u8 + 1) {
                    return false;
                }
                abi::dealloc(block.as_ptr(), size, 64);
            }
        }
    }
    // The heap gives all that it has, no block twice, and the same again once it is freed.
    let mut counts = [0; 2];
    for count in &mut counts {
        let mut blocks = Vec::with_capacity(8192);
        while let Some(block) = alloc(CHUNK, 64) {
            blocks.push(block.cast::<usize>());
        }
        *count = blocks.len();
        for (i, block) in blocks.iter().enumerate() {
            // SAFETY: the block is large enough and new.
            unsafe { block.write(i) };
        }
        for (i, block) in blocks.into_iter().enumerate() {
            // SAFETY: written above; allocated with this size and alignment, not used again.
            unsafe {
                if block.read() != i {
                    return false;
                }
                abi::dealloc(block.as_ptr().cast(), CHUNK, 64);
            }
        }
    }
    counts[0] > 10 && counts[0] == counts[1]
}

/// Takes all of the heap, to the last byte.
pub fn exhaust() -> bool {
    let mut size = 16 << 20;
    while size > 0 {
        if alloc(size, 1).is_none() {
            size /= 2;
        }
    }
    // Not even this has room now, so that what follows must do without.
    alloc(1, 1).is_none()
}

pub extern "C" fn out_of_memory(_: usize) {
    let mut kept = Vec::new();
    loop {
        kept.push(Vec::<u8>::with_capacity(black_box(13 << 20)));
    }
}

const PAGE: usize = 4096;
/// What the map has in one block, if it can.
const BLOCK: usize = 2 << 20;
const READ_WRITE: u32 = abi::PROT_READ | abi::PROT_WRITE;

/// New pages, or the error.
fn map(bytes: usize, flags: u32) -> Result<*mut u8, i32> {
    let mut start = ptr::null_mut();
    // SAFETY: a valid place for the answer.
    match unsafe { abi::mmap(bytes, flags, &mut start) } {
        0 => Ok(start),
        error => Err(-error),
    }
}

fn unmap(start: *mut u8, bytes: usize) -> i32 {
    // SAFETY: the memory is the trial's own, or the call is to be refused.
    unsafe { abi::munmap(start, bytes) }
}

fn set_protection(start: *mut u8, bytes: usize, flags: u32) -> i32 {
    // SAFETY: the memory is the trial's own, or the call is to be refused.
    unsafe { abi::mprotect(start, bytes, flags) }
}

pub fn memory_of_the_machine() -> Memory {
    system::get().map(|system| system.memory()).unwrap_or_default()
}

/// Bytes that the heap can still give.
fn available() -> usize {
    memory_of_the_machine().free_bytes as usize
}

/// Bytes that other cores write to, again and again, until the first is taken away.
static WORDS: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

#[inline(never)]
extern "C" fn write_again(_: usize) {
    while WORDS[0].load(Ordering::SeqCst) != 0 {
        for word in &WORDS {
            let at = word.load(Ordering::SeqCst) as *mut u8;
            if !at.is_null() {
                // SAFETY: a byte that the trial has for this, and that nobody reads.
                unsafe { at.write_volatile(2) };
            }
        }
    }
}

/// Memory is made read-only and writable again, and comes and goes, while other cores use what lies
/// beside it.
pub fn protect() -> bool {
    let before = available();
    let bytes = BLOCK + 3 * PAGE;
    let Ok(first) = map(bytes - 17, READ_WRITE) else { return false };
    // What is behind the last page is somebody else's.
    let taken = before - available();
    let small = first.addr().is_multiple_of(PAGE) && (bytes..bytes + BLOCK / 8).contains(&taken);
    // The neighbours: a page in the same block that is split, and the heap.
    let neighbour = first.wrapping_add(bytes - 3 * PAGE);
    let mut heap = vec![0_u8; 64];
    WORDS[0].store(neighbour.addr(), Ordering::SeqCst);
    WORDS[1].store(heap.as_mut_ptr().expose_provenance(), Ordering::SeqCst);
    let writers: Vec<Thread> = (1..cores()).map(|_| start(write_again, 0, -1)).collect();
    let second = neighbour.wrapping_add(PAGE);
    // SAFETY: as many bytes are there, and writable.
    unsafe {
        first.write_bytes(0, bytes - 3 * PAGE);
        second.write_volatile(0);
    }
    let good = (0..53_u8).all(|i| {
        let done = set_protection(second, PAGE + 1, abi::PROT_READ) == 0
            && set_protection(first, BLOCK, abi::PROT_READ) == 0;
        // SAFETY: as many bytes are there.
        let kept = unsafe { second.read_volatile() == i && first.read_volatile() == i };
        let undone = set_protection(second, 2 * PAGE, READ_WRITE) == 0
            && set_protection(first, BLOCK, READ_WRITE) == 0;
        for at in [first, second] {
            // SAFETY: it is writable again.
            unsafe { at.write_volatile(i + 1) };
        }
        let other = map(PAGE * (usize::from(i) + 1), abi::PROT_READ);
        let gone = other.map(|other| unmap(other, PAGE * (usize::from(i) + 1)));
        done && kept && undone && gone == Ok(0)
    });
    let of_the_heap = vec![0_u8; 3 * PAGE];
    let heap_page = of_the_heap.as_ptr().cast_mut().map_addr(|at| at.next_multiple_of(PAGE));
    let refused = [
        set_protection(first, PAGE, abi::PROT_NONE),
        set_protection(first, PAGE, abi::PROT_READ | abi::PROT_EXEC),
        set_protection(first.wrapping_add(1), PAGE, abi::PROT_READ),
        set_protection(second, 3 * PAGE, abi::PROT_READ),
        set_protection(first, usize::MAX - PAGE + 1, abi::PROT_READ),
        set_protection(ptr::null_mut(), PAGE, abi::PROT_READ),
        set_protection(image_start(), PAGE, READ_WRITE),
        set_protection(heap_page, PAGE, abi::PROT_READ),
        set_protection(ptr::without_provenance_mut(0x1000_0000_0000), PAGE, abi::PROT_READ),
        unmap(first, BLOCK),
        unmap(second, PAGE),
        unmap(heap_page, PAGE),
    ];
    let none = [map(0, READ_WRITE), map(PAGE, READ_WRITE | abi::PROT_EXEC)];
    // Of a block of 2 MiB, which the memory starts with where it is not mapped by pages, only all.
    let by_blocks = first.addr().is_multiple_of(BLOCK);
    let part = set_protection(first, PAGE, abi::PROT_READ);
    WORDS[0].store(0, Ordering::SeqCst);
    let joined = join_all(writers);
    small
        && good
        && joined
        && refused == [-abi::EINVAL; 12]
        && none == [Err(abi::EINVAL); 2]
        && map(usize::MAX / 2, READ_WRITE) == Err(abi::ENOMEM)
        && (part == 0 || (by_blocks && part == -abi::ENOMEM))
        // It goes back to the heap while it is read-only.
        && set_protection(first, bytes, abi::PROT_READ) == 0
        && unmap(first, bytes) == 0
        && before - available() < BLOCK / 8
}

/// Another core writes to memory, which this one makes read-only meanwhile.
pub fn write_protected() -> bool {
    let Ok(first) = map(2 * PAGE, READ_WRITE) else { return false };
    let second = first.wrapping_add(PAGE);
    aim(second.addr());
    WORDS[0].store(first.addr(), Ordering::SeqCst);
    WORDS[1].store(second.addr(), Ordering::SeqCst);
    let _ = start(write_again, 0, 1);
    let protected = sleep() && set_protection(second, PAGE, abi::PROT_READ) == 0;
    sleep();
    say(if protected { "it is still written to\n" } else { "it is not protected\n" });
    false
}
