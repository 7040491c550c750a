//! Ports of this host that lead to ports of the guest.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::str::FromStr;

use crate::command::Forward;

/// A port to forward, as the command line has it. Port 0 on this host stands for a free one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted(Forward);

impl Wanted {
    /// The port of this host that leads to the guest's port of the same number.
    pub fn same(port: u16) -> Wanted {
        Wanted(Forward { host: SocketAddrV4::new(Ipv4Addr::LOCALHOST, port), guest: port })
    }
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Wanted, String> {
        let wrong =
            || "expected PORT:GUEST_PORT, or an IPv4 address before it: 8080:80".to_string();
        let (rest, guest) = text.rsplit_once(':').ok_or_else(wrong)?;
        let (host, host_port) = rest.rsplit_once(':').unwrap_or(("127.0.0.1", rest));
        let host: Ipv4Addr = host.parse().map_err(|_| wrong())?;
        let port = |text: &str| -> Result<u16, String> {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            Some(text).filter(|_| digits).and_then(|text| text.parse().ok()).ok_or_else(wrong)
        };
        match port(guest)? {
            0 => Err("the guest's port cannot be 0".into()),
            guest => Ok(Wanted(Forward { host: SocketAddrV4::new(host, port(host_port)?), guest })),
        }
    }
}

/// Checks that the ports of this host are free, and chooses those that are 0.
///
/// QEMU opens the ports itself later, and would end with a message of its own.
///
/// # Errors
/// A sentence for the user: which port cannot be had, and what to do.
pub fn choose(wanted: &[Wanted]) -> Result<Vec<Forward>, String> {
    // All stay open until the last one is chosen, so that no port is chosen twice.
    let mut open = Vec::new();
    for &Wanted(Forward { host, guest }) in wanted {
        let listener = TcpListener::bind(host).map_err(|error| remedy(host, guest, &error))?;
        let port = match listener.local_addr() {
            Ok(address) => address.port(),
            Err(error) => return Err(remedy(host, guest, &error)),
        };
        let host = SocketAddrV4::new(*host.ip(), port);
        open.push((listener, Forward { host, guest }));
    }
    Ok(open.into_iter().map(|(_, forward)| forward).collect())
}

fn remedy(host: SocketAddrV4, guest: u16, error: &io::Error) -> String {
    let forward = format!("--forward {host}:{guest}");
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "{forward}: port {} is taken: end the program that has it, or take another port; 0 \
             stands for a free one",
            host.port()
        ),
        io::ErrorKind::PermissionDenied => {
            format!("{forward}: port {} is for root alone: take one from 1024 on", host.port())
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("{forward}: this host does not have the address {}: leave it out", host.ip())
        }
        _ => format!("{forward}: the port cannot be opened: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forward_is_two_ports_and_maybe_an_address() {
        let read = |text: &str| text.parse().map(|Wanted(forward)| forward);
        let forward =
            |host: &str, guest| Ok::<_, String>(Forward { host: host.parse().unwrap(), guest });
        assert_eq!(read("8080:80"), forward("127.0.0.1:8080", 80));
        assert_eq!(read("0:65535"), forward("127.0.0.1:0", 65535));
        assert_eq!(read("0.0.0.0:8080:80"), forward("0.0.0.0:8080", 80));
        for wrong in [
            "",
            "80",
            "80:",
            ":80",
            "a:80",
            "80:a",
            "80:65536",
            "65536:80",
            "+1:80",
            "80:-1",
            "localhost:80:80",
            "::1:80:80",
            "1.2.3:80:80",
            "1.2.3.4::80",
            "80:80 ",
        ] {
            assert!(read(wrong).unwrap_err().contains("PORT:GUEST_PORT"), "{wrong}");
        }
        assert!(read("80:0").unwrap_err().contains("guest's port"));
    }

    #[test]
    fn free_ports_are_chosen_and_each_once() {
        let chosen = choose(&["0:80".parse().unwrap(); 17]).unwrap();
        let mut ports: Vec<u16> = chosen.iter().map(|forward| forward.host.port()).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!((ports.len(), ports.contains(&0)), (17, false));
        // They are free again.
        assert!(TcpListener::bind(chosen[0].host).is_ok());
    }

    #[test]
    fn a_port_that_cannot_be_had_has_a_remedy() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let wanted: Wanted = format!("{port}:80").parse().unwrap();
        let message = choose(&[wanted]).unwrap_err();
        assert!(message.contains(&format!("port {port} is taken: end")), "{message}");
        // An address for documents (RFC 5737), which no host has.
        let message = choose(&["192.0.2.1:0:80".parse().unwrap()]).unwrap_err();
        assert!(message.contains("does not have the address 192.0.2.1"), "{message}");
        let twice = choose(&[wanted; 2]);
        drop(taken);
        assert!(twice.is_err());
        assert!(choose(&[wanted; 2]).unwrap_err().contains("is taken"), "twice on one line");
    }
}
