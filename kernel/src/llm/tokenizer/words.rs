//! How byte-level tokenizers cut a text into words before any merge: one list of patterns for each
//! family of models, as GGUF's `tokenizer.ggml.pre` names it. The patterns are those of the models'
//! own tokenizers as llama.cpp applies them (`llm_tokenizer_bpe`).

use alloc::vec;
use alloc::vec::Vec;

use unicode_general_category::{GeneralCategory as Category, get_general_category};

use super::pattern::Step::{AnyCase, Maybe, NotBefore, OneOf, Some as Take, Text};
use super::pattern::{Alternatives, Step, split};

/// A way to cut texts.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    /// The names of the models that it serves.
    pub(super) names: &'static [&'static str],
    /// Each cuts what those before it left.
    passes: &'static [Alternatives],
    /// Whether a word that is a token stays whole, whatever the merges say.
    pub ignores_merges: bool,
    /// Whether texts begin with the beginning-of-text token, if the file does not say.
    pub adds_bos: bool,
}

impl Words {
    /// The way of this name.
    pub fn of(name: &str) -> Option<Self> {
        ALL.iter().find(|words| words.names.contains(&name)).copied()
    }

    /// The words of a text.
    pub fn split<'t>(&self, text: &'t str) -> Vec<&'t str> {
        let mut words = vec![text];
        for pass in self.passes {
            let mut cut = Vec::with_capacity(words.len());
            for word in words {
                split(pass, word, &mut |word| cut.push(word));
            }
            words = cut;
        }
        words
    }
}

const PLAIN: Words = Words { names: &[], passes: &[], ignores_merges: false, adds_bos: false };

/// The name that stands for a file without one.
pub const DEFAULT: &str = "default";

pub(super) const ALL: &[Words] = &[
    Words { names: &[DEFAULT], passes: &[SYMBOLS, GPT2, NUMBERS, THREE_DIGITS], ..PLAIN },
    Words {
        names: &[
            "gpt-2",
            "phi-2",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "modern-bert",
            "mpt",
            "olmo",
            "jais",
            "trillion",
            "granite-docling",
            "exaone4",
            "jina-es",
            "jina-de",
            "jina-v1-en",
            "jina-v2-es",
            "jina-v2-de",
            "jina-v2-code",
            "roberta-bpe",
        ],
        passes: &[GPT2],
        ..PLAIN
    },
    Words {
        names: &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
        ],
        passes: &[LLAMA3],
        ignores_merges: true,
        adds_bos: true,
    },
    Words { names: &["dbrx", "smaug-bpe", "chatglm-bpe"], passes: &[LLAMA3], ..PLAIN },
    Words { names: &["glm4"], passes: &[LLAMA3], ignores_merges: true, ..PLAIN },
    Words {
        names: &["qwen2", "deepseek-r1-qwen", "kormo", "stablelm2", "hunyuan", "megrez", "grok-2"],
        passes: &[QWEN2],
        ..PLAIN
    },
    Words {
        names: &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"],
        passes: &[NUMBER, GPT2],
        ..PLAIN
    },
    Words { names: &["tekken"], passes: &[TEKKEN], ignores_merges: true, adds_bos: true },
    Words { names: &["gpt-4o", "llama4", "kanana2"], passes: &[GPT_4O], ..PLAIN },
    Words { names: &["falcon"], passes: &[SYMBOLS_AND_ACCENT, GPT2, THREE_DIGITS], ..PLAIN },
    Words {
        names: &["deepseek-coder"],
        passes: &[LINE_END, SPACED_LETTERS, SPACED_PUNCTUATION, IDEOGRAPHS, NUMBER],
        ..PLAIN
    },
    Words {
        names: &["deepseek-v3", "hunyuan-dense"],
        passes: &[THREE_NUMBERS, IDEOGRAPHS_AND_KANA, DEEPSEEK_V3],
        ..PLAIN
    },
];

const MANY: usize = usize::MAX;

