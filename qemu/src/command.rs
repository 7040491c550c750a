//! The machine, and QEMU's command line for the machine.
//!
//! QEMU's option syntax separates by commas, so a comma in a value is doubled. Options with a bare
//! string (`-kernel`, `-initrd`, `-append`) have no such escape and get the string as it is.

#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::net::SocketAddrV4;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::Serialize;

/// Accelerator: what runs the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Accelerator {
    /// The host's cores, through Linux.
    Kvm,
    /// The host's cores, through macOS.
    Hvf,
    /// QEMU's translator, one thread a core.
    Tcg,
}

impl Accelerator {
    /// The fastest accelerator that host and machine allow.
    ///
    /// The host's cores run neither as another processor (`cpu`) nor, before Armv8.4's nested
    /// virtualisation, a guest at EL2.
    pub fn pick(host: Host, cpu: Option<&str>, el2: bool) -> Accelerator {
        let as_host = !el2 && matches!(cpu, None | Some("host"));
        match host {
            Host { aarch64: true, kvm: true, .. } if as_host => Accelerator::Kvm,
            Host { aarch64: true, macos: true, .. } if as_host => Accelerator::Hvf,
            _ => Accelerator::Tcg,
        }
    }

    /// The default processor.
    ///
    /// For TCG, `max` without two slow features. Pointer signatures by the architected cipher make
    /// signed code several times slower. No kernel of Anchorite uses SVE.
    pub fn default_cpu(self) -> &'static str {
        match self {
            Accelerator::Kvm | Accelerator::Hvf => "host",
            Accelerator::Tcg => "max,sve=off,pauth-impdef=on",
        }
    }

    fn argument(self) -> &'static str {
        match self {
            Accelerator::Kvm => "kvm",
            Accelerator::Hvf => "hvf",
            Accelerator::Tcg => "tcg,thread=multi",
        }
    }
}

/// Facts of the host that decide on the accelerator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// The host's cores run the guest's instructions.
    pub aarch64: bool,
    /// `/dev/kvm` can be used.
    pub kvm: bool,
    /// The host is a Mac.
    pub macos: bool,
}

impl Host {
    /// The host that this runs on.
    pub fn detect() -> Host {
        let kvm = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm");
        Host {
            aarch64: cfg!(target_arch = "aarch64"),
            kvm: cfg!(target_os = "linux") && kvm.is_ok(),
            macos: cfg!(target_os = "macos"),
        }
    }
}

/// Bus of the model disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Bus {
    /// virtio-blk over MMIO, virtio 1.x.
    Mmio,
    /// virtio-blk over MMIO, the legacy interface that QEMU still defaults to.
    MmioLegacy,
    /// virtio-blk over PCI.
    Pci,
    /// In memory, as an initial RAM disk.
    Initrd,
    /// As an SD card, on a Raspberry Pi.
    Sd,
}

/// The kinds of machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Board {
    /// QEMU's `virt`.
    Virt {
        /// The processor, as `-cpu` takes it.
        cpu: String,
        /// Memory in MiB.
        memory_mib: u64,
        /// Version of the interrupt controller; `None`: QEMU's choice.
        gic: Option<u8>,
        /// Whether the guest starts at EL2.
        el2: bool,
    },
    /// QEMU's `raspi4b`, a Raspberry Pi 4 with 2 GiB that starts at EL2.
    RaspberryPi4 {
        /// The board's device tree, which QEMU lacks.
        device_tree: PathBuf,
    },
}

/// A TCP port of this host that leads to a port of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The address on this host. The port is not 0.
    pub host: SocketAddrV4,
    /// The guest's port.
    pub guest: u16,
}

