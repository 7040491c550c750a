//! Names of a model's files, and the reader of `.sha256` files.
//!
//! The machine and `image-builder` share these rules.

#![forbid(unsafe_code)]

use alloc::borrow::Cow;
use alloc::string::String;
use core::fmt;

/// End of the name of a model's file, in any case.
pub const MODEL_ENDING: &str = ".gguf";
/// Suffix that makes a file's name that of its digest file.
pub const SUM_ENDING: &str = ".sha256";
/// Size limit of a `.sha256` file in bytes: the lines of some 500 models.
pub const LONGEST_SUM_FILE: usize = 64 << 10;

/// Whether a name or path is a model's: it ends in `.gguf`, and is not hidden.
///
/// macOS puts a hidden `._NAME` beside each file on a FAT volume or in an archive.
pub fn is_model(name: impl AsRef<[u8]>) -> bool {
    let file = name.as_ref().rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    !file.starts_with(b".") && strip_ending(file, MODEL_ENDING).is_some()
}

/// Whether a file of this name holds the digest of another.
pub fn is_sum(name: impl AsRef<[u8]>) -> bool {
    strip_ending(name.as_ref(), SUM_ENDING).is_some()
}

/// Whether a file of this name holds the digest of a model.
pub fn is_sum_of_model(name: impl AsRef<[u8]>) -> bool {
    strip_ending(name.as_ref(), SUM_ENDING).is_some_and(is_model)
}

fn strip_ending<'a>(name: &'a [u8], ending: &str) -> Option<&'a [u8]> {
    let (start, end) = name.split_at_checked(name.len().checked_sub(ending.len())?)?;
    end.eq_ignore_ascii_case(ending.as_bytes()).then_some(start)
}

/// Whether two names mean one file on a FAT volume.
///
/// FAT does not distinguish upper and lower case.
pub fn same_name(a: &str, b: &str) -> bool {
    a.chars().flat_map(char::to_uppercase).eq(b.chars().flat_map(char::to_uppercase))
}

/// Why a `.sha256` file gives no digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SumError {
    /// The file has no digest for this name.
    Missing(String),
    /// The file has two different digests for this name.
    Contradiction(String),
    /// The file is longer than [`LONGEST_SUM_FILE`].
    TooLong,
}

impl fmt::Display for SumError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SumError::Missing(name) => write!(f, "holds no SHA-256 digest of {name}"),
            SumError::Contradiction(name) => {
                write!(f, "holds two SHA-256 digests of {name} that differ")
            }
            SumError::TooLong => {
                write!(f, "is longer than {} KiB", LONGEST_SUM_FILE >> 10)
            }
        }
    }
}

impl core::error::Error for SumError {}

/// The digest that the `text` of a `.sha256` file gives for the model `name`.
///
/// A line has one of the forms of `sha256sum`: `DIGEST  NAME`, `DIGEST *NAME`, or `SHA256 (NAME) =
/// DIGEST` with `--tag`. A `\` before the line means that the name is escaped. A line may be a
/// digest alone.
///
/// Of several lines, the model's line counts. A folder before a name does not count. The only line
/// of a file is the model's, whatever its name: models are renamed. Lines of other forms are
/// ignored, as by `sha256sum --check`.
///
/// # Errors The file gives no digest, or two different digests.
pub fn digest_of(name: &str, text: &[u8]) -> Result<[u8; 32], SumError> {
    if text.len() > LONGEST_SUM_FILE {
        return Err(SumError::TooLong);
    }
    // A name that is not UTF-8 is another file's name.
    let text = String::from_utf8_lossy(text);
    let lines = || {
        let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim_start);
        lines.filter(|line| !line.is_empty() && !line.starts_with('#'))
    };
    let alone = lines().count() == 1;
    let is_named: [fn(&str, &str) -> bool; 3] = [
        |written, name| written.strip_prefix("./").unwrap_or(written) == name,
        |written, name| file_name(written) == name,
        |written, name| same_name(file_name(written), name),
    ];
    for is_named in is_named {
        let counts = |line: Line<'_>| {
            let counts = line.name.as_deref().map_or(alone, |written| is_named(written, name));
            counts.then_some(line.digest)
        };
        let mut digests = lines().filter_map(read_line).filter_map(counts);
        let Some(digest) = digests.next() else { continue };
        return match digests.all(|other| other == digest) {
            true => Ok(digest),
            false => Err(SumError::Contradiction(name.into())),
        };
    }
    match lines().next().and_then(read_line) {
        Some(line) if alone => Ok(line.digest),
        _ => Err(SumError::Missing(name.into())),
    }
}

/// The name without folders; Windows separates folders by `\`.
fn file_name(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or(path)
}

/// A line of a `.sha256` file.
struct Line<'a> {
    digest: [u8; 32],
    /// `None` if the digest stands alone.
    name: Option<Cow<'a, str>>,
}

