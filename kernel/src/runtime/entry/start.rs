//! From the device tree to the application: the boot core's way through the runtime.

use alloc::borrow::ToOwned;
use alloc::ffi::CString;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ffi::c_char;
use core::fmt::Display;
use core::ptr;

use log::warn;
use spin::Once;

use super::{args, boot};
use crate::cpu::{Features, Kinds};
use crate::report::{Code, Event, Fault, Hello};
use crate::runtime::abi::system::Runtime;
use crate::runtime::arch::this_core::{self, MAX_CORES};
use crate::runtime::arch::time::{self, UnknownFrequency};
use crate::runtime::dev::bus::scan::Bus;
use crate::runtime::dev::{devices, facts, psci, videocore};
use crate::runtime::end::fault;
use crate::runtime::fs;
use crate::runtime::io::sign_of_life::{self, Stage};
use crate::runtime::io::{logger, output};
use crate::runtime::machine::{Chip, Machine, MachineError};
use crate::runtime::mem::mmu::{self, Access, MapError, PAGE_SIZE, Table, Tables};
use crate::runtime::mem::ranges::Ranges;
use crate::runtime::mem::stacks::{self, Stacks};
use crate::runtime::mem::{apple_memory, heap, image, pages};
use crate::runtime::sched::{cores, ending, smp, threads};
use crate::system::{self, APPLICATION};

/// The machine, for all that comes after the device tree is read.
static MACHINE: Once<Boot> = Once::new();

/// What the boot core knows of its start.
struct Boot {
    machine: Machine<'static>,
    clock: Result<(), UnknownFrequency>,
    exception_level: u8,
    counter: u64,
    /// All that the machine has.
    memory_bytes: u64,
    /// What the heap gets.
    free: Ranges,
}

unsafe extern "C" {
    /// The application. Hermit's convention: arguments and environment as C has them.
    safe fn runtime_entry(argc: i32, argv: *const *const c_char, env: *const *const c_char) -> !;
}

/// Goes from the device tree to the first stack with a guard page.
///
/// `counter` is the virtual counter near the first instruction.
pub fn start(device_tree: *const u8, exception_level: u8, counter: u64) -> ! {
    // Before the tree is read there is no console to complain on, and no way to power off.
    let Some(tree) = device_tree_bytes(device_tree) else { ending::stop_core() };
    let mut machine = match Machine::from_fdt(tree) {
        Ok(machine) => machine,
        Err(error) => refuse(tree, &error),
    };
    // First: a device is not waited for longer than some time.
    let clock = time::init(machine.timer.and_then(|timer| timer.frequency_hz));
    // SAFETY: the early map has all devices mapped, the final one those of `devices::regions` and the
    // framebuffer.
    unsafe { set_up_consoles(&mut machine) };
    sign_of_life::show(&machine, Stage::Tree);
    if let Some(psci) = &machine.psci {
        psci::init(psci);
    }

    let tree = device_tree as u64..device_tree as u64 + tree.len() as u64;
    let (mut free, memory_bytes) = free_memory(&machine);
    let cores = machine.cpus.len().clamp(1, MAX_CORES);
    let heap_tables = HEAP_TABLES.max(mmu::tables_for_blocks(free.iter()) + OTHER_TABLES);
    let taken = free.take(Stacks::size(cores)).zip(free.take(heap_tables as u64 * PAGE_SIZE));
    let Some((stacks, heap_tables)) = taken else {
        stop(
            Code::OutOfMemory,
            &"there is no room for the cores' stacks and the page tables",
            "give the machine more memory",
        )
    };
    let stacks = Stacks::new(stacks.start, cores);
    // SAFETY: the map is still the early one.
    unsafe { smp::take_from_spin_tables(&machine) };
    if let Err(error) = map(&machine, tree, &free, stacks, heap_tables) {
        stop(Code::Unsupported, &error, fault::HINT);
    }
    // SAFETY: as above.
    unsafe { devices::set_up_consoles(&machine, true) };
    sign_of_life::show(&machine, Stage::Map);
    stacks::set(stacks);
    MACHINE.call_once(|| Boot { machine, clock, exception_level, counter, memory_bytes, free });
    match stacks::handover(0) {
        // SAFETY: the stacks are mapped, and they are the boot core's own.
        Some(handover) => unsafe { boot::move_to(&handover, go_on) },
        None => ending::stop_core(),
    }
}