const GPT2: Alternatives = &[
    &[Text("'s")],
    &[Text("'t")],
    &[Text("'re")],
    &[Text("'ve")],
    &[Text("'m")],
    &[Text("'ll")],
    &[Text("'d")],
    &[Take(is_space_character, 0, 1), Take(is_letter, 1, MANY)],
    &[Take(is_space_character, 0, 1), Take(is_number, 1, MANY)],
    &[Take(is_space_character, 0, 1), Take(is_other, 1, MANY)],
    &[Take(is_white, 1, MANY), NotBefore(is_not_white)],
    &[Take(is_white, 1, MANY)],
];

const CONTRACTIONS: Alternatives = &[
    &[AnyCase("'s")],
    &[AnyCase("'t")],
    &[AnyCase("'re")],
    &[AnyCase("'ve")],
    &[AnyCase("'m")],
    &[AnyCase("'ll")],
    &[AnyCase("'d")],
];

const WORD: &[Step] = &[Take(is_word_start, 0, 1), Take(is_letter, 1, MANY)];

/// Words that begin anew at a capital after small letters.
const CASED_WORD: Alternatives = &[
    &[
        Take(is_word_start, 0, 1),
        Take(is_letter_but_small, 0, MANY),
        Take(is_letter_but_capital, 1, MANY),
    ],
    &[
        Take(is_word_start, 0, 1),
        Take(is_letter_but_small, 1, MANY),
        Take(is_letter_but_capital, 0, MANY),
    ],
];

const SIGNS: &[Step] =
    &[Take(is_space_character, 0, 1), Take(is_other, 1, MANY), Take(is_line_end, 0, MANY)];
const SIGNS_AND_SLASHES: &[Step] =
    &[Take(is_space_character, 0, 1), Take(is_other, 1, MANY), Take(is_line_end_or_slash, 0, MANY)];

const WHITE: Alternatives = &[
    &[Take(is_white, 0, MANY), Take(is_line_end, 1, MANY)],
    &[Take(is_white, 1, MANY), NotBefore(is_not_white)],
    &[Take(is_white, 1, MANY)],
];

const LLAMA3: Alternatives =
    &[&[OneOf(CONTRACTIONS)], WORD, THREE_NUMBERS[0], SIGNS, &[OneOf(WHITE)]];

const QWEN2: Alternatives = &[&[OneOf(CONTRACTIONS)], WORD, NUMBER[0], SIGNS, &[OneOf(WHITE)]];

const TEKKEN: Alternatives = &[&[OneOf(CASED_WORD)], NUMBER[0], SIGNS_AND_SLASHES, &[OneOf(WHITE)]];

const GPT_4O: Alternatives = &[
    &[OneOf(CASED_WORD), Maybe(CONTRACTIONS)],
    THREE_NUMBERS[0],
    SIGNS_AND_SLASHES,
    &[OneOf(WHITE)],
];

const DEEPSEEK_V3: Alternatives = &[
    &[Take(is_ascii_punctuation, 1, 1), Take(is_ascii_letter, 1, MANY)],
    &[Take(is_v3_word_start, 0, 1), Take(is_letter_or_mark, 1, MANY)],
    &[
        Take(is_space_character, 0, 1),
        Take(is_punctuation_or_symbol, 1, MANY),
        Take(is_line_end, 0, MANY),
    ],
    &[OneOf(WHITE)],
];

const SYMBOLS: Alternatives = &[&[Take(is_symbol, 1, MANY)]];
const SYMBOLS_AND_ACCENT: Alternatives = &[&[Take(is_symbol_or_accent, 1, MANY)]];
const NUMBER: Alternatives = &[&[Take(is_number, 1, 1)]];
const NUMBERS: Alternatives = &[&[Take(is_number, 1, MANY)]];
const THREE_NUMBERS: Alternatives = &[&[Take(is_number, 1, 3)]];
const THREE_DIGITS: Alternatives = &[&[Take(is_ascii_digit, 3, 3)]];
const LINE_END: Alternatives = &[&[Take(is_line_end, 1, 1)]];
const SPACED_LETTERS: Alternatives = &[&[Take(is_white, 0, 1), Take(is_letter, 1, MANY)]];
const SPACED_PUNCTUATION: Alternatives = &[&[Take(is_white, 0, 1), Take(is_punctuation, 1, MANY)]];
const IDEOGRAPHS: Alternatives = &[&[Take(is_ideograph, 1, MANY)]];
const IDEOGRAPHS_AND_KANA: Alternatives = &[&[Take(is_ideograph_or_kana, 1, MANY)]];

