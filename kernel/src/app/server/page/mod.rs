//! The chat page: one HTML file without foreign resources, and its headers.
//!
//! The files beside this one become the page at build time. The browser runs the page's one script
//! and applies its one style sheet, as their hashes are in the Content Security Policy (CSP Level
//! 3). The browser turns no text into HTML, as `trusted-types 'none'` forbids that to the script
//! too. `ci/page.py` tests the page in a browser.

use alloc::format;
use alloc::string::String;

use crate::app::sha256::Sha256;

/// The page; `ci/page.py` reads this list of parts.
const PAGE: &str = concat!(
    include_str!("head.html"),
    "<style>\n",
    include_str!("page.css"),
    "</style>\n",
    include_str!("body.html"),
    "<script>\n",
    include_str!("markdown.js"),
    include_str!("client.js"),
    include_str!("speech.js"),
    include_str!("chat.js"),
    include_str!("controls.js"),
    "</script>\n</body>\n</html>\n",
);

/// What answers `GET /` and `GET /index.html`.
pub struct ResponseParts {
    /// The page's bytes.
    pub body: &'static [u8],
    /// Names and values of the headers, except `Content-Length`. A 304 has the same headers.
    pub headers: [(&'static str, String); 7],
    etag: String,
}

impl ResponseParts {
    /// Whether the answer is `304 Not Modified` (RFC 9110, 13.1.2).
    pub fn is_unmodified(&self, if_none_match: &str) -> bool {
        if_none_match.split(',').map(str::trim).any(|etag| {
            // The comparison is weak: a proxy that compresses the page makes the ETag weak.
            etag == "*" || etag.strip_prefix("W/").unwrap_or(etag) == self.etag
        })
    }
}

/// The page's body and headers, with the hashes computed; to be called once.
pub fn response_parts() -> ResponseParts {
    let etag = format!("\"{}\"", base64(&hash(PAGE)));
    ResponseParts {
        body: PAGE.as_bytes(),
        headers: [
            ("Content-Type", "text/html; charset=utf-8".into()),
            ("Content-Security-Policy", content_security_policy()),
            ("ETag", etag.clone()),
            // The browser asks each time, and a 304 answers.
            ("Cache-Control", "no-cache".into()),
            ("X-Content-Type-Options", "nosniff".into()),
            ("Referrer-Policy", "no-referrer".into()),
            ("Cross-Origin-Opener-Policy", "same-origin".into()),
        ],
        etag,
    }
}

fn content_security_policy() -> String {
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'",
        base64(&hash(raw_text("<script>", "</script>"))),
        base64(&hash(raw_text("<style>", "</style>"))),
    )
}

/// The text of the page's first element with these tags, as an HTML parser finds it.
fn raw_text(start: &str, end: &str) -> &'static str {
    let (_, rest) = PAGE.split_once(start).unwrap_or_default();
    rest.split_once(end).unwrap_or_default().0
}

fn hash(text: &str) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(text.as_bytes());
    hasher.finish().0
}

/// Base64 with padding (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(*group.get(at).unwrap_or(&0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            // A group of n bytes has n + 1 digits.
            text.push(if digit <= group.len() {
                char::from(DIGITS[(bits >> (18 - 6 * digit)) as usize & 63])
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests;