/// On the boot core's own stack: everything else, and then the application.
extern "C" fn go_on() -> ! {
    let Some(boot) = MACHINE.get() else { ending::stop_core() };
    let machine = &boot.machine;
    for range in boot.free.iter() {
        // SAFETY: mapped, free by the device tree, and given to nobody else.
        unsafe { heap::add(range) };
    }
    heap::set_total(boot.memory_bytes);
    logger::init();
    for what in &machine.left_out {
        warn!("{what}");
    }
    if let Err(error) = boot.clock {
        warn!("{error}");
    }
    // SAFETY: the final map has the devices of `devices::regions`.
    unsafe { devices::set_up_interrupts(machine) };
    // SAFETY: as above.
    unsafe { devices::raise_clocks(machine) };
    // SAFETY: as above.
    unsafe { devices::note_sd_hosts(machine) };
    smp::start_all(machine);
    sign_of_life::show(machine, Stage::Cores);
    videocore::start_work();
    if machine.chip == Chip::Bcm2711
        && let Some(settings) = this_core::cortex_a72_settings(boot.exception_level)
    {
        facts::FACTS.note("cpuectlr", format_args!("{settings:#x}"));
    }
    if machine.chip == Chip::Apple
        && let Some(hcr) = this_core::hypervisor_configuration()
    {
        facts::FACTS.note("hcr", format_args!("{hcr:#x}"));
    }
    threads::run_first(on_first_core, smp::for_first_thread(machine));
    run_application(boot)
}

/// Where the first thread starts on another core than the boot core.
extern "C" fn on_first_core(_: usize) {
    if let Some(boot) = MACHINE.get() {
        run_application(boot);
    }
}

/// In the application's first thread: the rest of the start, and the application.
fn run_application(boot: &Boot) -> ! {
    greet(boot);
    mount(&boot.machine);
    system::install(&Runtime);
    enter_application(boot.machine.bootargs)
}

/// Prints the banner and the `hello` event.
fn greet(boot: &Boot) {
    let version = env!("CARGO_PKG_VERSION");
    let memory = heap::memory();
    let kinds: Kinds = cores::midrs().collect();
    let cpu = match kinds.only() {
        Some(midr) => midr.to_string(),
        None => {
            facts::FACTS.note("midr", format_args!("{}", kinds.registers()));
            kinds.to_string()
        }
    };
    let hello = Hello {
        version: version.to_owned(),
        image_sha256: image::sha256(),
        machine: String::from_utf8_lossy(boot.machine.model).into_owned(),
        cpu,
        cpu_features: Features::of_this_core().names().map(str::to_owned).collect(),
        kernels: (APPLICATION.kernels)().to_owned(),
        cores: cores::count(),
        exception_level: boot.exception_level,
        consoles: devices::consoles().collect(),
        board: facts::FACTS.all(),
        memory_bytes: memory.total_bytes,
        memory_free_bytes: memory.free_bytes,
        boot_us: time::rate().us(time::counter() - boot.counter),
    };
    output::print_line(format_args!(
        "Anchorite {version} on {}: {kinds}, {} MiB",
        hello.machine,
        memory.total_bytes >> 20
    ));
    output::write(Event::Hello(hello).to_record().as_bytes());
}

