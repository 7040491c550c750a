//! Network cards and sources of random bytes, each on the buses that it can be on.

use anyhow::ensure;
use kernel::trials::Trial;

use super::{A72, ALL, Machine, disks, probe, virt, word};
use crate::check::{Check, Passed, check};
use crate::device_tree::Tree;
use crate::event;

/// A machine with a network card in a network of QEMU's own, given the card's model.
fn card(machine: Machine, model: &str) -> Machine {
    machine.with(["-netdev", "user,id=net0", "-device", &format!("{model},netdev=net0")])
}

/// The card of each bus asks and is answered, with each interrupt controller.
pub fn network() -> Vec<Check> {
    const PCI: &str = "virtio-net-pci,romfile=";
    let modern = ["-global", "virtio-mmio.force-legacy=false"];
    let gic = |version: u8| virt(A72, 2, "64M").option(&format!("gic-version={version}"));
    let cards = [
        ("mmio-legacy", card(gic(2), "virtio-net-device")),
        ("mmio", card(gic(3).with(modern), "virtio-net-device,host_mtu=1420")),
        ("pci", card(gic(2), PCI)),
        ("pci-gic3", card(gic(3), PCI)),
        ("el2", card(gic(2).option("virtualization=on"), PCI)),
    ];
    let boots = cards.into_iter().map(|(name, machine)| {
        let boot = probe(format!("net-{name}"), &word(Trial::NetFrames, ""), &machine);
        boot.holds(&[Trial::NetFrames]).exits(0).into()
    });
    let rest = [no_interrupt(), shared_wire()];
    boots.chain(rest).collect()
}

/// A machine with a card on PCI.
fn pci_card(arguments: &str) -> Machine {
    let machine = virt(A72, 2, "64M").option("gic-version=2");
    card(machine, &format!("virtio-net-pci,romfile={arguments}"))
}

/// A machine whose tree does not say where the card's interrupt goes: the sleeper looks at the card.
fn no_interrupt() -> Check {
    check("probe-net-no-interrupt", |lab| {
        let machine = pci_card("");
        let mut tree = Tree::of_machine(&machine.arguments(), &lab.file("probe-net-whole.dtb"))?;
        let whole = tree.clone();
        tree.root.remove_property("interrupt-map");
        ensure!(tree != whole, "QEMU's tree has no `interrupt-map`");
        let file = lab.file("probe-net-no-interrupt.dtb");
        tree.write(&file)?;
        let machine = machine.with(["-dtb", &file.display().to_string()]);
        let boot = probe("net-no-interrupt", &word(Trial::NetFrames, ""), &machine);
        boot.line(
            r"virtio-net \(pci\): the device tree names no interrupt: idle cores poll the card$",
        )
        .holds(&[Trial::NetFrames])
        .exits(0)
        .run(lab)?;
        Ok(Passed::default())
    })
}

/// A disk whose pin has the card's wire, and whose interrupts nobody acknowledges.
fn shared_wire() -> Check {
    check("probe-net-shared-wire", |lab| {
        let machine = disks::pci_at(pci_card(",addr=5"), &lab.disk(&disks::disk())?, 1);
        let words = format!("{} {}", word(Trial::NoFile, "/none"), word(Trial::NetFrames, ""));
        probe("net-shared-wire", &words, &machine)
            .event(event!(Disk { device == "virtio-blk (pci)" }))
            .holds(&[Trial::NoFile, Trial::NetFrames])
            .exits(0)
            .run(lab)?;
        Ok(Passed::default())
    })
}

/// Each source by itself, all of them, and none.
pub fn entropy() -> Vec<Check> {
    let unseeded = |cpu| virt(cpu, 1, "64M").option("dtb-randomness=off");
    let virtio =
        |machine: Machine, bus: &str| machine.with(["-device", &format!("virtio-rng-{bus}")]);
    let machines = [
        ("none", "none", unseeded(A72)),
        ("rng-seed", "rng-seed", virt(A72, 1, "64M")),
        ("rndr", "rndr", unseeded(ALL)),
        ("mmio", "virtio-rng", virtio(unseeded(A72), "device")),
        ("pci", "virtio-rng", virtio(unseeded(A72), "pci")),
        ("all", "rndr+virtio-rng+rng-seed", virtio(virt(ALL, 1, "64M"), "device")),
        // One byte in 100 s: the machine starts without the device.
        ("slow", "rng-seed", virtio(virt(A72, 1, "64M"), "device,max-bytes=1,period=100000")),
    ];
    let boots = machines.into_iter().map(|(name, sources, machine)| {
        let boot = probe(format!("entropy-{name}"), &word(Trial::Entropy, sources), &machine);
        boot.holds(&[Trial::Entropy]).exits(0).into()
    });
    boots.collect()
}
