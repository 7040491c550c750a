use sha2::{Digest, Sha256};

use super::*;

/// The files as they are, to compare the page with.
const STYLE: &str = include_str!("page.css");
const HTML: [&str; 2] = [include_str!("head.html"), include_str!("body.html")];
const SCRIPTS: [&str; 5] = [
    include_str!("markdown.js"),
    include_str!("client.js"),
    include_str!("speech.js"),
    include_str!("chat.js"),
    include_str!("controls.js"),
];

fn header(name: &str) -> String {
    let parts = response_parts();
    let found = parts.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.unwrap_or_else(|| panic!("no header {name}")).1.clone()
}

/// None of the words, in any case, is in the text.
fn has_none_of(text: &str, words: &[&str]) {
    let text = text.to_ascii_lowercase();
    for word in words {
        if let Some(at) = text.find(&word.to_ascii_lowercase()) {
            let around: String = text[..at].chars().rev().take(30).collect();
            let around: String = around.chars().rev().collect();
            panic!("{word:?} is in the page, behind {around:?}");
        }
    }
}

#[test]
fn the_page_is_small() {
    assert!(PAGE.len() < 64 * 1024, "{} bytes", PAGE.len());
}

#[test]
fn the_page_uses_nothing_foreign() {
    // Regular expressions write `:\/\/`.
    has_none_of(PAGE, &["://", "src=", ".src", "srcset", "srcdoc", "import(", "import "]);
    has_none_of(STYLE, &["url(", "@import", "image-set("]);
    has_none_of(
        PAGE,
        &[
            "<img",
            "<iframe",
            "<object",
            "<embed",
            "<base",
            "<audio",
            "<video",
            "http-equiv",
            "<link",
        ],
    );
    has_none_of(
        PAGE,
        &["XMLHttpRequest", "WebSocket", "EventSource", "sendBeacon", "importScripts", "Worker("],
    );
}

#[test]
fn no_text_becomes_html_or_code() {
    let sinks = [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "setHTML",
        "createContextualFragment",
        "DOMParser",
    ];
    has_none_of(PAGE, &sinks);
    has_none_of(
        PAGE,
        &[
            "document.write",
            "eval(",
            "Function(",
            "javascript:",
            "setTimeout(\"",
            "createElementNS",
        ],
    );
    for html in HTML {
        // Handlers and styles in attributes, which the policy refuses.
        for attribute in html.split([' ', '\n']).filter(|word| word.contains('=')) {
            assert!(!attribute.starts_with("on") && !attribute.starts_with("style"), "{attribute}");
        }
    }
}

#[test]
fn the_policy_allows_the_script_and_the_style_sheet_alone() {
    let policy = header("Content-Security-Policy");
    let script = format!("\n{}", SCRIPTS.concat());
    for (directive, text) in [("script-src", script), ("style-src", format!("\n{STYLE}"))] {
        let hash = base64(&Sha256::digest(text));
        assert_eq!(policy.matches(directive).count(), 1);
        assert!(
            policy.contains(&format!("{directive} 'sha256-{hash}';")),
            "{directive} of {policy}"
        );
    }
    let rest = "; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                require-trusted-types-for 'script'; trusted-types 'none'";
    assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"));
    assert!(policy.ends_with(rest), "{policy}");
    assert!(!policy.contains("unsafe"));
}

#[test]
fn an_html_parser_finds_one_script_and_one_style_sheet() {
    for (tag, count) in
        [("<script", 1), ("</script", 1), ("<style", 1), ("</style", 1), ("<!--", 0)]
    {
        assert_eq!(PAGE.to_ascii_lowercase().matches(tag).count(), count, "{tag}");
    }
    assert!(raw_text("<script>", "</script>").trim_start().starts_with("\"use strict\";"));
    assert!(PAGE.starts_with("<!DOCTYPE html>\n") && PAGE.ends_with("</html>\n"));
}

#[test]
fn base64_follows_rfc_4648() {
    let vectors = [
        ("", ""),
        ("f", "Zg=="),
        ("fo", "Zm8="),
        ("foo", "Zm9v"),
        ("foob", "Zm9vYg=="),
        ("fooba", "Zm9vYmE="),
        ("foobar", "Zm9vYmFy"),
    ];
    for (bytes, text) in vectors {
        assert_eq!(base64(bytes.as_bytes()), text);
    }
    assert_eq!(base64(&[0xfb, 0xff, 0xfe]), "+//+");
}

#[test]
fn the_etag_answers_for_the_bytes() {
    let parts = response_parts();
    let etag = header("ETag");
    assert_eq!(etag, format!("\"{}\"", base64(&Sha256::digest(parts.body))));
    for same in [etag.clone(), format!("W/{etag}"), format!("\"other\", {etag}"), "*".into()] {
        assert!(parts.is_unmodified(&same), "{same}");
    }
    for other in ["", "\"other\"", etag.trim_matches('"'), "W/*"] {
        assert!(!parts.is_unmodified(other), "{other}");
    }
}

#[test]
fn headers_are_one_line_each() {
    for (name, value) in response_parts().headers {
        assert!(
            !value.is_empty() && value.bytes().all(|byte| (0x20..0x7f).contains(&byte)),
            "{name}: {value}"
        );
    }
    assert_eq!(header("Content-Type"), "text/html; charset=utf-8");
}
