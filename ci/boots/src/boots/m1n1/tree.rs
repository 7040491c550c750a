//! The device tree that m1n1 hands over, and the places that are named in it.

use std::path::Path;

use anyhow::Result;

use super::{Mac, Places};
use crate::device_tree::Tree;

pub const MACHINE: &str = "virt,virtualization=on,gic-version=2";
pub const CPU: &str = "max,pauth-impdef=on";
pub const CORES: u32 = 4;
/// Cores of the slower kind, the first ones.
const SLOW_CORES: u32 = 2;
/// Where QEMU's memory starts.
const MEMORY_AT: u64 = 0x4000_0000;
pub const INITRD_AT: u64 = 0x4a00_0000;
/// The end of the 512 MiB, behind what the tree lists as memory. Its rows have something at their ends.
pub const SCREEN_AT: u64 = 0x5f80_0000;
pub const WIDTH: u32 = 1280;
pub const HEIGHT: u32 = 800;
pub const STRIDE: u32 = WIDTH * 4 + 128;
pub const SCREEN_BYTES: usize = (STRIDE * HEIGHT) as usize;
pub const FORMAT: &str = "x2r10g10b10";
/// Behind the screen, what plays the registers of the fast cores' clock: the command, at 7, the status.
const CLOCK_AT: u64 = 0x5fff_0000;
pub const CLOCK_COMMAND: u64 = CLOCK_AT + 0x20;
pub const CLOCK_STATUS: u64 = CLOCK_AT + 0x50;
/// The numbers by which nodes refer to each other; QEMU's are higher.
const POINTS: u32 = 1;
const CLOCK: u32 = 2;

/// The tree for this machine: QEMU's, which is written to `file`, with m1n1's changes.
pub fn of(mac: &Mac, places: &Places, initrd_bytes: u64, file: &Path) -> Result<Tree> {
    let cores = CORES.to_string();
    let machine = ["-M", MACHINE, "-cpu", CPU, "-smp", &cores, "-m", "512M"].map(str::to_owned);
    let mut tree = Tree::of_machine(&machine, file)?;
    // What m1n1 reserves for itself has the spin table in it.
    tree.reserved.push((places.spin_table, 0x1000));
    let root = &mut tree.root;
    root.set("model", "m1n1 stub");
    root.set("compatible", ["apple,t8103", "apple,arm-platform"].as_slice());

    let points = root.child("opp-table");
    points.set("compatible", "operating-points-v2").set("phandle", POINTS);
    points.child("opp12").set("opp-level", 12_u32);
    points.child("opp13").set("opp-level", 13_u32).set("turbo-mode", [0_u8; 0]);
    root.child("performance-controller")
        .set("compatible", ["apple,t8103-cluster-cpufreq", "apple,cluster-cpufreq"].as_slice())
        .set("reg", cells(CLOCK_AT, 0x1000))
        .set("phandle", CLOCK);

    for missing in ["psci", "pcie@", "virtio_mmio@"] {
        root.remove(missing)?;
    }
    root.child("intc@8000000").set("status", "disabled");
    if mac.lists_memory {
        root.child("memory@40000000").set("reg", cells(MEMORY_AT, SCREEN_AT - MEMORY_AT));
    } else {
        root.remove("memory@")?;
    }
    if !mac.has_port {
        root.remove("pl011@")?;
    }

    let chosen = root.child("chosen");
    chosen
        .set("#address-cells", 2_u32)
        .set("#size-cells", 2_u32)
        .set("ranges", [0_u8; 0])
        .set("bootargs", mac.words.as_str())
        .set("linux,initrd-start", INITRD_AT)
        .set("linux,initrd-end", INITRD_AT + initrd_bytes);
    chosen
        .child("framebuffer")
        .set("compatible", ["apple,simple-framebuffer", "simple-framebuffer"].as_slice())
        .set("reg", cells(SCREEN_AT, SCREEN_BYTES as u64))
        .set("width", WIDTH)
        .set("height", HEIGHT)
        .set("stride", STRIDE)
        .set("format", FORMAT);

    for number in 0..CORES {
        let core = root.child("cpus").child(&format!("cpu@{number}"));
        core.set("enable-method", "spin-table")
            .set("cpu-release-addr", places.spin_table + 8 * u64::from(number));
        if number < SLOW_CORES {
            core.set("capacity-dmips-mhz", 714_u32);
        } else {
            core.set("capacity-dmips-mhz", 1024_u32)
                .set("operating-points-v2", POINTS)
                .set("performance-domains", CLOCK);
        }
    }
    Ok(tree)
}

/// An address and a size, of two cells each.
fn cells(address: u64, bytes: u64) -> [u32; 4] {
    [(address >> 32) as u32, address as u32, (bytes >> 32) as u32, bytes as u32]
}
