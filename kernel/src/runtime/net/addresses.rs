//! Addresses of the interface: fixed ones, or those of DHCP and of router advertisements.

use alloc::vec::Vec;
use core::net::IpAddr;

use arrayvec::ArrayVec;
use smoltcp::iface::{Interface, Route, SocketHandle, SocketSet};
use smoltcp::phy::Device;
use smoltcp::socket::dhcpv4;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr, Ipv4Address, Ipv4Cidr};

use super::filter::MAX_ADDRESSES;
use super::slaac::{self, Advert, Slaac};
use crate::system::{NetworkConfig, NetworkError};

/// The sources of addresses and routes.
#[derive(Debug)]
pub struct Addresses {
    /// The link-local address of IPv6, which the interface always has.
    link_local: IpCidr,
    source: Source,
    /// Whether the interface lacks the last changes.
    has_changed: bool,
}

#[derive(Debug)]
enum Source {
    Fixed { addresses: ArrayVec<IpCidr, MAX_ADDRESSES>, gateways: ArrayVec<IpAddress, 2> },
    Automatic { dhcp: SocketHandle, lease: Option<Lease>, slaac: Slaac },
}

/// The part of a DHCP lease that the interface uses.
#[derive(Clone, Copy, Debug)]
struct Lease {
    address: Ipv4Cidr,
    router: Option<Ipv4Address>,
}

/// Whether one machine can have this address.
fn is_unicast(address: IpAddress) -> bool {
    let is_loopback = match address {
        IpAddress::Ipv4(address) => address.is_loopback(),
        IpAddress::Ipv6(address) => address.is_loopback(),
    };
    address.is_unicast() && !is_loopback
}

/// Checks the fixed addresses.
///
/// # Errors
/// An address that no machine can have, a prefix longer than an address, or too many of them.
fn fixed(addresses: &[(IpAddr, u8)]) -> Result<ArrayVec<IpCidr, MAX_ADDRESSES>, NetworkError> {
    let mut cidrs = ArrayVec::new();
    for &(address, prefix) in addresses {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let wrong = NetworkError::Address(address);
        let is_right = is_unicast(address.into()) && (1..=bits).contains(&prefix);
        // One place stays for the link-local address.
        if !is_right || cidrs.len() + 1 == MAX_ADDRESSES {
            return Err(wrong);
        }
        cidrs.push(IpCidr::new(address.into(), prefix));
    }
    Ok(cidrs)
}

/// Checks the fixed gateways, one of IPv4 and one of IPv6 at most.
///
/// # Errors
/// A gateway that no address reaches, or a second one of its kind.
fn reachable(
    gateways: &[IpAddr],
    addresses: &[IpCidr],
) -> Result<ArrayVec<IpAddress, 2>, NetworkError> {
    let mut found = ArrayVec::<IpAddress, 2>::new();
    for &gateway in gateways {
        let address = IpAddress::from(gateway);
        let is_link_local =
            matches!(gateway, IpAddr::V6(gateway) if gateway.is_unicast_link_local());
        let is_reached = is_link_local || addresses.iter().any(|cidr| cidr.contains_addr(&address));
        let is_second = found.iter().any(|other| other.version() == address.version());
        if !is_unicast(address) || !is_reached || is_second {
            return Err(NetworkError::Gateway(gateway));
        }
        found.push(address);
    }
    Ok(found)
}

impl Addresses {
    /// Sets up the sources that `config` chooses.
    ///
    /// # Errors
    /// A fixed address or gateway makes no sense.
    pub fn new(
        config: &NetworkConfig,
        mac: EthernetAddress,
        sockets: &mut SocketSet<'static>,
        now: Instant,
    ) -> Result<Addresses, NetworkError> {
        let source = if config.addresses.is_empty() {
            if let Some(&gateway) = config.gateways.first() {
                return Err(NetworkError::Gateway(gateway));
            }
            let dhcp = sockets.add(dhcpv4::Socket::new());
            Source::Automatic { dhcp, lease: None, slaac: Slaac::new(mac, now) }
        } else {
            let addresses = fixed(&config.addresses)?;
            let gateways = reachable(&config.gateways, &addresses)?;
            Source::Fixed { addresses, gateways }
        };
        let link_local = slaac::link_local(mac).into();
        Ok(Addresses { link_local, source, has_changed: true })
    }

    /// Takes a router advertisement.
    pub fn hear(&mut self, advert: &Advert, now: Instant) {
        if let Source::Automatic { slaac, .. } = &mut self.source {
            self.has_changed |= slaac.hear(advert, now);
        }
    }

    /// Brings the interface up to date; returns whether its addresses changed.
    pub fn update(
        &mut self,
        interface: &mut Interface,
        sockets: &mut SocketSet<'static>,
        now: Instant,
    ) -> bool {
        if let Source::Automatic { dhcp, lease, slaac } = &mut self.source {
            self.has_changed |= slaac.expire(now);
            if let Some(event) = sockets.get_mut::<dhcpv4::Socket<'_>>(*dhcp).poll() {
                *lease = match event {
                    dhcpv4::Event::Configured(config) => Some(Lease {
                        address: config.address,
                        router: config.router.filter(|&router| is_unicast(router.into())),
                    }),
                    dhcpv4::Event::Deconfigured => None,
                };
                self.has_changed = true;
            }
        }
        if !core::mem::take(&mut self.has_changed) {
            return false;
        }
        let mut addresses = ArrayVec::<IpCidr, MAX_ADDRESSES>::new();
        addresses.push(self.link_local);
        // The link-local address, a lease and the prefixes are fewer than the places.
        let _ = addresses.try_extend_from_slice(&self.routable());
        interface.update_ip_addrs(|list| {
            list.clear();
            for address in addresses {
                // The list has as many places.
                let _ = list.push(address);
            }
        });
        let gateways = self.gateways();
        interface.routes_mut().update(|routes| {
            routes.clear();
            for gateway in gateways {
                // One route of each kind, and two places.
                let _ = routes.push(match gateway {
                    IpAddress::Ipv4(router) => Route::new_ipv4_gateway(router),
                    IpAddress::Ipv6(router) => Route::new_ipv6_gateway(router),
                });
            }
        });
        true
    }

    /// The addresses except the link-local one.
    pub fn routable(&self) -> Vec<IpCidr> {
        match &self.source {
            Source::Fixed { addresses, .. } => addresses.to_vec(),
            Source::Automatic { lease, slaac, .. } => {
                let leased = lease.iter().map(|lease| lease.address.into());
                leased.chain(slaac.addresses().map(IpCidr::from)).collect()
            }
        }
    }

    /// The gateways of IPv4 and IPv6.
    pub fn gateways(&self) -> Vec<IpAddress> {
        match &self.source {
            Source::Fixed { gateways, .. } => gateways.to_vec(),
            Source::Automatic { lease, slaac, .. } => {
                let leased = lease.and_then(|lease| lease.router).map(IpAddress::from);
                leased.into_iter().chain(slaac.router().map(IpAddress::from)).collect()
            }
        }
    }

    /// Solicits router advertisements where they are needed.
    pub fn solicit<D: Device + ?Sized>(&mut self, device: &mut D, now: Instant) {
        if let Source::Automatic { slaac, .. } = &mut self.source {
            slaac.solicit(device, now);
        }
    }

    /// The next moment at which something expires or is solicited, except DHCP's timers.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.source {
            Source::Fixed { .. } => None,
            Source::Automatic { slaac, .. } => slaac.deadline(),
        }
    }
}