/// A device of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// A disk that the guest cannot write to.
    Disk {
        /// The raw image.
        file: PathBuf,
        /// The disk's bus.
        bus: Bus,
    },
    /// A network card in a network of QEMU's own, in which the guest reaches the outside.
    ///
    /// The guest is reached through the forwarded ports alone.
    Network {
        /// The card's bus.
        bus: Bus,
        /// The forwarded ports.
        forwards: Vec<Forward>,
    },
    /// A debugger's port; the machine waits for the debugger before its first instruction.
    Gdb {
        /// TCP port on this host.
        port: u16,
    },
}

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Accelerator.
    pub accelerator: Accelerator,
    /// Kind of machine.
    pub board: Board,
    /// Cores.
    pub cores: u32,
    /// Whether the guest's clock counts instructions, one per nanosecond; for one core under TCG.
    pub icount: bool,
    /// The arm64 `Image`.
    pub kernel: PathBuf,
    /// Boot arguments, in order.
    pub boot_arguments: Vec<(String, String)>,
    /// Devices beside the serial line, which is QEMU's standard input and output.
    pub devices: Vec<Device>,
    /// Arguments of the user's own, passed on at the end.
    pub extra: Vec<OsString>,
}

impl Machine {
    /// The addresses of this host that lead to a port of the guest, as URLs.
    pub fn urls(&self, port: u16) -> Vec<String> {
        let forwards = self.devices.iter().flat_map(|device| match device {
            Device::Network { forwards, .. } => &forwards[..],
            _ => &[],
        });
        let to_port = forwards.filter(|forward| forward.guest == port);
        to_port.map(|forward| format!("http://{}", forward.host)).collect()
    }

    /// The arguments for `qemu-system-aarch64`.
    pub fn arguments(&self) -> Vec<OsString> {
        let mut arguments = Arguments::default();

        let mut machine = match &self.board {
            Board::Virt { .. } => "virt",
            Board::RaspberryPi4 { .. } => "raspi4b",
        }
        .to_string();
        if let Board::Virt { gic: Some(version), .. } = self.board {
            machine += &format!(",gic-version={version}");
        }
        if let Board::Virt { el2: true, .. } = self.board {
            machine += ",virtualization=on";
        }
        arguments.option("-machine", machine);
        match self.icount {
            // QEMU counts instructions in a single thread only. With `sleep=off` the clock jumps to
            // the next interrupt while the guest waits for one.
            true => {
                arguments.option("-accel", "tcg,thread=single");
                arguments.option("-icount", "shift=0,sleep=off");
            }
            false => arguments.option("-accel", self.accelerator.argument()),
        }
        if let Board::Virt { cpu, .. } = &self.board {
            arguments.option("-cpu", cpu);
        }
        arguments.option("-smp", self.cores.to_string());
        match &self.board {
            Board::Virt { memory_mib, .. } => arguments.option("-m", format!("{memory_mib}M")),
            Board::RaspberryPi4 { device_tree } => arguments.option("-dtb", device_tree),
        }
        // QEMU's default devices include a network card; a reboot would hide a fault.
        arguments.flags(&["-nodefaults", "-no-reboot"]);
        arguments.option("-display", "none");
        if let Board::RaspberryPi4 { .. } = self.board {
            // Its first port is the PL011, which Bluetooth has; the console is the mini-UART.
            arguments.option("-serial", "null");
        }
        arguments.option("-serial", "stdio");
        arguments.option("-kernel", &self.kernel);
        if !self.boot_arguments.is_empty() {
            arguments.option("-append", boot_argument_line(&self.boot_arguments));
        }
        // QEMU's `virt` has one kind of MMIO transport for all its devices.
        if let Some(legacy) = self.devices.iter().find_map(Device::legacy_mmio) {
            arguments.option("-global", format!("virtio-mmio.force-legacy={legacy}"));
        }
        for (index, device) in self.devices.iter().enumerate() {
            device.add_to(&mut arguments, index);
        }
        arguments.0.extend(self.extra.iter().cloned());
        arguments.0
    }
}

