//! The properties of the host that its clock's measurements depend on.

#![forbid(unsafe_code)]

use std::fs;
use std::num::NonZero;
use std::thread::available_parallelism;

use host_io::console;
use serde::{Deserialize, Serialize};

/// The host's cores and load.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// The number of cores. More cores of the guest gain nothing.
    pub cores: usize,
    /// Load average of the last minute; `None` if the host does not have it.
    pub load: Option<f64>,
}

impl Host {
    /// The load and the cores, for a table.
    pub fn shown(&self) -> String {
        let load = self.load.map_or("?".into(), |load| format!("{load:.1}"));
        format!("{load} on {}", self.cores)
    }

    /// Reads the host's state, and warns if the host is busy.
    pub fn now() -> Host {
        let cores = available_parallelism().map_or(1, NonZero::get);
        let load = fs::read_to_string("/proc/loadavg").ok().and_then(|text| first_number(&text));
        if let Some(load) = load.filter(|&load| load > 0.5 * cores as f64) {
            console::say(format_args!(
                "warning: this host is busy ({load} programs on {cores} cores): mind the spread"
            ));
        }
        Host { cores, load }
    }
}

fn first_number(text: &str) -> Option<f64> {
    text.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_is_read() {
        assert_eq!(first_number("3.74 2.96 1.99 2/345 6789\n"), Some(3.74));
        assert_eq!(first_number(""), None);
        assert_eq!(Host { cores: 2, load: Some(3.74) }.shown(), "3.7 on 2");
        assert_eq!(Host { cores: 2, load: None }.shown(), "? on 2");
        assert!(Host::now().cores >= 1);
    }
}
