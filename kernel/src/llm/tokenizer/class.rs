//! Classes of characters, as the regular expressions of pre-tokenisers name them.

use super::categories::RUNS;

/// The first letter of a character's general category, numbered as in [`RUNS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    Unassigned,
    Other,
    Letter,
    Mark,
    Number,
    Punctuation,
    Symbol,
    Separator,
}

/// The categories of ASCII, which most text asks for.
const ASCII: [Category; 128] = {
    let mut categories = [Category::Other; 128];
    let mut run = 0;
    let mut code = 0;
    while code < categories.len() {
        while (RUNS[run + 1] >> 3) as usize <= code {
            run += 1;
        }
        categories[code] = of_run(RUNS[run]);
        code += 1;
    }
    categories
};

const fn of_run(run: u32) -> Category {
    match run & 7 {
        0 => Category::Unassigned,
        1 => Category::Other,
        2 => Category::Letter,
        3 => Category::Mark,
        4 => Category::Number,
        5 => Category::Punctuation,
        6 => Category::Symbol,
        _ => Category::Separator,
    }
}

/// The category of a character.
pub fn category(c: char) -> Category {
    let code = c as usize;
    if let Some(&category) = ASCII.get(code) {
        return category;
    }
    // The first run starts at 0.
    let after = RUNS.partition_point(|&run| (run >> 3) as usize <= code);
    of_run(RUNS[..after].last().copied().unwrap_or_default())
}

/// `\p{L}`
pub fn letter(c: char) -> bool {
    category(c) == Category::Letter
}

/// `\p{N}`
pub fn number(c: char) -> bool {
    category(c) == Category::Number
}

/// `\p{P}`
fn punctuation(c: char) -> bool {
    category(c) == Category::Punctuation
}

/// `\s`
pub fn space(c: char) -> bool {
    c.is_whitespace()
}

/// The space alone.
pub fn blank(c: char) -> bool {
    c == ' '
}

/// `[\r\n]`
pub fn line_end(c: char) -> bool {
    matches!(c, '\r' | '\n')
}

/// `[\r\n/]`
pub fn line_end_or_slash(c: char) -> bool {
    matches!(c, '\r' | '\n' | '/')
}

/// `[^\n]`
pub fn no_newline(c: char) -> bool {
    c != '\n'
}

/// `\n`
pub fn newline(c: char) -> bool {
    c == '\n'
}

/// `[0-9]`
pub fn digit(c: char) -> bool {
    c.is_ascii_digit()
}

/// `[^\s\p{L}\p{N}]`
pub fn sign(c: char) -> bool {
    !space(c) && !matches!(category(c), Category::Letter | Category::Number)
}

/// `[^\s\p{L}\p{M}\p{N}]`
pub fn sign_but_mark(c: char) -> bool {
    sign(c) && category(c) != Category::Mark
}

/// `[^\s\p{L}\p{N}\r\n]`, whose last two are `\s` already, or `[^\r\n\p{L}\p{N}]`: what may stand
/// before a word.
pub fn lead(c: char) -> bool {
    !line_end(c) && !matches!(category(c), Category::Letter | Category::Number)
}

/// `[^\r\n\p{L}\p{P}\p{S}]`
pub fn lead_but_sign(c: char) -> bool {
    use Category::{Letter, Punctuation, Symbol};
    !line_end(c) && !matches!(category(c), Letter | Punctuation | Symbol)
}

/// `[\p{L}\p{M}]`
pub fn letter_or_mark(c: char) -> bool {
    matches!(category(c), Category::Letter | Category::Mark)
}

/// `[\p{P}\p{S}]`
pub fn punctuation_or_symbol(c: char) -> bool {
    matches!(category(c), Category::Punctuation | Category::Symbol)
}

/// `(?=\p{L})[^a-z]`
pub fn not_lower(c: char) -> bool {
    letter(c) && !c.is_ascii_lowercase()
}

/// `(?=\p{L})[^A-Z]`
pub fn not_upper(c: char) -> bool {
    letter(c) && !c.is_ascii_uppercase()
}

/// `[A-Za-z]`
pub fn ascii_letter(c: char) -> bool {
    c.is_ascii_alphabetic()
}

