//! The machine that a boot runs on, and how a disk is attached to it.

use harness::command::Bus;

use crate::disk::Disk;

/// QEMU's processor with all that it can do, as the harness has it if none is named.
pub const MAX: &str = "max,sve=off,pauth-impdef=on";

/// The kinds of machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Board {
    /// QEMU's `virt`.
    #[default]
    Virt,
    /// QEMU's `raspi4b`, from EL2, with the board's own device tree.
    RaspberryPi4,
}

/// A machine. What is `None` is left to the harness.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// Its kind.
    pub board: Board,
    /// Cores.
    pub cores: Option<u32>,
    /// Processor, as QEMU's `-cpu` takes it.
    pub cpu: Option<&'static str>,
    /// Memory in MiB.
    pub memory_mib: Option<u32>,
    /// Version of the interrupt controller.
    pub gic: Option<u8>,
    /// Whether it starts at EL2.
    pub el2: bool,
    /// Whether its clock counts instructions; for one core.
    pub icount: bool,
    /// The guest's port that a free port of this host leads to, by a network card.
    pub forward: Option<u16>,
}

impl Machine {
    /// The harness's arguments for it.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        let mut put = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                arguments.extend([name.to_owned(), value]);
            }
        };
        put("--smp", self.cores.map(|n| n.to_string()));
        put("--cpu", self.cpu.map(Into::into));
        put("--mem", self.memory_mib.map(|mib| format!("{mib}M")));
        put("--gic", self.gic.map(|version| version.to_string()));
        put("--forward", self.forward.map(|port| format!("0:{port}")));
        arguments.extend(self.el2.then(|| "--el2".into()));
        arguments.extend(self.icount.then(|| "--icount".into()));
        arguments
    }
}

/// A disk and how it is attached.
#[derive(Clone, Debug)]
pub enum Attached {
    /// As the board does it by itself, or by this bus.
    Plain(Disk, Option<Bus>),
    /// With requests that fail, by QEMU's `blkdebug`.
    Failing(Disk, Failing),
    /// With requests that are kept waiting, by QEMU's throttling.
    Throttled(Disk, Throttle),
}

/// Which reads of a disk fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failing {
    /// Those of this sector.
    Sector(u64),
    /// The first one of this sector.
    SectorOnce(u64),
    /// All but the first so many.
    After(u32),
}

impl Failing {
    /// The rules as options of `blkdebug`. A request is one event `read_aio`; the states that are
    /// counted up by it start at 1.
    fn rules(self) -> String {
        const FAIL: &str = "file.inject-error.0.event=read_aio,file.inject-error.0.errno=5";
        match self {
            Failing::Sector(sector) => format!("{FAIL},file.inject-error.0.sector={sector}"),
            Failing::SectorOnce(sector) => {
                format!("{FAIL},file.inject-error.0.sector={sector},file.inject-error.0.once=on")
            }
            Failing::After(reads) => {
                let count = |i: u32| {
                    let rule = format!("file.set-state.{i}");
                    format!(
                        "{rule}.event=read_aio,{rule}.state={},{rule}.new_state={},",
                        i + 1,
                        i + 2
                    )
                };
                let counts: String = (0..reads).map(count).collect();
                format!("{counts}{FAIL},file.inject-error.0.state={}", reads + 1)
            }
        }
    }
}

/// How fast a disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttle {
    /// Bytes a second.
    pub bytes_per_s: u64,
    /// Bytes that come at once before that.
    pub burst: Option<u64>,
}

/// QEMU's own arguments for the disk `file` whose reads fail.
pub fn failing(board: Board, file: &str, failing: Failing) -> Vec<String> {
    let rules = failing.rules();
    let driver = format!("file.driver=blkdebug,file.image.driver=file,file.image.filename={file}");
    match board {
        Board::Virt => vec![
            "-device".into(),
            "virtio-blk-device,drive=d".into(),
            "-drive".into(),
            format!("if=none,id=d,format=raw,read-only=on,{driver},{rules}"),
        ],
        Board::RaspberryPi4 => {
            vec!["-drive".into(), format!("if=sd,format=raw,snapshot=off,{driver},{rules}")]
        }
    }
}

/// QEMU's own arguments for the disk `file` that is so slow.
pub fn throttled(file: &str, Throttle { bytes_per_s, burst }: Throttle) -> Vec<String> {
    let burst = burst.map(|bytes| format!(",throttling.bps-total-max={bytes}"));
    vec![
        "-device".into(),
        "virtio-blk-device,drive=d".into(),
        "-drive".into(),
        format!(
            "if=none,id=d,format=raw,read-only=on,file={file},throttling.bps-total={bytes_per_s}{}",
            burst.unwrap_or_default()
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_vanishes_counts_the_reads_before() {
        assert_eq!(
            Failing::After(2).rules(),
            "file.set-state.0.event=read_aio,file.set-state.0.state=1,file.set-state.0.new_state=2,\
             file.set-state.1.event=read_aio,file.set-state.1.state=2,file.set-state.1.new_state=3,\
             file.inject-error.0.event=read_aio,file.inject-error.0.errno=5,\
             file.inject-error.0.state=3"
        );
    }

    #[test]
    fn only_what_is_chosen_is_handed_on() {
        assert!(Machine::default().arguments().is_empty());
        let machine =
            Machine { cores: Some(2), el2: true, forward: Some(80), ..Machine::default() };
        assert_eq!(machine.arguments(), ["--smp", "2", "--forward", "0:80", "--el2"]);
    }
}