impl Device {
    /// Whether the device is on a legacy MMIO transport; `None` on other buses.
    fn legacy_mmio(&self) -> Option<bool> {
        match self {
            Device::Disk { bus, .. } | Device::Network { bus, .. } => match bus {
                Bus::Mmio => Some(false),
                Bus::MmioLegacy => Some(true),
                Bus::Pci | Bus::Initrd | Bus::Sd => None,
            },
            Device::Gdb { .. } => None,
        }
    }

    fn add_to(&self, arguments: &mut Arguments, index: usize) {
        let (file, device) = match self {
            Device::Gdb { port } => {
                arguments.flags(&["-S"]);
                arguments.option("-gdb", format!("tcp:127.0.0.1:{port}"));
                return;
            }
            Device::Network { bus, forwards } => {
                let forwards: String = forwards
                    .iter()
                    .map(|Forward { host, guest }| format!(",hostfwd=tcp:{host}-:{guest}"))
                    .collect();
                arguments.option("-netdev", format!("user,id=net{index}{forwards}"));
                // The card needs no ROM to boot from, which QEMU might lack.
                let device = match bus {
                    Bus::Pci => "virtio-net-pci,romfile=",
                    _ => "virtio-net-device",
                };
                arguments.option("-device", format!("{device},netdev=net{index}"));
                return;
            }
            Device::Disk { file, bus: Bus::Initrd } => {
                arguments.option("-initrd", file);
                return;
            }
            Device::Disk { file, bus: Bus::Sd } => {
                // QEMU takes only writable cards, so writes go to a temporary file.
                let mut drive = OsString::from("if=sd,format=raw,snapshot=on,file=");
                drive.push(double_commas(file));
                arguments.option("-drive", drive);
                return;
            }
            Device::Disk { file, bus: Bus::Pci } => (file, "virtio-blk-pci"),
            Device::Disk { file, bus: Bus::Mmio | Bus::MmioLegacy } => (file, "virtio-blk-device"),
        };
        // With the driver named, QEMU finds no protocol in the file name.
        let mut backend = OsString::from(format!(
            "driver=raw,node-name=disk{index},read-only=on,file.driver=file,file.filename="
        ));
        backend.push(double_commas(file));
        arguments.option("-blockdev", backend);
        arguments.option("-device", format!("{device},drive=disk{index}"));
    }
}

#[derive(Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    fn option(&mut self, name: &str, value: impl AsRef<OsStr>) {
        self.0.push(name.into());
        self.0.push(value.as_ref().into());
    }

    fn flags(&mut self, names: &[&str]) {
        self.0.extend(names.iter().map(OsString::from));
    }
}

/// A file name as a value in QEMU's option syntax.
fn double_commas(path: &Path) -> OsString {
    let mut value = Vec::new();
    for &byte in path.as_os_str().as_bytes() {
        value.push(byte);
        if byte == b',' {
            value.push(byte);
        }
    }
    OsString::from_vec(value)
}

/// Settings as a line for the kernel's splitter: words between spaces.
///
/// A value that is not a plain word stands in double quotes, in which `\` escapes `"` and `\`.
fn boot_argument_line(settings: &[(String, String)]) -> String {
    let words: Vec<String> =
        settings.iter().map(|(key, value)| format!("{key}={}", quote(value))).collect();
    words.join(" ")
}

