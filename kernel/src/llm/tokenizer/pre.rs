//! The pre-tokenisers of byte-level BPE, by name (`tokenizer.ggml.pre`).
//!
//! Source: the regular expressions in llama.cpp's `llama-vocab.cpp`, with the meaning that its
//! `unicode.cpp` gives them: `[^a-z]` and `[^A-Z]` know no capitals beyond ASCII, `\s` is Unicode's
//! white space. Pre-tokenisers that llama.cpp has and this list has not serve models of other
//! kinds.

use super::class::*;
use super::split::{Rule, Run, Stage};

/// A pre-tokeniser: how texts are cut into words, and related defaults.
pub struct PreTokenizer {
    /// Its names.
    names: &'static [&'static str],
    /// The stages of the cutting.
    pub stages: &'static [Stage],
    /// Whether a word that is a token is not merged from its bytes.
    pub ignore_merges: bool,
    /// Whether texts begin with the `bos` token, unless the file says otherwise.
    pub add_bos: bool,
    /// Whether there is a `bos` token that the file does not name.
    pub default_bos: bool,
}

impl PreTokenizer {
    const fn new(names: &'static [&'static str], stages: &'static [Stage]) -> Self {
        PreTokenizer { names, stages, ignore_merges: false, add_bos: false, default_bos: true }
    }

    /// The pre-tokeniser of this name.
    pub fn named(name: &str) -> Option<&'static PreTokenizer> {
        PRE_TOKENIZERS.iter().find(|pre| pre.names.contains(&name))
    }

    /// All names.
    #[cfg(test)]
    pub fn names() -> impl Iterator<Item = &'static str> {
        PRE_TOKENIZERS.iter().flat_map(|pre| pre.names).copied()
    }
}

/// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
const GPT2: Stage = Stage::Rules(&[
    Rule::Contraction,
    Run::of(letter).after(blank).rule(),
    Run::of(number).after(blank).rule(),
    Run::of(sign).after(blank).rule(),
    Rule::SpacesBeforeLast,
    Rule::Spaces,
]);

/// `[^\r\n\p{L}\p{N}]?\p{L}+`
const WORD: Rule = Run::of(letter).after(lead).rule();

/// ` ?[^\s\p{L}\p{N}]+[\r\n]*`
const SIGNS: Rule = Run::of(sign).after(blank).then(line_end).rule();

/// ` ?[^\s\p{L}\p{N}]+[\r\n/]*`
const SIGNS_SLASH: Rule = Run::of(sign).after(blank).then(line_end_or_slash).rule();

/// `\p{N}`
const DIGIT: Rule = Run::of(number).times(1, 1).rule();

/// `\p{N}{1,3}`
const THREE_DIGITS: Rule = Run::of(number).times(1, 3).rule();

/// `\p{N}+`
const DIGITS: Rule = Run::of(number).rule();

/// `\p{N}`
const SINGLE_DIGITS: Stage = Stage::Rules(&[DIGIT]);

/// `[0-9][0-9][0-9]`
const ASCII_TRIPLES: Stage = Stage::Rules(&[Run::of(digit).times(3, 3).rule()]);

/// `[\r\n]`
const LINE_END: Stage = Stage::Rules(&[Run::of(line_end).times(1, 1).rule()]);

/// The forms of Llama 3's words, with another form for numbers:
/// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|NUMBERS| ?[^\s\p{L}\p{N}]+[\r\n]*|`
/// `\s*[\r\n]+|\s+(?!\S)|\s+`
const fn llama3(numbers: Rule) -> [Rule; 7] {
    [
        Rule::AnyCaseContraction,
        WORD,
        numbers,
        SIGNS,
        Rule::LineEnds,
        Rule::SpacesBeforeLast,
        Rule::Spaces,
    ]
}

/// `\p{N}{1,3}` for numbers.
const LLAMA3: Stage = Stage::Rules(&llama3(THREE_DIGITS));

/// `\p{N}` for numbers.
const QWEN2: Stage = Stage::Rules(&llama3(DIGIT));

/// Qwen 2's, with marks in words and not among signs.
const QWEN35: Stage = Stage::Rules(&[
    Rule::AnyCaseContraction,
    Run::of(letter_or_mark).after(lead).rule(),
    DIGIT,
    Run::of(sign_but_mark).after(blank).then(line_end).rule(),
    Rule::LineEnds,
    Rule::SpacesBeforeLast,
    Rule::Spaces,
]);

/// Qwen 2's without contractions.
const UFAKZEKA: Stage =
    Stage::Rules(&[WORD, DIGIT, SIGNS, Rule::LineEnds, Rule::SpacesBeforeLast, Rule::Spaces]);

/// Qwen 2's with no line ends after signs.
const SEED_CODER: Stage = Stage::Rules(&[
    Rule::AnyCaseContraction,
    WORD,
    DIGIT,
    Run::of(sign).after(blank).rule(),
    Rule::LineEnds,
    Rule::SpacesBeforeLast,
    Rule::Spaces,
]);

/// Words by their capitals, then `\p{N}`, ` ?[^\s\p{L}\p{N}]+[\r\n/]*` and spaces.
const TEKKEN: Stage = Stage::Rules(&[
    Rule::CasedWord { lead, contraction: false },
    DIGIT,
    SIGNS_SLASH,
    Rule::LineEnds,
    Rule::SpacesBeforeLast,
    Rule::Spaces,
]);