/// Mounts the model disk and prints the `disk` event. A machine without one runs on, since not
/// every application needs a model; a disk that is damaged ends the run.
fn mount(machine: &Machine<'_>) {
    // SAFETY: the final map has the devices of `devices::regions`, the initrd read only, and the
    // heap. This is the only call.
    let disks = unsafe { fs::disks::disks(machine, &mut Bus::scan(machine)) };
    let mounted = disks.map_err(Fault::from).and_then(|(disks, archive)| fs::mount(disks, archive));
    match mounted {
        Ok(disk) => output::write(Event::Disk(disk).to_record().as_bytes()),
        Err(fault) if fault.code == Code::ModelNotFound => {
            warn!("{}: {}", fault.message, fault.hint);
        }
        Err(fault) => stop(fault.code, &fault.message, &fault.hint),
    }
}

/// Calls the application with the words of the boot arguments.
fn enter_application(bootargs: &[u8]) -> ! {
    let words = match args::split(bootargs) {
        Ok(words) => words,
        Err(error) => stop(Code::InvalidConfig, &error, "close the quote, or write it as \\\""),
    };
    let words = core::iter::once(b"anchorite".to_vec()).chain(words);
    // A device tree's text ends at its first NUL, so that none is lost here.
    let words = words.filter_map(|word| CString::new(word).ok());
    let mut argv: Vec<*const c_char> = words.map(|word| word.into_raw().cast_const()).collect();
    let argc = argv.len() as i32;
    argv.push(ptr::null());
    static ENVIRONMENT: Environment = Environment([ptr::null()]);
    runtime_entry(argc, argv.leak().as_ptr(), ENVIRONMENT.0.as_ptr())
}

/// No variables.
struct Environment([*const c_char; 1]);

// SAFETY: it holds no pointer but null.
unsafe impl Sync for Environment {}

/// Tells what is wrong with the device tree, if it has a console to tell it on.
fn refuse(tree: &'static [u8], error: &MachineError) -> ! {
    if let Some(mut machine) = Machine::console_and_firmware(tree) {
        // SAFETY: the early map has all devices mapped.
        unsafe { set_up_consoles(&mut machine) };
        if let Some(psci) = &machine.psci {
            psci::init(psci);
        }
    }
    stop(
        Code::Unsupported,
        error,
        "boot with another device tree, or a boot loader that changes less",
    );
}

fn stop(code: Code, message: &dyn Display, hint: &str) -> ! {
    fault::end(code, format_args!("{message}"), hint, &|_| Ok(()))
}

/// Sets up the consoles on the early map, on a display that only the firmware knows too.
///
/// # Safety
/// As for [`devices::set_up_consoles`]; so for the mailbox.
unsafe fn set_up_consoles(machine: &mut Machine<'_>) {
    // SAFETY: upheld by the caller.
    unsafe { videocore::set_up(machine) };
    if machine.framebuffer.is_none() {
        videocore::show_picture(machine);
    }
    keep_framebuffer_safe(machine);
    // SAFETY: upheld by the caller.
    unsafe {
        devices::choose_port(machine);
        devices::set_up_consoles(machine, false);
    }
}

/// Does without a framebuffer that the processor cannot reach or that is on top of the image.
fn keep_framebuffer_safe(machine: &mut Machine<'_>) {
    machine.keep_framebuffer_off(image::whole());
    machine.keep_framebuffer_off(1 << this_core::physical_address_bits()..u64::MAX);
}

/// The bytes of the device tree at `start`; `None` if there is none.
fn device_tree_bytes(start: *const u8) -> Option<&'static [u8]> {
    const MAGIC: u32 = 0xd00d_feed;
    let header = start.cast::<[u32; 2]>();
    if header.is_null() || !header.is_aligned() {
        return None;
    }
    // SAFETY: by the boot protocol x0 holds the address of the tree; the early map reaches it.
    let [magic, size] = unsafe { header.read() }.map(u32::from_be);
    if magic != MAGIC || size > boot::MAX_TREE_SIZE {
        return None;
    }
    // SAFETY: the tree is that long, the early map reaches all of it, and nobody writes it: it is
    // taken out of the free memory.
    Some(unsafe { core::slice::from_raw_parts(start, size as usize) })
}

