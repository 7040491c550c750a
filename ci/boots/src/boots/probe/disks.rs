//! The model disk, over each way that leads to it, and disks that fail or may not be used.

use std::path::Path;

use anyhow::Result;
use kernel::report::Code;
use kernel::trials::Trial;
use sha2::{Digest, Sha256};

use super::{A72, Machine, probe, virt, word};
use crate::boot::Boot;
use crate::check::{Check, Passed, check};
use crate::device_tree::Tree;
use crate::disk::Disk;
use crate::event;
use crate::expect::{Expect, literal};
use crate::lab::Lab;
use crate::machine::{Board, Failing, failing};
use crate::volume::Volume;

/// The file on the disk, and a sector of the disk in the middle of it.
const FILE: &str = "/models/file.gguf";
const SECTOR_IN_FILE: u64 = 10_007;

/// The bytes of the file, which repeat nowhere: the high bytes of a linear congruential generator.
fn content() -> Vec<u8> {
    let mut state = 1_u64;
    let mut byte = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..9_000_011).map(|_| byte()).collect()
}

/// The disk with the file.
pub fn disk() -> Disk {
    Disk::new("probe-file", |_, out| {
        let volume = Volume::of_files(&[(FILE.trim_start_matches('/').into(), content())])?;
        Ok(std::fs::write(out, volume.bytes())?)
    })
}

/// A machine with the disk attached: its drive is called `d`.
type Attach = fn(Machine, &str) -> Machine;

/// A check of the disk: this boot on this machine, given the path of the disk.
fn on_disk(
    name: &'static str,
    machine: Machine,
    words: String,
    attach: Attach,
    expect: impl Fn(Boot) -> Boot + Send + Sync + 'static,
) -> Check {
    check(format!("probe-{name}"), move |lab| {
        let disk = lab.disk(&disk())?.display().to_string();
        expect(probe(name, &words, &attach(machine.clone(), &disk))).run(lab)?;
        Ok(Passed::default())
    })
}

fn drive(machine: Machine, disk: &str) -> Machine {
    machine.with(["-drive", &format!("if=none,id=d,format=raw,read-only=on,file={disk}")])
}

fn mmio(machine: Machine, disk: &str) -> Machine {
    drive(machine, disk).with(["-device", "virtio-blk-device,drive=d"])
}

fn pci(machine: Machine, disk: &str) -> Machine {
    drive(machine, disk).with(["-device", "virtio-blk-pci,drive=d"])
}

/// The disk on PCI, as the device with this number.
pub fn pci_at(machine: Machine, disk: &Path, device: u8) -> Machine {
    let device = format!("virtio-blk-pci,drive=d,addr={device:x}");
    drive(machine, &disk.display().to_string()).with(["-device", &device])
}

fn initrd(machine: Machine, disk: &str) -> Machine {
    machine.with(["-initrd", disk])
}

/// The line that names the file's digest.
fn digest() -> String {
    let digest: String =
        Sha256::digest(content()).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("^{digest}  {FILE}$")
}

/// The file is read by four cores at once, from each device; and disks that fail.
pub fn reads() -> Vec<Check> {
    const MMIO: &str = "virtio-blk (mmio)";
    const PCI: &str = "virtio-blk (pci)";
    let virt = virt(A72, 4, "256M");
    let ways: [(&str, &str, Machine, Attach); 8] = [
        ("disk-mmio-legacy", MMIO, virt.clone(), mmio),
        ("disk-mmio", MMIO, virt.clone().with(["-global", "virtio-mmio.force-legacy=false"]), mmio),
        ("disk-pci", PCI, virt.clone(), pci),
        ("disk-pci-low", PCI, virt.clone().option("highmem=off"), pci),
        ("disk-initrd", "initrd", virt.clone(), initrd),
        ("disk-preferred", MMIO, virt.clone(), |machine, disk| mmio(initrd(machine, disk), disk)),
        ("disk-large-blocks", MMIO, virt.clone(), |machine, disk| {
            let blocks = "logical_block_size=4096,physical_block_size=4096";
            drive(machine, disk).with(["-device", &format!("virtio-blk-device,drive=d,{blocks}")])
        }),
        ("disk-plain-queue", PCI, virt, |machine, disk| {
            let plain = "indirect_desc=off,event_idx=off";
            drive(machine, disk).with(["-device", &format!("virtio-blk-pci,drive=d,{plain}")])
        }),
    ];
    let words =
        format!("{} {}", word(Trial::File, FILE), word(Trial::NoFile, "/models/other.gguf"));
    let reads = ways.into_iter().map(|(name, device, machine, attach)| {
        on_disk(name, machine, words.clone(), attach, move |boot| {
            boot.event(event!(Disk {
                device == device,
                filesystem ~ "^FAT1[26]$",
                label == "ANCHORITE",
            }))
            .line(&digest())
            .holds(&[Trial::File, Trial::NoFile])
            .exits(0)
        })
    });
    reads.chain(failures()).collect()
}