fn is_letter(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_alphabetic();
    }
    matches!(
        get_general_category(c),
        Category::UppercaseLetter
            | Category::LowercaseLetter
            | Category::TitlecaseLetter
            | Category::ModifierLetter
            | Category::OtherLetter
    )
}

fn is_number(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_digit();
    }
    matches!(
        get_general_category(c),
        Category::DecimalNumber | Category::LetterNumber | Category::OtherNumber
    )
}

fn is_mark(c: char) -> bool {
    matches!(
        get_general_category(c),
        Category::NonspacingMark | Category::SpacingMark | Category::EnclosingMark
    )
}

fn is_punctuation(c: char) -> bool {
    matches!(
        get_general_category(c),
        Category::ConnectorPunctuation
            | Category::DashPunctuation
            | Category::OpenPunctuation
            | Category::ClosePunctuation
            | Category::InitialPunctuation
            | Category::FinalPunctuation
            | Category::OtherPunctuation
    )
}

fn is_punctuation_or_symbol(c: char) -> bool {
    is_punctuation(c)
        || matches!(
            get_general_category(c),
            Category::MathSymbol
                | Category::CurrencySymbol
                | Category::ModifierSymbol
                | Category::OtherSymbol
        )
}

fn is_white(c: char) -> bool {
    c.is_whitespace()
}

fn is_not_white(c: char) -> bool {
    !c.is_whitespace()
}

fn is_space_character(c: char) -> bool {
    c == ' '
}

/// Neither white space nor letter nor number.
fn is_other(c: char) -> bool {
    !(is_white(c) || is_letter(c) || is_number(c))
}

fn is_line_end(c: char) -> bool {
    matches!(c, '\r' | '\n')
}

fn is_line_end_or_slash(c: char) -> bool {
    is_line_end(c) || c == '/'
}

/// What may stand before the letters of a word: a space or a sign.
fn is_word_start(c: char) -> bool {
    !(is_line_end(c) || is_letter(c) || is_number(c))
}

fn is_v3_word_start(c: char) -> bool {
    !(is_line_end(c) || is_letter(c) || is_punctuation_or_symbol(c))
}

fn is_letter_or_mark(c: char) -> bool {
    is_letter(c) || is_mark(c)
}

fn is_letter_but_small(c: char) -> bool {
    is_letter(c) && !c.is_ascii_lowercase()
}

fn is_letter_but_capital(c: char) -> bool {
    is_letter(c) && !c.is_ascii_uppercase()
}

fn is_ascii_letter(c: char) -> bool {
    c.is_ascii_alphabetic()
}

fn is_ascii_digit(c: char) -> bool {
    c.is_ascii_digit()
}

fn is_ascii_punctuation(c: char) -> bool {
    c.is_ascii_punctuation()
}

fn is_symbol(c: char) -> bool {
    is_punctuation(c) || matches!(c, '$' | '+' | '<' | '=' | '>' | '^' | '~' | '|')
}

fn is_symbol_or_accent(c: char) -> bool {
    is_symbol(c) || c == '`'
}

fn is_ideograph(c: char) -> bool {
    matches!(c, '\u{800}'..='\u{9fa5}' | '\u{ac00}'..='\u{d7ff}')
}

fn is_ideograph_or_kana(c: char) -> bool {
    matches!(c, '\u{4e00}'..='\u{9fa5}' | '\u{3040}'..='\u{30ff}')
}