fn quote(value: &str) -> String {
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && c != '"' && c != '\\';
    if !value.is_empty() && value.chars().all(plain) {
        return value.into();
    }
    format!("\"{}\"", value.replace('\\', r"\\").replace('"', r#"\""#))
}

/// A command, quoted for a shell.
pub fn shell_line<'a>(words: impl IntoIterator<Item = &'a OsStr>) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./,:=+@%".contains(c);
    let quoted = words.into_iter().map(|word| {
        let word = word.to_string_lossy();
        if !word.is_empty() && word.chars().all(plain) {
            word.into_owned()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine {
            accelerator: Accelerator::Tcg,
            board: Board::Virt { cpu: "cortex-a72".into(), memory_mib: 64, gic: None, el2: false },
            cores: 3,
            icount: false,
            kernel: "anchorite.img".into(),
            boot_arguments: vec![],
            devices: vec![],
            extra: vec![],
        }
    }

    fn line(machine: &Machine) -> String {
        shell_line(machine.arguments().iter().map(OsString::as_os_str))
    }

    #[test]
    fn the_plainest_machine() {
        assert_eq!(
            line(&machine()),
            "-machine virt -accel tcg,thread=multi -cpu cortex-a72 -smp 3 -m 64M -nodefaults \
             -no-reboot -display none -serial stdio -kernel anchorite.img"
        );
    }

    #[test]
    fn each_part_of_the_machine_has_its_arguments() {
        let mut machine = machine();
        let cpu = "max".into();
        machine.board = Board::Virt { cpu, memory_mib: 512, gic: Some(3), el2: true };
        machine.devices =
            vec![Device::Disk { file: "a.img".into(), bus: Bus::Pci }, Device::Gdb { port: 1237 }];
        machine.extra = vec!["-rtc".into(), "clock=vm".into()];
        machine.boot_arguments = vec![("mode".into(), "test".into())];
        let line = line(&machine);
        for part in [
            "-machine virt,gic-version=3,virtualization=on",
            "-cpu max",
            "-m 512M",
            "-append mode=test",
            "file.filename=a.img -device virtio-blk-pci,drive=disk0",
            "-S -gdb tcp:127.0.0.1:1237",
        ] {
            assert!(line.contains(part), "{part} in {line}");
        }
        assert!(line.ends_with("-rtc clock=vm"), "{line}");
    }

    #[test]
    fn a_raspberry_pi_has_its_own_tree_and_ports() {
        let device_tree = "a.dtb".into();
        let devices = vec![Device::Disk { file: "m,odel.img".into(), bus: Bus::Sd }];
        let board = Board::RaspberryPi4 { device_tree };
        assert_eq!(
            line(&Machine { board, cores: 4, devices, ..machine() }),
            "-machine raspi4b -accel tcg,thread=multi -smp 4 -dtb a.dtb -nodefaults -no-reboot \
             -display none -serial null -serial stdio -kernel anchorite.img \
             -drive if=sd,format=raw,snapshot=on,file=m,,odel.img"
        );
    }

    #[test]
    fn instructions_are_counted_in_one_thread() {
        let line = line(&Machine { icount: true, ..machine() });
        assert!(line.contains(" -accel tcg,thread=single -icount shift=0,sleep=off "), "{line}");
        assert!(!line.contains("thread=multi"), "{line}");
    }

    #[test]
    fn the_disk_is_attached_as_asked() {
        let on = |bus| {
            let file = "m,odel.img".into();
            line(&Machine { devices: vec![Device::Disk { file, bus }], ..machine() })
        };
        assert!(on(Bus::Initrd).ends_with("-initrd m,odel.img"), "a bare string has no escapes");
        let backend = "driver=raw,node-name=disk0,read-only=on,file.driver=file,\
                       file.filename=m,,odel.img";
        for (bus, start, device) in [
            (Bus::Mmio, "-global virtio-mmio.force-legacy=false ", "virtio-blk-device"),
            (Bus::MmioLegacy, "-global virtio-mmio.force-legacy=true ", "virtio-blk-device"),
            (Bus::Pci, "", "virtio-blk-pci"),
        ] {
            let end = format!("{start}-blockdev {backend} -device {device},drive=disk0");
            assert!(on(bus).ends_with(&end), "{bus:?}: {}", on(bus));
        }
    }

    #[test]
    fn the_card_is_on_the_disk_s_bus() {
        let forwards = vec![
            Forward { host: "127.0.0.1:8081".parse().unwrap(), guest: 80 },
            Forward { host: "0.0.0.0:2222".parse().unwrap(), guest: 22 },
        ];
        let on = |bus, disk: Option<Bus>| {
            let disk = disk.map(|bus| Device::Disk { file: "m.img".into(), bus });
            let network = Device::Network { bus, forwards: forwards.clone() };
            line(&Machine { devices: disk.into_iter().chain([network]).collect(), ..machine() })
        };
        let ports = "hostfwd=tcp:127.0.0.1:8081-:80,hostfwd=tcp:0.0.0.0:2222-:22";
        for (bus, device, global) in [
            (Bus::Mmio, "virtio-net-device", Some("-global virtio-mmio.force-legacy=false ")),
            (Bus::MmioLegacy, "virtio-net-device", Some("-global virtio-mmio.force-legacy=true ")),
            (Bus::Pci, "virtio-net-pci,romfile=", None),
        ] {
            let whole = on(bus, None);
            let netdev =
                |i| format!("-netdev user,id=net{i},{ports} -device {device},netdev=net{i}");
            let expected = format!("{}{}", global.unwrap_or_default(), netdev(0));
            assert!(whole.ends_with(&expected), "{bus:?}: {whole}");
            // One bus for both: the kind of transport is named once.
            let whole = on(bus, Some(bus));
            assert!(whole.ends_with(&netdev(1)), "{bus:?}: {whole}");
            let count = whole.matches("-global").count();
            assert_eq!(count, usize::from(global.is_some()), "{bus:?}: {whole}");
        }
        let none = Device::Network { bus: Bus::Mmio, forwards: vec![] };
        let whole = line(&Machine { devices: vec![none], ..machine() });
        assert!(whole.ends_with("-netdev user,id=net0 -device virtio-net-device,netdev=net0"));
    }

    #[test]
    fn values_are_quoted_where_they_must_be() {
        let line = |value: &str| boot_argument_line(&[("prompt".into(), value.into())]);
        assert_eq!(line("Once"), "prompt=Once");
        assert_eq!(line("Grüße,"), "prompt=Grüße,");
        assert_eq!(line(""), r#"prompt="""#);
        assert_eq!(line("a b"), r#"prompt="a b""#);
        assert_eq!(line("a\n\tb"), "prompt=\"a\n\tb\"");
        assert_eq!(line(r#"say"\n""#), r#"prompt="say\"\\n\"""#);
        let two = [("mode".into(), "chat".into()), ("prompt".into(), "a = b".into())];
        assert_eq!(boot_argument_line(&two), r#"mode=chat prompt="a = b""#);
    }

    #[test]
    fn the_hosts_cores_are_used_where_they_can_be() {
        let host = |aarch64, kvm, macos| Host { aarch64, kvm, macos };
        let pick = Accelerator::pick;
        assert_eq!(pick(host(true, true, false), None, false), Accelerator::Kvm);
        assert_eq!(pick(host(true, true, false), Some("host"), false), Accelerator::Kvm);
        assert_eq!(pick(host(true, false, true), None, false), Accelerator::Hvf);
        assert_eq!(pick(host(true, false, false), None, false), Accelerator::Tcg);
        assert_eq!(pick(host(false, true, false), None, false), Accelerator::Tcg);
        assert_eq!(pick(host(true, true, false), Some("cortex-a72"), false), Accelerator::Tcg);
        assert_eq!(pick(host(true, true, false), None, true), Accelerator::Tcg);
    }

    #[test]
    fn a_shell_reads_the_line_back() {
        let words = ["a", "", "it's", "$HOME `x`", "\"q\"", "ü"].map(OsString::from);
        let script = format!("printf '%s\\n' {}", shell_line(words.iter().map(|w| w.as_os_str())));
        let shell = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap();
        assert_eq!(String::from_utf8(shell.stdout).unwrap(), "a\n\nit's\n$HOME `x`\n\"q\"\nü\n");
    }
}