/// A disk that fails where the file lies, there once, or where its volume starts; and one cut off.
fn failures() -> [Check; 4] {
    fn fails(rule: Failing, machine: Machine, disk: &str) -> Machine {
        machine.with(failing(Board::Virt, disk, rule))
    }
    let one = || virt(A72, 1, "64M");
    let file = || word(Trial::File, FILE);
    [
        on_disk(
            "disk-bad-sector",
            one(),
            file(),
            |machine, disk| fails(Failing::Sector(SECTOR_IN_FILE), machine, disk),
            |boot| {
                let said = "error 5: virtio-blk (mmio): sector 10007 cannot be read";
                boot.line(&format!("^{}$", literal(said))).line("^file: FAILED$").exits(1)
            },
        ),
        on_disk(
            "disk-passing-fault",
            one(),
            file(),
            |machine, disk| fails(Failing::SectorOnce(SECTOR_IN_FILE), machine, disk),
            |boot| boot.line(&digest()).exits(0),
        ),
        on_disk(
            "disk-unreadable",
            one(),
            file(),
            |machine, disk| fails(Failing::Sector(0), machine, disk),
            |boot| {
                let message = "virtio-blk (mmio): sector 0 cannot be read";
                boot.event(event!(Error { code == Code::DiskError, message == message })).exits(1)
            },
        ),
        check("probe-disk-truncated", |lab| {
            let half = disk().damaged("probe-half", |volume| {
                volume.cut(5_000_000);
                Ok(())
            });
            let machine = initrd(virt(A72, 1, "64M"), &lab.disk(&half)?.display().to_string());
            let message = "^initrd: its FAT volume is damaged: it has ";
            probe("disk-truncated", &word(Trial::Echo, ""), &machine)
                .event(event!(Error { code == Code::DiskError, message ~ message }))
                .exits(1)
                .run(lab)?;
            Ok(Passed::default())
        }),
    ]
}

/// No disk, and disks of a machine whose tree does not say whether DMA is coherent. A virtio device is
/// coherent, unless it leaves that to the tree: then it is not used.
pub fn no_disk() -> Vec<Check> {
    let words = || word(Trial::NoFile, "/anchorite.toml");
    let none = probe("disk-none", &words(), &virt(A72, 1, "64M"));
    let unsaid = |name: &'static str, device: &'static str, expect: fn(Boot) -> Boot| {
        check(format!("probe-{name}"), move |lab| {
            let machine = virt(A72, 1, "64M");
            let tree = lab.made("probe-unsaid.dtb", |out| without_coherence(lab, &machine, out))?;
            let machine = drive(machine, &lab.disk(&disk())?.display().to_string())
                .with(["-dtb", &tree.display().to_string()])
                .with(["-global", "virtio-mmio.force-legacy=false", "-device", device]);
            expect(probe(name, &words(), &machine)).holds(&[Trial::NoFile]).exits(0).run(lab)?;
            Ok(Passed::default())
        })
    };
    let refused = |boot: Boot| {
        boot.line(
            r"virtio-blk \(.*\): its DMA may bypass the processor.s caches, .* does not say `dma-coherent`",
        )
        .line("there is no disk")
        .expect(Expect::NoEvent(event!(Disk {})))
    };
    vec![
        none.holds(&[Trial::NoFile]).exits(0).into(),
        unsaid("disk-coherence-unsaid", "virtio-blk-pci,drive=d,disable-legacy=on", |boot| {
            boot.event(event!(Disk { device == "virtio-blk (pci)" }))
        }),
        unsaid(
            "disk-not-coherent-pci",
            "virtio-blk-pci,drive=d,disable-legacy=on,iommu_platform=on",
            refused,
        ),
        unsaid("disk-not-coherent-mmio", "virtio-blk-device,drive=d,iommu_platform=on", refused),
    ]
}

fn without_coherence(lab: &Lab, machine: &Machine, out: &Path) -> Result<()> {
    let mut tree = Tree::of_machine(&machine.arguments(), &lab.file("probe-whole.dtb"))?;
    let whole = tree.clone();
    tree.root.remove_property("dma-coherent");
    anyhow::ensure!(tree != whole, "QEMU's tree does not say `dma-coherent`");
    tree.write(out)
}
