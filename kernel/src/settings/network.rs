//! Addresses of the network, as settings write them.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};

/// Maximum number of fixed addresses.
const MAX_ADDRESSES: usize = 7;

/// Reads `dhcp`, which is no address, or addresses with their prefixes: 10.0.2.15/24.
pub fn addresses(text: &str) -> Option<Vec<(IpAddr, u8)>> {
    if text == "dhcp" {
        return Some(Vec::new());
    }
    let addresses: Option<Vec<(IpAddr, u8)>> = text.split(',').map(with_prefix).collect();
    addresses.filter(|addresses| addresses.len() <= MAX_ADDRESSES)
}

/// Reads an address with the length of its prefix, or with an IPv4 netmask.
fn with_prefix(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let (bits, prefix) = match address {
        IpAddr::V4(_) => (32, netmask(prefix).or_else(|| decimal(prefix))),
        IpAddr::V6(_) => (128, decimal(prefix)),
    };
    Some((address, prefix.filter(|prefix| (1..=bits).contains(prefix))?))
}

/// Reads a number without sign and leading zero.
fn decimal(text: &str) -> Option<u8> {
    text.parse().ok().filter(|_| text.starts_with(|c: char| ('1'..='9').contains(&c)))
}

/// Reads a netmask, whose ones all come first.
fn netmask(text: &str) -> Option<u8> {
    let mask = u32::from(text.parse::<Ipv4Addr>().ok()?);
    (mask.leading_ones() + mask.trailing_zeros() == 32).then_some(mask.leading_ones() as u8)
}

/// Reads a gateway of IPv4, one of IPv6, or both.
pub fn gateways(text: &str) -> Option<Vec<IpAddr>> {
    let gateways: Option<Vec<IpAddr>> = text.split(',').map(|word| word.parse().ok()).collect();
    gateways.filter(|gateways| match gateways[..] {
        [one, other] => one.is_ipv4() != other.is_ipv4(),
        _ => gateways.len() == 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_have_a_prefix_or_a_netmask() {
        assert_eq!(addresses("dhcp"), Some(Vec::new()));
        assert_eq!(addresses("10.0.2.15/24"), Some(Vec::from([(ip("10.0.2.15"), 24)])));
        assert_eq!(addresses("10.0.2.15/255.255.254.0"), Some(Vec::from([(ip("10.0.2.15"), 23)])));
        let both = Vec::from([(ip("10.0.2.15"), 32), (ip("fd00::15"), 64)]);
        assert_eq!(addresses("10.0.2.15/32,fd00::15/64"), Some(both));
        let seven = ["10.0.0.1/8"; 7].join(",");
        assert_eq!(addresses(&seven).map(|addresses| addresses.len()), Some(7));
        for bad in [
            "",
            "DHCP",
            "10.0.2.15",
            "10.0.2.15/0",
            "10.0.2.15/33",
            "10.0.2.15/+8",
            "10.0.2.15/08",
            "10.0.2.15/255.0.255.0",
            "10.0.2.15/0.0.0.0",
            "10.0.2/24",
            "fd00::15/129",
            "fd00::15/255.255.0.0",
            "10.0.2.15/24,",
            "dhcp,10.0.2.15/24",
            &std::format!("{seven},10.0.0.2/8"),
        ] {
            assert_eq!(addresses(bad), None, "{bad}");
        }
    }

    #[test]
    fn there_is_one_gateway_of_each_kind() {
        assert_eq!(gateways("10.0.2.2"), Some(Vec::from([ip("10.0.2.2")])));
        assert_eq!(gateways("fe80::2,10.0.2.2"), Some(Vec::from([ip("fe80::2"), ip("10.0.2.2")])));
        for bad in ["", "router", "10.0.2.2/24", "10.0.2.2,10.0.2.3", "fe80::2,10.0.2.2,10.0.2.3"] {
            assert_eq!(gateways(bad), None, "{bad}");
        }
    }
}
