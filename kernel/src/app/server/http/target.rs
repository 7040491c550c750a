//! Request targets: path and query, percent-decoded.

#![forbid(unsafe_code)]

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use super::method::Method;
use super::refusal::Refusal;

/// A request target (RFC 9112, 3.2) in its parts.
#[derive(Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// Host and port of a target in absolute-form. They take the place of the header `Host`.
    pub authority: Option<&'a str>,
    /// The path, percent-decoded; `*` for the whole server.
    pub path: String,
    /// The query.
    pub query: Query,
}

/// The query of a target: the text behind `?`, as it was sent.
///
/// All its percent signs start well-formed escapes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(String);

impl Query {
    /// The value of the first parameter with this name, decoded; empty without `=`.
    pub fn get(&self, name: &str) -> Option<String> {
        self.pairs().find(|(other, _)| other == name).map(|(_, value)| value)
    }

    /// All parameters with their values, decoded. Bytes that are no UTF-8 become U+FFFD.
    pub fn pairs(&self) -> impl Iterator<Item = (String, String)> {
        let parts = self.0.split('&').filter(|part| !part.is_empty());
        parts.map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            (decode_parameter(name), decode_parameter(value))
        })
    }

    /// The query as it was sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Reads a request target.
///
/// Absolute-form (`http://host/path`) and origin-form (`/path`) are for all methods, the asterisk
/// is for `OPTIONS`. Authority-form belongs to `CONNECT`, which only proxies serve.
pub fn parse<'a>(method: &Method, target: &'a str) -> Result<Target<'a>, Refusal> {
    // Fragments stay with the client (RFC 9110, 4.2.5).
    if target.contains('#') || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Refusal::Target);
    }
    if target == "*" && *method == Method::Options {
        return Ok(Target { authority: None, path: "*".to_owned(), query: Query::default() });
    }
    let (authority, rest) = match target.starts_with('/') {
        true => (None, target),
        false => {
            let rest = without_scheme(target).ok_or(Refusal::Target)?;
            let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            if authority.is_empty() || !is_host(authority.as_bytes()) {
                return Err(Refusal::Target);
            }
            (Some(authority), rest)
        }
    };
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    percent_decode(query.as_bytes()).ok_or(Refusal::Target)?;
    let path = if path.is_empty() { "/" } else { path };
    let path = percent_decode(path.as_bytes()).and_then(|path| String::from_utf8(path).ok());
    // A path appears in logs, where a control character could pose as something else.
    let path = path.filter(|path| !path.contains(char::is_control)).ok_or(Refusal::Target)?;
    Ok(Target { authority, path, query: Query(query.to_owned()) })
}

/// Whether a value consists of the characters of hosts and ports alone.
pub fn is_host(value: &[u8]) -> bool {
    let is_allowed = |&byte: &u8| byte.is_ascii_alphanumeric() || b"-._~:[]%".contains(&byte);
    value.iter().all(is_allowed)
}

fn without_scheme(target: &str) -> Option<&str> {
    let (scheme, rest) = target.split_once("://")?;
    ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)).then_some(rest)
}

fn decode_parameter(text: &str) -> String {
    let text = text.replace('+', " ");
    let bytes = percent_decode(text.as_bytes()).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Decodes `%XX`; `None` where two hexadecimal digits do not follow a percent sign.
fn percent_decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            decoded.push(*first);
            continue;
        }
        let [high, low, tail @ ..] = tail else { return None };
        let digit = |byte: &u8| char::from(*byte).to_digit(16);
        decoded.push((digit(high)? * 16 + digit(low)?) as u8);
        rest = tail;
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn path(target: &str) -> Option<String> {
        parse(&Method::Get, target).ok().map(|target| target.path)
    }

    #[test]
    fn each_form_gives_a_path() {
        for (target, expected) in [
            ("/", "/"),
            ("/v1/models", "/v1/models"),
            ("/v1/models?", "/v1/models"),
            ("/%76%31/models?x=/y", "/v1/models"),
            ("/caf%C3%A9%20+", "/café +"),
            ("//x", "//x"),
            ("/../a", "/../a"),
            ("http://host", "/"),
            ("http://host?x", "/"),
            ("HTTPS://[::1]:8080/health", "/health"),
        ] {
            assert_eq!(path(target).as_deref(), Some(expected), "{target}");
        }
        assert_eq!(parse(&Method::Get, "http://a.b:80/x").unwrap().authority, Some("a.b:80"));
        assert_eq!(parse(&Method::Options, "*").unwrap().path, "*");
    }

    #[test]
    fn malformed_targets_are_refused() {
        for target in [
            "",
            "*",
            "x",
            "host:80",
            "http:/x",
            "http:///x",
            "ftp://host/",
            "http://user@host/",
            "http://a,b/",
            "/a#b",
            "/?a#b",
            "/%",
            "/%a",
            "/%zz",
            "/%+1",
            "/%ff",
            "/%00",
            "/%0d%0aX:y",
            "/a b",
            "/a\tb",
            "/caf\u{e9}",
            "/?q=%4",
        ] {
            assert_eq!(parse(&Method::Get, target), Err(Refusal::Target), "{target}");
        }
    }

    #[test]
    fn parameters_are_decoded() {
        let query = parse(&Method::Get, "/?a=1+2%2B&&b&a=3&%63=d=e&f=%ff").unwrap().query;
        let pairs: Vec<_> = query.pairs().collect();
        let expected = [("a", "1 2+"), ("b", ""), ("a", "3"), ("c", "d=e"), ("f", "\u{fffd}")];
        assert_eq!(pairs, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(query.get("a").as_deref(), Some("1 2+"));
        assert_eq!(query.get("c").as_deref(), Some("d=e"));
        assert_eq!(query.get("d"), None);
        assert_eq!(Query::default().pairs().collect::<Vec<_>>(), vec![]);
    }
}
