//! The network of the server: its configuration, and the addresses that people need to know.

#![forbid(unsafe_code)]

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::IpAddr;

use crate::app::error::Error;
use crate::app::os::{self, Errno};
use crate::app::output::{emit, say};
use crate::report::{self, Event};
use crate::settings::Config;
use crate::system::NetworkConfig;

/// Time for which a server without an address waits before it says so, in µs.
const ADDRESS_TIMEOUT_US: u64 = 10_000_000;
/// Time between two looks at the addresses, in µs.
const LOOK_US: u64 = 1_000_000;
/// Time between two looks while there is none, in µs.
const FIRST_LOOK_US: u64 = 20_000;

/// Starts the network, as the configuration wants it.
///
/// # Errors
/// The machine has no network card, or the addresses make no sense.
pub fn configure(config: &Config) -> Result<(), Error> {
    let network = NetworkConfig { addresses: config.ip.clone(), gateways: config.gateway.clone() };
    os::configure_network(&network).map_err(|error| Error::NoNetwork { why: error.to_string() })
}

/// The error of a listener.
pub fn error(errno: Errno) -> Error {
    Error::NoNetwork { why: errno.to_string() }
}

/// What is announced with the addresses.
pub struct Announced {
    /// The name of the model that is loaded; empty if none is.
    pub model: String,
    /// The names of all models.
    pub models: Vec<String>,
    /// Requests of a model that run at once.
    pub parallel: usize,
    /// Positions of a request's context; 0 if no model is loaded.
    pub n_ctx: usize,
}

/// The addresses that were announced.
pub struct Addresses {
    port: u16,
    announced: Vec<IpAddr>,
    looked_us: u64,
    began_us: u64,
    has_warned: bool,
}

impl Addresses {
    /// Nothing is announced yet.
    pub fn new(port: u16) -> Self {
        let began_us = os::now_us();
        Addresses { port, announced: Vec::new(), looked_us: 0, began_us, has_warned: false }
    }

    /// Time until the next look at the addresses, in µs; `None`: no look is needed.
    pub fn wait_us(&self) -> Option<u64> {
        self.announced.is_empty().then(|| self.interval_us())
    }

    fn interval_us(&self) -> u64 {
        let is_starting = self.announced.is_empty() && !self.has_warned;
        if is_starting { FIRST_LOOK_US } else { LOOK_US }
    }

    /// Announces the addresses if they have changed, with what `announced` gives.
    pub fn announce(&mut self, announced: impl FnOnce() -> Announced) {
        let now_us = os::now_us();
        if now_us.saturating_sub(self.looked_us) < self.interval_us() {
            return;
        }
        self.looked_us = now_us;
        let Some(network) = os::network() else { return };
        let addresses = network.addresses.iter().map(|&(address, _)| address);
        let addresses: Vec<IpAddr> = addresses.filter(|address| !is_link_local(address)).collect();
        if addresses.is_empty() {
            if !self.has_warned && now_us.saturating_sub(self.began_us) >= ADDRESS_TIMEOUT_US {
                self.has_warned = true;
                log::warn!("the network gives no address: set `ip` and `gateway`");
            }
            return;
        }
        if addresses == self.announced {
            return;
        }
        let urls: Vec<String> = addresses.iter().map(|address| url(*address, self.port)).collect();
        let Announced { model, models, parallel, n_ctx } = announced();
        let shown = if model.is_empty() { "the server" } else { &model };
        say!("{shown} answers at {}", urls.join(" and "));
        emit(&Event::Serve(report::Serve {
            urls,
            card: network.name,
            model,
            models,
            parallel,
            n_ctx,
        }));
        self.announced = addresses;
    }
}

fn url(address: IpAddr, port: u16) -> String {
    match address {
        IpAddr::V4(address) => format!("http://{address}:{port}"),
        IpAddr::V6(address) => format!("http://[{address}]:{port}"),
    }
}

fn is_link_local(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}
