//! Stateless address autoconfiguration of IPv6 (RFC 4862).
//!
//! smoltcp 0.14 has a client too, which is not used. It panics if a router advertises a multicast
//! prefix. Where no router answers, its next deadline stays in the past, so that an idle machine
//! never sleeps.
//!
//! Duplicate address detection is left out, as smoltcp has none.

use arrayvec::ArrayVec;
use smoltcp::phy::{ChecksumCapabilities, Device, TxToken};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, HardwareAddress, Icmpv6Packet,
    Icmpv6Repr, IpProtocol, Ipv6Address, Ipv6Cidr, Ipv6Packet, Ipv6Repr, NdiscPrefixInfoFlags,
    NdiscPrefixInformation, NdiscRepr,
};

/// Maximum number of prefixes, and so of addresses.
pub const MAX_PREFIXES: usize = 4;

/// Number of solicitations without an answer, and the time between them (RFC 4861, 10).
const SOLICITATIONS: u8 = 3;
const SOLICITATION_INTERVAL: Duration = Duration::from_secs(4);

/// A shorter lifetime than this needs no authentication only if less is left (RFC 4862, 5.5.3 e).
const TWO_HOURS: Duration = Duration::from_secs(2 * 60 * 60);

/// The only length of a prefix that fits an interface identifier of Ethernet (RFC 2464, 4).
const PREFIX_BITS: u8 = 64;

const ALL_ROUTERS: Ipv6Address = Ipv6Address::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// The Ethernet address of [`ALL_ROUTERS`] (RFC 2464, 7).
const ALL_ROUTERS_ETHERNET: EthernetAddress = EthernetAddress([0x33, 0x33, 0, 0, 0, 2]);

/// The contents of a router advertisement.
#[derive(Clone, Debug)]
pub struct Advert {
    /// Link-local address of the router.
    pub router: Ipv6Address,
    /// Time for which the router is a default router; 0: the router is none.
    pub router_lifetime: Duration,
    /// The prefixes of the link.
    pub prefixes: ArrayVec<NdiscPrefixInformation, MAX_PREFIXES>,
}

/// The client: addresses and default router from advertisements.
#[derive(Debug)]
pub struct Slaac {
    mac: EthernetAddress,
    /// The addresses, and the moments when they become invalid.
    addresses: ArrayVec<(Ipv6Cidr, Instant), MAX_PREFIXES>,
    /// The default router, and the moment when it ceases to be one.
    router: Option<(Ipv6Address, Instant)>,
    solicitations_left: u8,
    next_solicitation: Instant,
}

/// The link-local address of an Ethernet address (RFC 4291, appendix A).
pub fn link_local(mac: EthernetAddress) -> Ipv6Cidr {
    of_prefix(Ipv6Address::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), mac)
}