/// ``[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]``
pub fn ascii_sign(c: char) -> bool {
    c.is_ascii_punctuation()
}

/// `[\p{P}$+<=>^~|]`
pub fn default_sign(c: char) -> bool {
    punctuation(c) || matches!(c, '$' | '+' | '<' | '=' | '>' | '^' | '~' | '|')
}

/// ``[\p{P}$+<=>^~|`]``
pub fn falcon_sign(c: char) -> bool {
    default_sign(c) || c == '`'
}

/// `\p{P}`, for DeepSeek Coder.
pub fn deepseek_coder_sign(c: char) -> bool {
    punctuation(c)
}

/// `[!-/:-~！-／：-～‘-‟　-。]`, for DeepSeek LLM; the wide space counts as `\s` alone.
pub fn deepseek_sign(c: char) -> bool {
    matches!(c, '!'..='/' | ':'..='~' | '！'..='／' | '：'..='～' | '‘'..='‟' | '、'..='。')
}

/// `[一-龥ࠀ-一가-퟿]`, for DeepSeek LLM and Coder, without what is `\s`.
pub fn deepseek_cjk(c: char) -> bool {
    matches!(c, '\u{800}'..='龥' | '가'..='\u{d7ff}') && !space(c)
}

/// `[一-龥぀-ゟ゠-ヿ]`, for DeepSeek V3.
pub fn deepseek3_cjk(c: char) -> bool {
    matches!(c, '一'..='龥' | '\u{3040}'..='ヿ')
}

/// `[^(\s|.,!?…。，、।۔،)]`, for BLOOM.
pub fn bloom_word(c: char) -> bool {
    !space(c) && !"(|.,!?…。，、।۔،)".contains(c)
}

/// The letters of alphabets with two cases, for DeepSeek LLM.
///
/// In order, the first and the last letter of each run.
const CASED: &[(char, char)] = &[
    ('A', 'Z'),
    ('a', 'z'),
    ('\u{b5}', '\u{b5}'),
    ('\u{c0}', '\u{d6}'),
    ('\u{d8}', '\u{f6}'),
    ('\u{f8}', '\u{1ba}'),
    ('\u{1bc}', '\u{1bf}'),
    ('\u{1c4}', '\u{293}'),
    ('\u{295}', '\u{2af}'),
    ('\u{370}', '\u{373}'),
    ('\u{376}', '\u{376}'),
    ('\u{377}', '\u{377}'),
    ('\u{37b}', '\u{37d}'),
    ('\u{37f}', '\u{37f}'),
    ('\u{386}', '\u{386}'),
    ('\u{388}', '\u{38a}'),
    ('\u{38c}', '\u{38c}'),
    ('\u{38e}', '\u{3a1}'),
    ('\u{3a3}', '\u{3f5}'),
    ('\u{3f7}', '\u{481}'),
    ('\u{48a}', '\u{52f}'),
    ('\u{531}', '\u{556}'),
    ('\u{10a0}', '\u{10c5}'),
    ('\u{13a0}', '\u{13f5}'),
    ('\u{13f8}', '\u{13fd}'),
    ('\u{1c90}', '\u{1cba}'),
    ('\u{1cbd}', '\u{1cbf}'),
    ('\u{1d00}', '\u{1d2b}'),
    ('\u{1d6b}', '\u{1d77}'),
    ('\u{1d79}', '\u{1d9a}'),
    ('\u{1e00}', '\u{1f15}'),
    ('\u{1f18}', '\u{1f1d}'),
    ('\u{1f20}', '\u{1f45}'),
    ('\u{1f48}', '\u{1f4d}'),
    ('\u{1f50}', '\u{1f57}'),
    ('\u{1f59}', '\u{1f59}'),
    ('\u{1f5b}', '\u{1f5b}'),
    ('\u{1f5d}', '\u{1f5d}'),
    ('\u{1f5f}', '\u{1f7d}'),
    ('\u{1f80}', '\u{1fb4}'),
    ('\u{1fb6}', '\u{1fbc}'),
    ('\u{1fbe}', '\u{1fbe}'),
    ('\u{1fc2}', '\u{1fc4}'),
    ('\u{1fc6}', '\u{1fcc}'),
    ('\u{1fd0}', '\u{1fd3}'),
    ('\u{1fd6}', '\u{1fdb}'),
    ('\u{1fe0}', '\u{1fec}'),
    ('\u{1ff2}', '\u{1ff4}'),
    ('\u{1ff6}', '\u{1ffc}'),
    ('\u{2102}', '\u{2102}'),
    ('\u{2107}', '\u{2107}'),
    ('\u{210a}', '\u{2113}'),
    ('\u{2115}', '\u{2115}'),
    ('\u{2119}', '\u{211d}'),
    ('\u{2124}', '\u{2124}'),
    ('\u{2126}', '\u{2126}'),
    ('\u{2128}', '\u{2128}'),
    ('\u{212a}', '\u{212d}'),
    ('\u{212f}', '\u{2134}'),
    ('\u{2139}', '\u{2139}'),
    ('\u{213c}', '\u{213f}'),
    ('\u{2145}', '\u{2149}'),
    ('\u{214e}', '\u{214e}'),
    ('\u{2183}', '\u{2183}'),
    ('\u{2184}', '\u{2184}'),
    ('\u{2c00}', '\u{2c7b}'),
    ('\u{2c7e}', '\u{2ce4}'),
    ('\u{2ceb}', '\u{2cee}'),
    ('\u{2cf2}', '\u{2cf2}'),
    ('\u{2cf3}', '\u{2cf3}'),
    ('\u{a640}', '\u{a66d}'),
    ('\u{a680}', '\u{a69b}'),
    ('\u{a722}', '\u{a76f}'),
    ('\u{a771}', '\u{a787}'),
    ('\u{a78b}', '\u{a78e}'),
    ('\u{ab70}', '\u{abbf}'),
    ('\u{fb00}', '\u{fb06}'),
    ('\u{fb13}', '\u{fb17}'),
    ('\u{ff21}', '\u{ff3a}'),
    ('\u{ff41}', '\u{ff5a}'),
    ('\u{10400}', '\u{1044f}'),
    ('\u{104b0}', '\u{104d3}'),
    ('\u{104d8}', '\u{104fb}'),
    ('\u{10c80}', '\u{10cb2}'),
    ('\u{10cc0}', '\u{10cf2}'),
    ('\u{118a0}', '\u{118df}'),
    ('\u{1e900}', '\u{1e943}'),
];

