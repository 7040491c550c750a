//! The headers of a request.

#![forbid(unsafe_code)]

use alloc::boxed::Box;
use alloc::vec::Vec;

/// The headers of a request, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(Box<str>, Box<[u8]>)>);

impl Headers {
    /// The value of the first header with this name, in any case.
    ///
    /// `None` stands for a value that is no UTF-8 as well.
    pub fn get<'a>(&'a self, name: &str) -> Option<&'a str> {
        self.all(name).next().and_then(|value| core::str::from_utf8(value).ok())
    }

    /// The values of all headers with this name, in any case.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let is_wanted = move |header: &&(Box<str>, Box<[u8]>)| header.0.eq_ignore_ascii_case(name);
        self.0.iter().filter(is_wanted).map(|(_, value)| &**value)
    }

    /// The elements of a comma-separated list in all headers with this name, without blanks.
    pub fn list<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let elements = |value: &'a [u8]| value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
        self.all(name).flat_map(elements)
    }

    /// All headers: names as they were sent, and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    pub(super) fn push(&mut self, name: &str, value: &[u8]) {
        self.0.push((name.into(), value.into()));
    }

    /// Puts `value` in the place of all headers with this name.
    pub(super) fn replace(&mut self, name: &str, value: &str) {
        self.0.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self.push(name, value.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn case_does_not_matter() {
        let mut headers = Headers::default();
        headers.push("CONNECTION", b"close , Upgrade");
        headers.push("x-name", b"caf\xe9");
        headers.push("connection", b"keep-alive");
        assert_eq!(headers.get("Connection"), Some("close , Upgrade"));
        let list: Vec<&[u8]> = headers.list("connection").collect();
        assert_eq!(list, [&b"close"[..], b"Upgrade", b"keep-alive"]);
        assert_eq!(headers.get("x-name"), None, "no UTF-8");
        assert_eq!(headers.all("X-Name").collect::<Vec<_>>(), [b"caf\xe9"]);
        headers.replace("Connection", "x");
        assert_eq!(
            headers.iter().collect::<Vec<_>>(),
            vec![("x-name", &b"caf\xe9"[..]), ("Connection", b"x")]
        );
    }
}
