//! The core clusters of an Apple chip, and the highest clock of each.
//!
//! Sources: the Linux kernel's bindings `apple,cluster-cpufreq` and `opp-v2-base`; AsahiLinux's
//! t8103.dtsi. There, operating points that need other cores in deep sleep are `turbo-mode`.

use core::ops::ControlFlow;

use dtoolkit::Node;
use dtoolkit::fdt::Fdt;

use super::nodes::{referred_to, room};
use super::tree::{value, walk};
use super::{List, Machine, MachineError, Region};

/// Controllers with known registers.
const CONTROLLER: &[&str] = &["apple,t8103-cluster-cpufreq"];

/// Cores that share a clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The registers of the clock controller.
    pub region: Region,
    /// The capacity of the cores, see [`Cpu::capacity`](super::Cpu::capacity).
    pub capacity: u32,
    /// The highest operating point without turbo, as the chip numbers it.
    pub level: u32,
}

impl<'t> Machine<'t> {
    /// Reads the clusters.
    ///
    /// A controller without cores, or without operating points, is left alone.
    pub(super) fn read_clusters(&mut self, fdt: Fdt<'t>) -> Result<(), MachineError> {
        walk(fdt, &mut |at| {
            if !at.is_compatible(CONTROLLER) {
                return Ok(ControlFlow::Continue(()));
            }
            let mut points = None;
            let mut capacity = 0;
            walk(fdt, &mut |cpu| {
                let domain = cpu.value("performance-domains");
                if cpu.is_cpu() && domain.is_some() && domain == at.value("phandle") {
                    points = cpu.value("operating-points-v2");
                    capacity = cpu.cell("capacity-dmips-mhz").ok().flatten().unwrap_or(0);
                }
                Ok(ControlFlow::Continue(()))
            })?;
            if let Some(level) = points.and_then(|points| highest_level(fdt, points))
                && let Some(region) = self.keep(at.region(0))
            {
                let fits = self.clusters.try_push(Cluster { region, capacity, level }).is_ok();
                self.keep(room(fits, List::Clusters, super::MAX_CLUSTERS));
            }
            Ok(ControlFlow::Continue(()))
        })
    }
}

/// The highest level of the table with this `phandle`, without turbo levels.
fn highest_level(fdt: Fdt<'_>, phandle: &[u8]) -> Option<u32> {
    referred_to(fdt, phandle, &["operating-points-v2"], |table| {
        let points = table.node.children().filter(|p| value(*p, "turbo-mode").is_none());
        let levels = points.filter_map(|point| value(point, "opp-level")?.try_into().ok());
        levels.map(u32::from_be_bytes).max()
    })
    .flatten()
}