/// The address with this prefix and the interface identifier of `mac`.
fn of_prefix(prefix: Ipv6Address, mac: EthernetAddress) -> Ipv6Cidr {
    let [a, b, c, d, e, f] = mac.0;
    let mut octets = prefix.octets();
    octets[8..].copy_from_slice(&[a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    Ipv6Cidr::new(Ipv6Address::from(octets), PREFIX_BITS)
}

impl Slaac {
    /// A client that solicits an advertisement at once.
    pub fn new(mac: EthernetAddress, now: Instant) -> Slaac {
        Slaac {
            mac,
            addresses: ArrayVec::new(),
            router: None,
            solicitations_left: SOLICITATIONS,
            next_solicitation: now,
        }
    }

    /// The valid addresses.
    pub fn addresses(&self) -> impl Iterator<Item = Ipv6Cidr> {
        self.addresses.iter().map(|(address, _)| *address)
    }

    /// The default router.
    pub fn router(&self) -> Option<Ipv6Address> {
        self.router.map(|(router, _)| router)
    }

    /// Takes an advertisement; returns whether addresses or router changed.
    pub fn hear(&mut self, advert: &Advert, now: Instant) -> bool {
        self.solicitations_left = 0;
        let mut has_changed = self.hear_router(advert.router, advert.router_lifetime, now);
        for prefix in &advert.prefixes {
            has_changed |= self.hear_prefix(prefix, now);
        }
        has_changed
    }

    fn hear_router(&mut self, router: Ipv6Address, lifetime: Duration, now: Instant) -> bool {
        let before = self.router();
        // The first router stays while its lifetime lasts.
        if before.is_none_or(|before| before == router) {
            self.router = (lifetime > Duration::ZERO).then_some((router, now + lifetime));
        }
        self.router() != before
    }

    fn hear_prefix(&mut self, prefix: &NdiscPrefixInformation, now: Instant) -> bool {
        let is_usable = prefix.flags.contains(NdiscPrefixInfoFlags::ADDRCONF)
            && prefix.prefix_len == PREFIX_BITS
            && prefix.preferred_lifetime <= prefix.valid_lifetime
            && !prefix.prefix.is_multicast()
            && !prefix.prefix.is_unicast_link_local()
            && prefix.prefix.segments()[..4] != [0; 4];
        if !is_usable {
            return false;
        }
        let address = of_prefix(prefix.prefix, self.mac);
        let lifetime = prefix.valid_lifetime;
        if let Some((_, until)) = self.addresses.iter_mut().find(|(known, _)| *known == address) {
            // Without this rule, one forged advertisement would take the address away.
            if lifetime > TWO_HOURS || now + lifetime > *until {
                *until = now + lifetime;
            } else if now + TWO_HOURS < *until {
                *until = now + TWO_HOURS;
            }
            return false;
        }
        let is_new = lifetime > Duration::ZERO && !self.addresses.is_full();
        if is_new {
            self.addresses.push((address, now + lifetime));
        }
        is_new
    }

    /// Drops what has expired; returns whether addresses or router changed.
    pub fn expire(&mut self, now: Instant) -> bool {
        let (n, router) = (self.addresses.len(), self.router);
        self.addresses.retain(|(_, until)| *until > now);
        self.router = self.router.filter(|(_, until)| *until > now);
        (self.addresses.len(), self.router) != (n, router)
    }

    /// The moment of the next solicitation or expiry.
    pub fn deadline(&self) -> Option<Instant> {
        let solicitation = (self.solicitations_left > 0).then_some(self.next_solicitation);
        let expiries = self.addresses.iter().map(|(_, until)| *until);
        expiries.chain(self.router.map(|(_, until)| until)).chain(solicitation).min()
    }

    /// Sends a router solicitation (RFC 4861, 4.1) if one is due and the card has room.
    pub fn solicit<D: Device + ?Sized>(&mut self, device: &mut D, now: Instant) {
        if self.solicitations_left == 0 || now < self.next_solicitation {
            return;
        }
        let Some(token) = device.transmit(now) else { return };
        let lladdr = Some(HardwareAddress::Ethernet(self.mac).into());
        let message = Icmpv6Repr::Ndisc(NdiscRepr::RouterSolicit { lladdr });
        let ethernet = EthernetRepr {
            src_addr: self.mac,
            dst_addr: ALL_ROUTERS_ETHERNET,
            ethertype: EthernetProtocol::Ipv6,
        };
        let ip = Ipv6Repr {
            src_addr: link_local(self.mac).address(),
            dst_addr: ALL_ROUTERS,
            next_header: IpProtocol::Icmpv6,
            payload_len: message.buffer_len(),
            hop_limit: 255,
        };
        let bytes = ethernet.buffer_len() + ip.buffer_len() + ip.payload_len;
        token.consume(bytes, |buffer| {
            let mut frame = EthernetFrame::new_unchecked(buffer);
            ethernet.emit(&mut frame);
            let mut packet = Ipv6Packet::new_unchecked(frame.payload_mut());
            ip.emit(&mut packet);
            let mut place = Icmpv6Packet::new_unchecked(packet.payload_mut());
            let checksums = ChecksumCapabilities::default();
            message.emit(&ip.src_addr, &ip.dst_addr, &mut place, &checksums);
        });
        self.solicitations_left -= 1;
        self.next_solicitation = now + SOLICITATION_INTERVAL;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 7]);
    const ROUTER: Ipv6Address = Ipv6Address::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

    fn at(seconds: i64) -> Instant {
        Instant::from_secs(seconds)
    }

    fn prefix(first: u16, lifetime: u64) -> NdiscPrefixInformation {
        NdiscPrefixInformation {
            prefix_len: 64,
            flags: NdiscPrefixInfoFlags::ADDRCONF | NdiscPrefixInfoFlags::ON_LINK,
            valid_lifetime: Duration::from_secs(lifetime),
            preferred_lifetime: Duration::ZERO,
            prefix: Ipv6Address::new(first, 0xdb8, 0, 3, 0, 0, 0, 0),
        }
    }

    fn advert(lifetime: u64, prefixes: &[NdiscPrefixInformation]) -> Advert {
        let router_lifetime = Duration::from_secs(lifetime);
        Advert { router: ROUTER, router_lifetime, prefixes: prefixes.iter().copied().collect() }
    }

    #[test]
    fn an_address_has_the_prefix_and_the_identifier_of_the_mac() {
        let mut slaac = Slaac::new(MAC, at(0));
        assert!(slaac.hear(&advert(60, &[prefix(0x2001, 100), prefix(0xfd00, 50)]), at(1)));
        let addresses: Vec<String> = slaac.addresses().map(|a| std::format!("{a}")).collect();
        assert_eq!(addresses, ["2001:db8:0:3:0:ff:fe00:7/64", "fd00:db8:0:3:0:ff:fe00:7/64"]);
        assert_eq!((slaac.router(), slaac.deadline()), (Some(ROUTER), Some(at(51))));
        // What has expired goes, and only then.
        assert!(!slaac.expire(at(50)));
        assert!(slaac.expire(at(51)));
        assert!(slaac.expire(at(61)));
        assert_eq!((slaac.router(), slaac.addresses().count()), (None, 1));
        assert!(slaac.expire(at(101)));
        assert_eq!((slaac.deadline(), slaac.addresses().count()), (None, 0));
    }

    #[test]
    fn prefixes_that_make_no_address_are_left_out() {
        let mut slaac = Slaac::new(MAC, at(0));
        let unspecified =
            NdiscPrefixInformation { prefix: Ipv6Address::UNSPECIFIED, ..prefix(1, 9) };
        let bad = [
            prefix(0xff02, 100),
            prefix(0xfe80, 100),
            unspecified,
            NdiscPrefixInformation { prefix_len: 63, ..prefix(0x2001, 9) },
            NdiscPrefixInformation { flags: NdiscPrefixInfoFlags::ON_LINK, ..prefix(0x2001, 9) },
            NdiscPrefixInformation {
                preferred_lifetime: Duration::from_secs(10),
                ..prefix(0x2001, 9)
            },
            prefix(0x2001, 0),
        ];
        for bad in bad {
            assert!(!slaac.hear(&advert(0, &[bad]), at(1)), "{bad:?}");
        }
        // As many prefixes as there is room for.
        for first in 0x2001..0x2011 {
            slaac.hear(&advert(0, &[prefix(first, 9)]), at(1));
        }
        assert_eq!(slaac.addresses().count(), MAX_PREFIXES);
    }

    #[test]
    fn a_forged_advertisement_takes_no_address_away_within_two_hours() {
        let mut slaac = Slaac::new(MAC, at(0));
        slaac.hear(&advert(60, &[prefix(0x2001, 86_400)]), at(0));
        slaac.hear(&advert(60, &[prefix(0x2001, 0)]), at(10));
        assert_eq!(slaac.addresses[0].1, at(10 + 7200));
        slaac.hear(&advert(60, &[prefix(0x2001, 1)]), at(20));
        assert_eq!(slaac.addresses[0].1, at(10 + 7200));
        slaac.hear(&advert(60, &[prefix(0x2001, 86_400)]), at(30));
        assert_eq!(slaac.addresses[0].1, at(30 + 86_400));
        // Another router counts once the first one is none any more.
        let other = Ipv6Address::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
        let second = Advert { router: other, ..advert(60, &[]) };
        assert!(!slaac.hear(&second, at(30)));
        assert!(slaac.hear(&advert(0, &[]), at(31)));
        assert!(slaac.hear(&second, at(32)));
        assert_eq!(slaac.router(), Some(other));
    }
}