/// A letter of an alphabet with two cases, for DeepSeek LLM.
pub fn deepseek_letter(c: char) -> bool {
    let after = CASED.partition_point(|&(first, _)| first <= c);
    CASED[..after].last().is_some_and(|&(_, last)| c <= last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_whole() {
        assert_eq!(RUNS[0] >> 3, 0);
        assert!(RUNS.windows(2).all(|w| w[0] >> 3 < w[1] >> 3 && w[0] & 7 != w[1] & 7));
        assert!(CASED.windows(2).all(|w| w[0].1 < w[1].0));
        for c in '\0'..='\u{7f}' {
            let slow = of_run(RUNS[RUNS.partition_point(|&run| run >> 3 <= c as u32) - 1]);
            assert_eq!(category(c), slow, "{c:?}");
        }
    }

    #[test]
    fn characters_have_their_categories() {
        for (c, of) in [
            ('\0', Category::Other),
            (' ', Category::Separator),
            ('!', Category::Punctuation),
            ('$', Category::Symbol),
            ('0', Category::Number),
            ('a', Category::Letter),
            ('ª', Category::Letter),
            ('²', Category::Number),
            ('\u{301}', Category::Mark),
            ('\u{378}', Category::Unassigned),
            ('ह', Category::Letter),
            ('\u{94d}', Category::Mark),
            ('\u{200b}', Category::Other),
            ('\u{200d}', Category::Other),
            ('\u{2028}', Category::Separator),
            ('Ⅷ', Category::Number),
            ('、', Category::Punctuation),
            ('漢', Category::Letter),
            ('\u{e000}', Category::Other),
            ('🙂', Category::Symbol),
            // New in Unicode 15.1, and in 16.
            ('\u{2ffc}', Category::Symbol),
            ('\u{10d40}', Category::Unassigned),
            ('\u{10ffff}', Category::Unassigned),
        ] {
            assert_eq!(category(c), of, "{c:?}");
        }
    }
}