/// tekken's with contractions at the ends of words, and `\p{N}{1,3}`.
const GPT4O: Stage = Stage::Rules(&[
    Rule::CasedWord { lead, contraction: true },
    THREE_DIGITS,
    SIGNS_SLASH,
    Rule::LineEnds,
    Rule::SpacesBeforeLast,
    Rule::Spaces,
]);

/// ``[!-/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|``
/// `\s*[\r\n]+|\s+(?!\S)|\s+`
const DEEPSEEK3: Stage = Stage::Rules(&[
    Run::of(ascii_letter).only_after(ascii_sign).rule(),
    Run::of(letter_or_mark).after(lead_but_sign).rule(),
    Run::of(punctuation_or_symbol).after(blank).then(line_end).rule(),
    Rule::LineEnds,
    Rule::SpacesBeforeLast,
    Rule::Spaces,
]);

/// ` ?[^(\s|.,!?…。，、।۔،)]+`
const BLOOM: Stage = Stage::Rules(&[Run::of(bloom_word).after(blank).rule()]);

const PRE_TOKENIZERS: &[PreTokenizer] = &[
    PreTokenizer::new(
        &["default"],
        &[
            Stage::Rules(&[Run::of(default_sign).rule()]),
            GPT2,
            Stage::Rules(&[DIGITS]),
            ASCII_TRIPLES,
        ],
    ),
    PreTokenizer::new(
        &[
            "gpt-2",
            "phi-2",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "mpt",
            "olmo",
            "jais",
            "trillion",
            "granite-docling",
            "exaone4",
        ],
        &[GPT2],
    ),
    PreTokenizer {
        ignore_merges: true,
        add_bos: true,
        ..PreTokenizer::new(
            &[
                "llama-bpe",
                "llama3",
                "llama-v3",
                "falcon3",
                "falcon-h1",
                "pixtral",
                "midm-2.0",
                "lfm2",
            ],
            &[LLAMA3],
        )
    },
    PreTokenizer::new(&["dbrx", "smaug-bpe"], &[LLAMA3]),
    PreTokenizer { default_bos: false, ..PreTokenizer::new(&["chatglm-bpe"], &[LLAMA3]) },
    PreTokenizer {
        default_bos: false,
        ignore_merges: true,
        ..PreTokenizer::new(&["glm4", "glm5"], &[LLAMA3])
    },
    PreTokenizer {
        ignore_merges: true,
        ..PreTokenizer::new(
            &["minicpm5"],
            &[Stage::Rules(&[THREE_DIGITS]), Stage::Rules(&llama3(DIGITS))],
        )
    },
    PreTokenizer::new(
        &[
            "qwen2",
            "deepseek-r1-qwen",
            "kormo",
            "f2llmv2",
            "megrez",
            "stablelm2",
            "hunyuan",
            "solar-open",
            "grok-2",
            "bailingmoe",
            "bailingmoe2",
            "llada-moe",
        ],
        &[QWEN2],
    ),
    PreTokenizer::new(&["qwen35"], &[QWEN35]),
    PreTokenizer::new(
        &["laguna"],
        &[Stage::Rules(&[Run::of(no_newline).rule(), Run::of(newline).rule()]), QWEN2],
    ),
    PreTokenizer::new(&["ufakzeka"], &[UFAKZEKA]),
    PreTokenizer::new(&["seed-coder"], &[SEED_CODER]),
    PreTokenizer {
        ignore_merges: true,
        add_bos: true,
        ..PreTokenizer::new(&["tekken"], &[TEKKEN])
    },
    PreTokenizer::new(&["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"], &[GPT4O]),
    PreTokenizer::new(
        &[
            "starcoder",
            "refact",
            "command-r",
            "smollm",
            "codeshell",
            "exaone",
            "minerva-7b",
            "mellum2",
        ],
        &[SINGLE_DIGITS, GPT2],
    ),
    PreTokenizer::new(
        &["falcon"],
        &[Stage::Rules(&[Run::of(falcon_sign).rule()]), GPT2, ASCII_TRIPLES],
    ),
    PreTokenizer::new(
        &["deepseek-llm"],
        &[
            LINE_END,
            Stage::Rules(&[Run::of(deepseek_letter).after(space).rule()]),
            Stage::Rules(&[Run::of(deepseek_sign).after(space).rule()]),
            Stage::SpacesAtEnd,
            Stage::Rules(&[Run::of(deepseek_cjk).rule()]),
            Stage::Rules(&[DIGITS]),
        ],
    ),
    PreTokenizer::new(
        &["deepseek-coder"],
        &[
            LINE_END,
            Stage::Rules(&[Run::of(letter).after(space).rule()]),
            Stage::Rules(&[Run::of(deepseek_coder_sign).after(space).rule()]),
            Stage::Rules(&[Run::of(deepseek_cjk).rule()]),
            SINGLE_DIGITS,
        ],
    ),
    PreTokenizer::new(
        &["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"],
        &[Stage::Rules(&[THREE_DIGITS]), Stage::Rules(&[Run::of(deepseek3_cjk).rule()]), DEEPSEEK3],
    ),
    PreTokenizer::new(&["bloom", "gpt3-finnish", "poro-chat"], &[BLOOM]),
    PreTokenizer::new(&["viking"], &[BLOOM, SINGLE_DIGITS]),
];
