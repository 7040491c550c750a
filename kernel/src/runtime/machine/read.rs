//! Fills a [`Machine`] from the tree, with one function for each kind of node.

use core::ops::{ControlFlow, Range};

use arrayvec::ArrayVec;
use dtoolkit::fdt::Fdt;

use super::nodes::{
    CLOCK_MANAGER, GIC_V2, GIC_V3, GPIO, MAILBOX, MINI_UART, POWER_MANAGER, SDHCI,
    SIMPLE_FRAMEBUFFER, is_header_pl011, read_chip, read_cpu, read_gic, read_psci, read_sd_supply,
    read_timer, read_uart, room, uart_kind,
};
use super::structure;
use super::tree::{At, GicNode, text, until_nul, value, walk};
use super::{
    Chip, Framebuffer, Header, List, Machine, MachineError, Region, SdHost, Uart, VirtioMmio,
};

impl<'t> Machine<'t> {
    /// Reads the machine from a flattened device tree; other bytes may follow the tree.
    ///
    /// The address of `bytes` is taken as the physical address, and is reserved. So memory must be
    /// identity-mapped, or the MMU off.
    ///
    /// # Errors
    /// The tree is damaged, or wrong about the memory or the reserved parts of the memory.
    pub fn from_fdt(bytes: &'t [u8]) -> Result<Machine<'t>, MachineError> {
        let bytes = without_rest(bytes);
        let fdt = structure::open(bytes)?;

        let mut machine = Machine::empty();
        let tree = Region { base: bytes.as_ptr().addr() as u64, size: bytes.len() as u64 };
        machine.reserve(tree)?;
        for entry in fdt.memory_reservations() {
            if let Some(region) = Region::checked(entry.address(), entry.size()) {
                machine.reserve(region)?;
            }
        }

        // The interrupt controller is read first: other devices' interrupts depend on it.
        let mut gic = None;
        walk(fdt, &mut |at| {
            if machine.gic.is_none() && (at.is_compatible(GIC_V2) || at.is_compatible(GIC_V3)) {
                let found = read_gic(at).and_then(|found| Ok((found, GicNode::new(at)?)));
                if let Some((found, node)) = machine.keep(found) {
                    (machine.gic, gic) = (Some(found), Some(node));
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;

        let stdout = Stdout::new(fdt);
        walk(fdt, &mut |at| machine.visit(at, fdt, gic.as_ref(), &stdout))?;

        if machine.chip == Chip::Apple {
            machine.read_clusters(fdt)?;
        }

        if machine.memory.is_empty() {
            return Err(MachineError::NoMemory);
        }
        machine.keep_framebuffer_off(tree.range());
        if let Some(initrd) = machine.initrd {
            machine.keep_framebuffer_off(initrd.range());
        }
        if let Some(framebuffer) = machine.framebuffer {
            machine.reserve(framebuffer.region)?;
        }
        machine.virtio_mmio.sort_unstable_by_key(|device| device.region.base);
        Ok(machine)
    }

    /// Names of the machines that a tree is for: `compatible` of its root.
    /// The most specific name comes first.
    ///
    /// # Errors
    /// The tree is damaged.
    pub fn names_in(bytes: &'t [u8]) -> Result<impl Iterator<Item = &'t str>, MachineError> {
        let fdt = structure::open(without_rest(bytes))?;
        let names = value(fdt.root(), "compatible").unwrap_or_default().split(|&byte| byte == 0);
        Ok(names.filter_map(|name| str::from_utf8(name).ok()).filter(|name| !name.is_empty()))
    }

    /// Reads only the console and the firmware, to report a refused tree.
    ///
    /// [`Machine::from_fdt`] has refused the tree. Other errors in the tree do not matter here.
    /// `None` if the tree cannot be read at all.
    pub fn console_and_firmware(bytes: &'t [u8]) -> Option<Machine<'t>> {
        let fdt = structure::open(without_rest(bytes)).ok()?;
        let mut machine = Machine::empty();
        let stdout = Stdout::new(fdt);
        // If the walk ends early, the nodes found before are all there is.
        let _ = walk(fdt, &mut |at| {
            if at.is_at("/") {
                machine.chip = read_chip(at);
            }
            machine.visit_for_the_end(at, fdt, None, &stdout);
            Ok(ControlFlow::Continue(()))
        });
        Some(machine)
    }

    /// Drops the framebuffer if its memory overlaps with `other`.
    pub fn keep_framebuffer_off(&mut self, other: Range<u64>) {
        if self.framebuffer.is_some_and(|framebuffer| framebuffer.region.overlaps(&other)) {
            self.framebuffer = None;
            self.keep::<()>(Err(MachineError::Overlap { device: "framebuffer" }));
        }
    }

    /// Adds a framebuffer that the tree does not list.
    /// A framebuffer that overlaps with other memory in use is dropped.
    pub fn add_framebuffer(&mut self, framebuffer: Framebuffer) {
        self.framebuffer = Some(framebuffer);
        for region in self.reserved.clone() {
            self.keep_framebuffer_off(region.range());
        }
        if self.framebuffer.is_some() {
            let reserved = self.reserve(framebuffer.region);
            if self.keep(reserved).is_none() {
                self.framebuffer = None;
            }
        }
    }

    fn empty() -> Machine<'t> {
        Machine {
            model: b"",
            chip: Chip::Other,
            memory: ArrayVec::new(),
            reserved: ArrayVec::new(),
            bootargs: b"",
            rng_seed: b"",
            initrd: None,
            cpus: ArrayVec::new(),
            clusters: ArrayVec::new(),
            psci: None,
            power_manager: None,
            mailbox: None,
            watchdog: None,
            rtc: None,
            clock_manager: None,
            console: None,
            header: Header::default(),
            framebuffer: None,
            gic: None,
            timer: None,
            virtio_mmio: ArrayVec::new(),
            pci: None,
            sd_hosts: ArrayVec::new(),
            left_out: ArrayVec::new(),
        }
    }

    /// Reads one node, if it is of a known kind.
    fn visit(
        &mut self,
        at: &At<'_, 't>,
        fdt: Fdt<'t>,
        gic: Option<&GicNode>,
        stdout: &Stdout<'t>,
    ) -> Result<ControlFlow<()>, MachineError> {
        if at.is_at("/") {
            let name = at.value("model").or(at.value("compatible"));
            self.model = until_nul(name.unwrap_or_default());
            self.chip = read_chip(at);
        } else if at.is_memory() {
            for region in at.bus_regions()? {
                let fits = self.memory.try_push(region?).is_ok();
                self.keep(room(fits, List::Memory, super::MAX_MEMORY));
            }
        } else if at.is_top("chosen") {
            self.read_chosen(at)?;
        } else if at.is_under("reserved-memory") {
            // A node without `reg` only requests that memory be set aside, at any address.
            if at.value("reg").is_some() {
                for region in at.bus_regions()? {
                    self.reserve(region?)?;
                }
            }
        } else if at.is_cpu() {
            if let Some(cpu) = self.keep(read_cpu(at)) {
                let fits = self.cpus.try_push(cpu).is_ok();
                self.keep(room(fits, List::Cpus, super::MAX_CPUS));
            }
            // The nodes below a core are its caches.
            return Ok(ControlFlow::Break(()));
        } else if at.is_compatible(&["arm,armv8-timer"]) {
            // Without a GIC the timer's interrupts are of no use. That is no fault of the tree:
            // Apple's timers go to the AIC.
            if gic.is_some() {
                self.timer = self.keep(read_timer(at, gic));
            }
        } else if at.is_compatible(&["virtio,mmio"]) {
            if let Some(region) = self.keep(at.region(0)) {
                let (interrupt, coherence) = (at.interrupt(gic, 0), at.coherence());
                let device = VirtioMmio { region, interrupt, coherence };
                let fits = self.virtio_mmio.try_push(device).is_ok();
                self.keep(room(fits, List::VirtioMmio, super::MAX_VIRTIO_MMIO));
            }
        } else if at.is_compatible(SDHCI) {
            let found = at.region(0).and_then(|region| {
                Ok(SdHost { region, dma: at.dma_windows()?, supply: read_sd_supply(at, fdt) })
            });
            if let Some(host) = self.keep(found) {
                let fits = self.sd_hosts.try_push(host).is_ok();
                self.keep(room(fits, List::SdHosts, super::MAX_SD_HOSTS));
            }
        } else if at.is_compatible(&["arm,pl031"]) {
            self.rtc = self.keep(at.region(0));
        } else if at.is_compatible(CLOCK_MANAGER) {
            self.clock_manager = self.keep(at.region(0));
        } else if at.is_compatible(&["pci-host-ecam-generic"]) {
            if self.pci.is_none() {
                let pci = self.read_pci(at, gic);
                self.pci = self.keep(pci);
            }
            // Devices below the bridge are found by bus enumeration.
            return Ok(ControlFlow::Break(()));
        } else {
            self.visit_for_the_end(at, fdt, gic, stdout);
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Reads one node, if it is a console or a way to power off.
    fn visit_for_the_end(
        &mut self,
        at: &At<'_, 't>,
        fdt: Fdt<'t>,
        gic: Option<&GicNode>,
        stdout: &Stdout<'t>,
    ) {
        if at.is_compatible(&["arm,psci", "arm,psci-0.2", "arm,psci-1.0"]) {
            self.psci = self.keep(read_psci(at));
        } else if at.is_compatible(POWER_MANAGER) {
            self.power_manager = self.keep(at.region(0));
        } else if self.chip == Chip::Bcm2711 && at.is_compatible(MAILBOX) {
            self.mailbox = self.keep(at.region(0));
        } else if self.chip == Chip::Bcm2711 && at.is_compatible(GPIO) {
            self.header.gpio = self.keep(at.region(0));
        } else if at.is_compatible(&["apple,wdt"]) {
            self.watchdog = self.keep(at.region(0));
        } else if uart_kind(at).is_some() {
            self.visit_uart(at, fdt, gic, stdout);
        } else if (at.is_under("chosen") || at.is_top("framebuffer"))
            && at.is_compatible(SIMPLE_FRAMEBUFFER)
            && self.framebuffer.is_none()
        {
            // The node is in `/chosen` as the binding says, or beside `/chosen`, where U-Boot puts
            // it.
            self.framebuffer = self.keep(Framebuffer::read(at));
        }
    }

    /// Reads a serial port that can be the console, or a port of the header.
    fn visit_uart(
        &mut self,
        at: &At<'_, 't>,
        fdt: Fdt<'t>,
        gic: Option<&GicNode>,
        stdout: &Stdout<'t>,
    ) {
        let chosen = stdout.path.is_some_and(|path| at.is_at(path));
        let is_console = chosen || self.console.is_none();
        let place = match self.chip {
            Chip::Bcm2711 if at.is_compatible(&[MINI_UART]) => Some(&mut self.header.mini_uart),
            Chip::Bcm2711 if is_header_pl011(at) => Some(&mut self.header.pl011),
            _ => None,
        };
        if !is_console && place.is_none() {
            return;
        }
        let found = read_uart(at, fdt, gic)
            .map(|uart| Uart { baud: stdout.baud.filter(|_| chosen), ..uart });
        if let (Some(place), Ok(uart)) = (place, &found) {
            *place = Some(*uart);
        }
        if let Some(uart) = self.keep(found).filter(|_| is_console) {
            self.console = Some(uart);
        }
    }

    fn reserve(&mut self, region: Region) -> Result<(), MachineError> {
        let fits = self.reserved.try_push(region).is_ok();
        room(fits, List::Reserved, super::MAX_RESERVED)
    }

    /// Notes an error about something that the machine can do without.
    pub(super) fn keep<T>(&mut self, found: Result<T, MachineError>) -> Option<T> {
        found
            .map_err(|e| {
                // The list has a limit; the first few errors say enough.
                let _ = self.left_out.try_push(e);
            })
            .ok()
    }

    fn read_chosen(&mut self, at: &At<'_, 't>) -> Result<(), MachineError> {
        if let Some(bootargs) = at.value("bootargs") {
            self.bootargs = until_nul(bootargs);
            let rest = &bootargs[self.bootargs.len()..];
            if rest.iter().any(|&byte| byte != 0) {
                self.keep::<()>(Err(at.wrong("bootargs")));
            }
        }
        self.rng_seed = at.value("rng-seed").unwrap_or_default();
        // A boot loader that names only one end has left an initrd somewhere. The initrd would be
        // overwritten, so the tree is refused.
        if let Some(start) = at.number("linux,initrd-start")? {
            let end = at.number("linux,initrd-end")?;
            let end =
                end.filter(|&end| end >= start).ok_or_else(|| at.wrong("linux,initrd-end"))?;
            if let Some(initrd) = Region::checked(start, end - start) {
                self.initrd = Some(initrd);
                self.reserve(initrd)?;
            }
        }
        Ok(())
    }
}

/// Cuts off the bytes after the tree, by the length in its header.
/// If the length is invalid, the parser reports the error.
fn without_rest(bytes: &[u8]) -> &[u8] {
    let total = bytes.get(4..8).and_then(|size| size.try_into().ok()).map(u32::from_be_bytes);
    total.and_then(|total| bytes.get(..total as usize)).unwrap_or(bytes)
}

/// Where the boot loader wants the console.
struct Stdout<'t> {
    path: Option<&'t str>,
    baud: Option<u32>,
}

impl<'t> Stdout<'t> {
    /// Reads `/chosen/stdout-path`, such as `serial0:115200n8`.
    ///
    /// The property is a path, an alias, or (in trees that carry labels) a label. The options
    /// follow a colon.
    fn new(fdt: Fdt<'t>) -> Self {
        let lookup = |node: &str, name: &str| text(value(fdt.find_node(node)?, name)?);
        let setting = lookup("/chosen", "stdout-path").unwrap_or("");
        let (name, options) = setting.split_once(':').unwrap_or((setting, ""));
        let path = if name.starts_with('/') {
            Some(name)
        } else {
            lookup("/aliases", name).or_else(|| lookup("/__symbols__", name))
        };
        let digits = options.bytes().take_while(u8::is_ascii_digit).count();
        Stdout { path, baud: options[..digits].parse().ok() }
    }
}
