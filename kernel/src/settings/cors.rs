//! The setting `cors`: pages of other sites that may use the server.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

/// Origins of pages (RFC 6454) that may read the server's answers in a browser.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cors {
    /// Only the server's own page.
    #[default]
    Off,
    /// Pages of the browser's own machine.
    Localhost,
    /// All pages.
    All,
    /// Pages of these origins.
    Origins(Vec<String>),
}

impl Cors {
    /// Reads the setting's value; `None` if it is none.
    pub fn read(text: &str) -> Option<Cors> {
        match text {
            "off" => Some(Cors::Off),
            "localhost" => Some(Cors::Localhost),
            "*" => Some(Cors::All),
            _ => {
                let origins: Vec<String> =
                    text.split(',').map(|origin| origin.trim().to_owned()).collect();
                let is_origin = |origin: &String| {
                    let host = origin.split_once("://").map(|(_, host)| host);
                    host.is_some_and(|host| !host.is_empty() && !host.contains(['/', ' ']))
                };
                origins.iter().all(is_origin).then_some(Cors::Origins(origins))
            }
        }
    }

    /// Whether pages of an origin may use the server.
    pub fn allows(&self, origin: &str) -> bool {
        match self {
            Cors::Off => false,
            Cors::All => true,
            Cors::Localhost => is_localhost(origin),
            Cors::Origins(origins) => {
                origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin))
            }
        }
    }
}

/// Whether an origin is a page of the browser's own machine.
fn is_localhost(origin: &str) -> bool {
    let Some((_, host)) = origin.split_once("://") else { return false };
    // The port is behind the last colon, unless a bracket follows.
    let host = match host.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => host,
        _ => host,
    };
    host.eq_ignore_ascii_case("localhost")
        || host.to_ascii_lowercase().ends_with(".localhost")
        || matches!(host, "127.0.0.1" | "[::1]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_words_or_origins() {
        assert_eq!(Cors::read("off"), Some(Cors::Off));
        assert_eq!(Cors::read("localhost"), Some(Cors::Localhost));
        assert_eq!(Cors::read("*"), Some(Cors::All));
        let two = Cors::Origins(["https://a.example".into(), "http://b:81".into()].into());
        assert_eq!(Cors::read("https://a.example, http://b:81"), Some(two));
        for bad in ["", "a.example", "https://", "https://a/", "https://a,", "*,https://a", "on"] {
            assert_eq!(Cors::read(bad), None, "{bad}");
        }
    }

    #[test]
    fn origins_are_compared_as_a_whole() {
        let origins = Cors::read("https://a.example").unwrap();
        assert!(origins.allows("https://a.example") && origins.allows("HTTPS://A.example"));
        for other in ["https://b.example", "http://a.example", "https://a.example:8443", "null"] {
            assert!(!origins.allows(other), "{other}");
        }
        assert!(Cors::All.allows("null") && !Cors::Off.allows("http://localhost"));
        for own in [
            "http://localhost",
            "https://LOCALHOST:3000",
            "http://127.0.0.1:80",
            "http://[::1]:8080",
            "http://[::1]",
            "http://app.localhost:5173",
        ] {
            assert!(Cors::Localhost.allows(own), "{own}");
        }
        for other in [
            "http://localhost.example",
            "http://evil-localhost",
            "null",
            "localhost",
            "http://127.0.0.1.example",
            "http://[::2]",
        ] {
            assert!(!Cors::Localhost.allows(other), "{other}");
        }
    }
}