/// What of the memory is free, and the bytes of all of it.
fn free_memory(machine: &Machine<'_>) -> (Ranges, u64) {
    let mut free = Ranges::new();
    for region in &machine.memory {
        free.add(region.range(), PAGE_SIZE);
    }
    let total = free.bytes();
    // The tree and the initrd among them.
    for reserved in &machine.reserved {
        free.remove(reserved.range(), PAGE_SIZE);
    }
    free.remove(image::whole(), PAGE_SIZE);
    free.remove(0..PAGE_SIZE, PAGE_SIZE);
    let left_out = apple_memory::leave_out(machine, &mut free);
    if left_out > 0 {
        let end = apple_memory::m1n1_end(machine).unwrap_or(0);
        facts::FACTS.note("left-out", format_args!("{} KiB, m1n1 to {end:#x}", left_out >> 10));
    }
    (free, total)
}

fn pages(range: core::ops::Range<u64>) -> core::ops::Range<u64> {
    range.start - range.start % PAGE_SIZE..range.end.next_multiple_of(PAGE_SIZE)
}

/// Tables for the heap, or more in a machine with more than some 20 GiB of memory. In one with up to some
/// 64 MiB they suffice to have all of it in pages.
const HEAP_TABLES: usize = 48;
/// Those that are kept for blocks that are split later.
const OTHER_TABLES: usize = 24;

/// Builds the final map and switches to it: first all but the heap, then the heap, with tables in memory that
/// only the new map has.
fn map(
    machine: &Machine<'_>,
    tree: core::ops::Range<u64>,
    free: &Ranges,
    stacks: Stacks,
    heap_tables: core::ops::Range<u64>,
) -> Result<(), MapError> {
    let (pool, address) = boot::tables();
    let mut tables = Tables::new(pool, address)?;
    for region in devices::regions(machine) {
        tables.map(pages(region.range()), Access::Device)?;
    }
    if let Some(framebuffer) = &machine.framebuffer {
        // Uncached, as m1n1 had it, and as the display sees it: it looks at the memory, not at the
        // caches. No other map has it as memory, as it is reserved.
        tables.map(pages(framebuffer.picture().range()), Access::Uncached)?;
    }
    tables.map(heap_tables.clone(), Access::Data)?;
    tables.map(stacks.whole(), Access::Data)?;
    for guard in stacks.guard_pages() {
        tables.unmap(guard)?;
    }
    tables.map(pages(tree), Access::ReadOnly)?;
    if let Some(initrd) = machine.initrd {
        tables.map(pages(initrd.range()), Access::ReadOnly)?;
    }
    tables.map(image::text(), Access::Code)?;
    tables.map(image::rodata(), Access::ReadOnly)?;
    tables.map(image::data(), Access::Data)?;
    tables.map(pages(image::symbols()), Access::ReadOnly)?;
    tables.unmap(0..PAGE_SIZE)?;
    // SAFETY: everything that the runtime uses is mapped as on the early map, and `pages` changes no more
    // than it may.
    unsafe { boot::use_tables(tables.root()) };
    let start = ptr::with_exposed_provenance_mut::<Table>(heap_tables.start as usize);
    let count = ((heap_tables.end - heap_tables.start) / PAGE_SIZE) as usize;
    // SAFETY: mapped for this, and nobody else's. Zeros are tables, and atomic.
    let more = unsafe {
        start.write_bytes(0, count);
        core::slice::from_raw_parts(start, count)
    };
    tables.extend(more, heap_tables.start);
    // Nothing was mapped there: no core has to forget anything.
    tables.map_data(free.iter(), OTHER_TABLES)?;
    pages::publish();
    pages::keep(tables);
    Ok(())
}