/// Reads a line without blanks at its start; `None` if the line has none of the forms.
fn read_line(line: &str) -> Option<Line<'_>> {
    let (escaped, line) = match line.strip_prefix('\\') {
        Some(line) => (true, line),
        None => (false, line),
    };
    let (digest, name) = match line.strip_prefix("SHA256") {
        Some(rest) => {
            // OpenSSL leaves the blanks out.
            let rest = rest.trim_start().strip_prefix('(')?;
            let (name, digest) = rest.rsplit_once(')')?;
            (digest.trim_start().strip_prefix('=')?.trim(), Some(name))
        }
        None => match line.split_once([' ', '\t']) {
            None => (line, None),
            Some((digest, name)) if name.trim().is_empty() => (digest, None),
            // The second character marks a text or a binary file; BSD's `sha256 -r` has none.
            Some((digest, name)) => (digest, Some(name.strip_prefix([' ', '*']).unwrap_or(name))),
        },
    };
    let name = match name {
        Some(name) if escaped => Some(Cow::Owned(unescape(name)?)),
        name => name.map(Cow::Borrowed),
    };
    Some(Line { digest: from_hex(digest)?, name })
}

/// Reverts the escapes of `sha256sum` in a name.
fn unescape(name: &str) -> Option<String> {
    let mut out = String::with_capacity(name.len());
    let mut chars = name.chars();
    while let Some(c) = chars.next() {
        out.push(match c {
            '\\' => match chars.next()? {
                '\\' => '\\',
                'n' => '\n',
                'r' => '\r',
                _ => return None,
            },
            c => c,
        });
    }
    Some(out)
}

