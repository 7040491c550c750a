//! The boot core's path from the device tree to the application.

use alloc::borrow::ToOwned;
use alloc::ffi::CString;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ffi::c_char;
use core::fmt::Display;
use core::ptr;

use log::warn;
use spin::Once;

use super::{args, map};
use crate::cpu::{Features, Kinds};
use crate::report::{Code, Event, Fault, Hello};
use crate::runtime::abi::system::Runtime;
use crate::runtime::arch::handover;
use crate::runtime::arch::this_core::{self, MAX_CORES};
use crate::runtime::arch::time::{self, UnknownFrequency};
use crate::runtime::dev::bus::scan::{self, Bus};
use crate::runtime::dev::{devices, entropy, facts, psci, videocore};
use crate::runtime::end::fault;
use crate::runtime::fs;
use crate::runtime::io::sign_of_life::{self, Stage};
use crate::runtime::io::{logger, output};
use crate::runtime::machine::{Chip, Machine, MachineError};
use crate::runtime::mem::mmu::PAGE_SIZE;
use crate::runtime::mem::ranges::Ranges;
use crate::runtime::mem::stacks::Stacks;
use crate::runtime::mem::{core_stacks, early, heap, image};
use crate::runtime::sched::{cores, ending, smp, threads};
use crate::system::{self, APPLICATION};

/// The machine, for everything after the device tree is read.
static MACHINE: Once<Boot> = Once::new();

/// State of the boot core's start.
struct Boot {
    machine: Machine<'static>,
    clock: Result<(), UnknownFrequency>,
    exception_level: u8,
    counter: u64,
    /// Size of all memory of the machine, in bytes.
    memory_bytes: u64,
    /// The memory of the heap.
    free: Ranges,
}

unsafe extern "C" {
    /// The application. By Hermit's convention, arguments and environment are as in C.
    safe fn runtime_entry(argc: i32, argv: *const *const c_char, env: *const *const c_char) -> !;
}

/// Runs from the device tree to the first stack with a guard page.
///
/// `counter` is the virtual counter near the first instruction.
pub fn start(device_tree: *const u8, exception_level: u8, counter: u64) -> ! {
    // Before the tree is read, there is no console to report to, and no way to power off.
    let Some(tree) = device_tree_bytes(device_tree) else { ending::stop_core() };
    let mut machine = match Machine::from_fdt(tree) {
        Ok(machine) => machine,
        Err(error) => refuse(tree, &error),
    };
    // The clock comes first, because waits for devices have timeouts.
    let clock = time::init(machine.timer.and_then(|timer| timer.frequency_hz));
    // SAFETY: the early map has all devices mapped. The final map has those of `devices::regions`
    // and the framebuffer.
    unsafe { set_up_consoles(&mut machine) };
    sign_of_life::show(&machine, Stage::Tree);
    if let Some(psci) = &machine.psci {
        psci::init(psci);
    }

    let tree = device_tree as u64..device_tree as u64 + tree.len() as u64;
    let (mut free, memory_bytes) = map::free_memory(&machine);
    let cores = machine.cpus.len().clamp(1, MAX_CORES);
    let heap_tables = map::heap_tables(&free);
    let taken = free.take(Stacks::size(cores)).zip(free.take(heap_tables as u64 * PAGE_SIZE));
    let Some((stacks, heap_tables)) = taken else {
        stop(
            Code::OutOfMemory,
            &"there is no room for the cores' stacks and the page tables",
            "give the machine more memory",
        )
    };
    let stacks = Stacks::new(stacks.start, cores);
    // SAFETY: the early map is still in use.
    unsafe { smp::take_from_spin_tables(&machine) };
    if let Err(error) = map::build(&machine, tree, &free, stacks, heap_tables) {
        stop(Code::Unsupported, &error, fault::HINT);
    }
    // SAFETY: as above.
    unsafe { devices::set_up_consoles(&machine, true) };
    sign_of_life::show(&machine, Stage::Map);
    core_stacks::set(stacks);
    MACHINE.call_once(|| Boot { machine, clock, exception_level, counter, memory_bytes, free });
    match core_stacks::handover(0) {
        // SAFETY: the stacks are mapped, and belong to the boot core alone.
        Some(handover) => unsafe { handover::move_to(&handover, go_on) },
        None => ending::stop_core(),
    }
}

