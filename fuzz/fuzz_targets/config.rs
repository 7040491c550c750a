//! Reads any text as `anchorite.toml`, and any as boot arguments.
#![no_main]

use fuzz::limits::Limits;
use kernel::llm::sampling::MAX_LAST_N;
use kernel::runtime::entry::args::split;
use kernel::settings::{Config, ConfigError, Place, SEPARATOR};
use libfuzzer_sys::fuzz_target;

/// The parser keeps what is wrong with a broken file as well, all of it.
const LIMITS: Limits = Limits { memory: (2048, 128 << 10), ns_per_byte: 50_000 };

// The first line is the boot arguments, the others are the file.
fuzz_target!(|text: &[u8]| {
    let end = text.iter().position(|&byte| byte == b'\n').unwrap_or(text.len());
    let (line, file) = text.split_at(end);
    // The reader of files takes nothing that is no UTF-8, boot arguments are any bytes.
    let file = String::from_utf8_lossy(file.get(1..).unwrap_or_default());
    LIMITS.hold(text.len(), || arguments(toml(&file), line));
});

fn toml(file: &str) -> Config {
    match Config::from_toml(file) {
        Ok(config) => {
            check(&config);
            config
        }
        Err(error) => {
            let lines = 1 + file.matches('\n').count();
            assert!(matches!(error.place, Place::Line(line) if (1..=lines).contains(&line)));
            check_error(&error);
            Config::default()
        }
    }
}

fn arguments(mut config: Config, line: &[u8]) {
    let words = match split(line) {
        Ok(words) => words,
        Err(open) => {
            assert_eq!(line.get(open.at), Some(&b'"'));
            return;
        }
    };
    // Between quotes each word is what it was.
    let quoted: Vec<Vec<u8>> = words.iter().map(|word| quote(word)).collect();
    assert_eq!(split(quoted.join(&b' ')).as_ref(), Ok(&words));
    let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    let before = config.clone();
    match config.apply_arguments(words.iter().copied()) {
        Ok(()) => {
            check(&config);
            // What stands before the separator is someone else's.
            if let Some(at) = words.iter().position(|&word| word == SEPARATOR.as_bytes()) {
                let mut alone = before;
                alone.apply_arguments(words[at + 1..].iter().copied()).unwrap();
                assert_eq!(alone, config);
            }
        }
        Err(error) => {
            let Place::BootArgument(word) = &error.place else { panic!("{error}") };
            assert!(words.iter().any(|given| String::from_utf8_lossy(given) == *word));
            check_error(&error);
        }
    }
}

fn quote(word: &[u8]) -> Vec<u8> {
    let escaped = word.iter().flat_map(|&byte| match byte {
        b'"' | b'\\' => vec![b'\\', byte],
        byte => vec![byte],
    });
    [b'"'].into_iter().chain(escaped).chain([b'"']).collect()
}

fn check_error(error: &ConfigError) {
    assert!(!error.to_string().is_empty() && !error.hint().is_empty());
}

/// What is accepted can be used.
fn check(config: &Config) {
    let sampling = config.sampling(|| 7);
    assert_eq!(sampling.check(), Ok(()), "{config:?}");
    assert!(sampling.penalty_last_n <= MAX_LAST_N);
    assert!(config.context != Some(0) && config.threads != Some(0), "{config:?}");
    assert!(config.dry_breakers.iter().all(|text| !text.is_empty()), "{config:?}");
    let _ = config.context_options();
}