/// Reads 64 hexadecimal digits.
fn from_hex(hex: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    if pairs.len() != digest.len() || !rest.is_empty() {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(pairs) {
        let digit = |c: u8| char::from(c).to_digit(16);
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::ToString;

    use super::*;

    /// A digest of one digit, as it is written.
    fn hex(digit: char) -> String {
        core::iter::repeat_n(digit, 64).collect()
    }

    /// The digit of the digest that is found for `name`.
    #[track_caller]
    fn digit(name: &str, text: &str) -> Result<char, SumError> {
        digest_of(name, text.as_bytes()).map(|digest| {
            assert!(digest.iter().all(|&byte| byte == digest[0] && byte >> 4 == byte & 15));
            char::from_digit(u32::from(digest[0] & 15), 16).unwrap()
        })
    }

    #[test]
    fn hidden_files_are_no_models() {
        for (file, expected) in [
            ("a.gguf", true),
            ("models/B.GGUF", true),
            ("é.gguf", true),
            ("._a.gguf", false),
            ("models/._a.gguf", false),
            (".gguf", false),
            ("a.gguf.sha256", false),
            ("gguf", false),
            ("", false),
        ] {
            assert_eq!(is_model(file), expected, "{file}");
        }
    }

    #[test]
    fn models_and_their_digests_are_recognised_by_their_endings() {
        for name in ["a.gguf", "A.GGUF", "🦙.Gguf", "models/a.gguf"] {
            assert!(is_model(name) && !is_sum(name) && !is_sum_of_model(name), "{name}");
            assert!(is_sum_of_model(format!("{name}.SHA256")), "{name}");
        }
        for name in ["", "gguf", "a.gguf ", "a.ggml", "a.sha256", "a.gguf.sha256x", "é.ggu"] {
            assert!(!is_model(name) && !is_sum_of_model(name), "{name}");
            assert_eq!(is_sum(name), name == "a.sha256");
        }
    }

    #[test]
    fn each_form_of_sha256sum_is_read() {
        let (a, upper) = (hex('a'), hex('A'));
        for line in [
            format!("{a}  x.gguf"),
            format!("{a} *x.gguf"),
            format!("{a} x.gguf"),
            format!("{a}\tx.gguf"),
            format!("{upper}  x.gguf"),
            format!("  {a}  x.gguf"),
            format!("SHA256 (x.gguf) = {a}"),
            format!("SHA256(x.gguf)= {a}"),
            format!("SHA256 (x.gguf) = {a}  "),
            format!("\\{a}  x.gguf"),
            format!("\\SHA256 (x.gguf) = {a}"),
            format!("{a}  models/x.gguf"),
            format!("{a} *./x.gguf"),
            format!("{a}  C:\\models\\x.gguf"),
            format!("SHA256 (/srv/(old) models/x.gguf) = {a}"),
            format!("{a}  X.GGUF"),
        ] {
            assert_eq!(digit("x.gguf", &line), Ok('a'), "{line}");
            // With Windows' line ends, and between lines of all kinds.
            let others = format!(
                "# models\r\n\r\nMD5 (x.gguf) = {}\r\n{}  y.gguf\r\n{line}\r\nSHA256 (z) = {}\r\n",
                &a[..32],
                hex('1'),
                hex('2')
            );
            assert_eq!(digit("x.gguf", &others), Ok('a'), "{others}");
        }
        for alone in [a.clone(), format!("{a}\n"), format!(" {a} \r\n"), format!("#\n\n{a}\n")] {
            assert_eq!(digit("x.gguf", &alone), Ok('a'), "{alone:?}");
        }
        let marked = format!("\u{feff}{a}  x.gguf\n{}  y.gguf\n", hex('1'));
        assert_eq!(digit("x.gguf", &marked), Ok('a'));
    }

    #[test]
    fn escaped_names_are_those_before_they_were_escaped() {
        let lines = |name: &str| {
            let (a, b) = (hex('a'), hex('b'));
            [format!("\\{a}  {name}\n{b}  other\n"), format!("\\SHA256 ({name}) = {a}\n{b}  other")]
        };
        for (written, name) in
            [("a\\\\b.gguf", "a\\b.gguf"), ("a\\nb.gguf", "a\nb.gguf"), ("\\r.gguf", "\r.gguf")]
        {
            for text in lines(written) {
                assert_eq!(digit(name, &text), Ok('a'), "{text}");
                assert!(digit(written, &text).is_err(), "{text}");
            }
        }
        for text in lines("a\\x.gguf").iter().chain(&lines("a.gguf\\")) {
            assert_eq!(digit("a\\x.gguf", text), Err(SumError::Missing("a\\x.gguf".into())));
        }
        // Without the mark, a backslash is one.
        let text = format!("{}  a\\nb.gguf\n{}  other\n", hex('a'), hex('b'));
        assert_eq!(digit("a\\nb.gguf", &text), Ok('a'));
    }

    #[test]
    fn of_several_lines_that_of_the_model_counts() {
        let list = format!(
            "{}  old/x.gguf\n{}  X.gguf\nSHA256 (x.gguf) = {}\n{}  ./y.gguf\n{}\n",
            hex('1'),
            hex('2'),
            hex('3'),
            hex('4'),
            hex('5'),
        );
        // A name as it is goes before one with a folder, and that before one in another case.
        for (name, expected) in [("x.gguf", '3'), ("X.gguf", '2'), ("y.gguf", '4'), ("Y.GGUF", '4')]
        {
            assert_eq!(digit(name, &list), Ok(expected), "{name}");
        }
        // A digest without a name is about the model only where it is all there is.
        assert_eq!(digit("z.gguf", &list), Err(SumError::Missing("z.gguf".into())));
        let twice = |second| format!("{}  a/x.gguf\n{}  b/x.gguf\n", hex('1'), hex(second));
        assert_eq!(digit("x.gguf", &twice('1')), Ok('1'));
        assert_eq!(digit("x.gguf", &twice('2')), Err(SumError::Contradiction("x.gguf".into())));
    }

    #[test]
    fn a_line_that_is_all_there_is_is_the_models() {
        for line in [format!("{}  old name.gguf\n", hex('a')), format!("SHA256 (-) = {}", hex('a'))]
        {
            assert_eq!(digit("x.gguf", &line), Ok('a'), "{line}");
            let with_other = format!("{line}\n{}  y.gguf\n", hex('b'));
            assert!(digit("x.gguf", &with_other).is_err(), "{with_other}");
        }
        // The line of the model is damaged: that of another model does not stand in for it.
        let damaged = format!("{}  x.gguf\n{}  y.gguf\n", &hex('a')[1..], hex('b'));
        assert_eq!(digit("x.gguf", &damaged), Err(SumError::Missing("x.gguf".into())));
    }

    #[test]
    fn what_is_no_digest_is_named() {
        let a = hex('a');
        for bad in [
            "",
            "  \n",
            "x.gguf",
            &format!("{a}0  x.gguf"),
            &format!("{}  x.gguf", &a[1..]),
            &format!("{}g  x.gguf", &a[1..]),
            &format!("{}é  x.gguf", &a[2..]),
            &format!("SHA512 (x.gguf) = {a}"),
            &format!("SHA256 (x.gguf) {a}"),
            &format!("SHA256 x.gguf = {a}"),
            &format!("SHA256 (x.gguf = {a}"),
            &format!("#{a}  x.gguf"),
            "\\",
            "SHA256",
        ] {
            let error = digest_of("x.gguf", bad.as_bytes()).unwrap_err();
            assert_eq!(error.to_string(), "holds no SHA-256 digest of x.gguf", "{bad}");
        }
        assert!(digest_of("x.gguf", b"\xff\xfe").is_err());
        // Another name in another encoding is passed over.
        let latin1 = [hex('b').as_bytes(), b"  Gr\xfcn.gguf\n", a.as_bytes(), b"  x.gguf"].concat();
        assert_eq!(digest_of("x.gguf", &latin1), Ok([0xaa; 32]));
        let mut long = format!("{a}  x.gguf\n").into_bytes();
        long.resize(LONGEST_SUM_FILE, b'\n');
        assert_eq!(digest_of("x.gguf", &long), Ok([0xaa; 32]));
        long.push(b'\n');
        assert_eq!(digest_of("x.gguf", &long), Err(SumError::TooLong));
    }
}