/// Runs the rest of the start on the boot core's own stack, then the application.
extern "C" fn go_on() -> ! {
    let Some(boot) = MACHINE.get() else { ending::stop_core() };
    let machine = &boot.machine;
    for range in boot.free.iter() {
        // SAFETY: the range is mapped, free by the device tree, and given to nobody else.
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
    unsafe { devices::set_date(machine) };
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

/// Entry of the first thread where its core is not the boot core.
extern "C" fn on_first_core(_: usize) {
    if let Some(boot) = MACHINE.get() {
        run_application(boot);
    }
}

/// Runs the rest of the start, and the application, in the first thread.
fn run_application(boot: &Boot) -> ! {
    greet(boot);
    // SAFETY: the final map has the devices of `devices::regions`, and the heap. This is the only
    // call.
    let mut bus = unsafe { Bus::scan(&boot.machine) };
    entropy::start(&boot.machine, &mut bus);
    mount(&boot.machine, &mut bus);
    scan::keep(bus);
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

/// Mounts the model disk and prints the `disk` event.
///
/// A machine without a disk runs on, since not every application needs a model. A damaged disk ends
/// the run.
fn mount(machine: &Machine<'_>, bus: &mut Bus) {
    // SAFETY: the final map has the devices of `devices::regions`, the initrd read-only, and the
    // heap. This is the only call.
    let disks = unsafe { fs::disks::disks(machine, bus) };
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
    // A device tree's text ends at its first NUL, so no word is lost here.
    let words = words.filter_map(|word| CString::new(word).ok());
    let mut argv: Vec<*const c_char> = words.map(|word| word.into_raw().cast_const()).collect();
    let argc = argv.len() as i32;
    argv.push(ptr::null());
    static ENVIRONMENT: Environment = Environment([ptr::null()]);
    runtime_entry(argc, argv.leak().as_ptr(), ENVIRONMENT.0.as_ptr())
}

/// An environment without variables.
struct Environment([*const c_char; 1]);

// SAFETY: the array holds no pointer except null.
unsafe impl Sync for Environment {}

/// Reports the error in the device tree, if the tree has a console.
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

/// Sets up the consoles on the early map.
///
/// A display that only the firmware knows counts too.
///
/// # Safety
/// As for [`devices::set_up_consoles`]; the same holds for the mailbox.
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

/// Drops a framebuffer out of the processor's reach, or on top of the image.
fn keep_framebuffer_safe(machine: &mut Machine<'_>) {
    machine.keep_framebuffer_off(image::whole());
    machine.keep_framebuffer_off(1 << this_core::physical_address_bits()..u64::MAX);
}

/// Reads the device tree at `start`; `None` if there is none.
fn device_tree_bytes(start: *const u8) -> Option<&'static [u8]> {
    const MAGIC: u32 = 0xd00d_feed;
    let header = start.cast::<[u32; 2]>();
    if header.is_null() || !header.is_aligned() {
        return None;
    }
    // SAFETY: by the boot protocol x0 holds the address of the tree. The early map has the tree.
    let [magic, size] = unsafe { header.read() }.map(u32::from_be);
    if magic != MAGIC || size > early::MAX_TREE_SIZE {
        return None;
    }
    // SAFETY: the tree has that length, and the early map has all of the tree. Nobody writes to the
    // tree, as its memory is removed from the free memory.
    Some(unsafe { core::slice::from_raw_parts(start, size as usize) })
}
