//! Reads any text as `anchorite.toml`, and any as boot arguments.
#![no_main]

use fuzz::limits::Limits;
use kernel::app::config::{Config, ConfigError, Place, SEPARATOR};
use kernel::llm::sampling::MAX_LAST_N;
use kernel::runtime::args::split;
use libfuzzer_sys::fuzz_target;

/// The parser keeps what is wrong with a broken file as well, all of it.
const LIMITS: Limits = Limits { memory: (2048, 128 << 10), ns_per_byte: 50_000 };

// The first line is the boot arguments, the others are the file.
fuzz_target!(|text: &str| {
    let (line, file) = text.split_once('\n').unwrap_or((text, ""));
    LIMITS.hold(text.len(), || arguments(toml(file), line));
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

fn arguments(mut config: Config, line: &str) {
    let words = match split(line) {
        Ok(words) => words,
        Err(open) => {
            assert_eq!(line.as_bytes().get(open.at), Some(&b'"'));
            return;
        }
    };
    // Between quotes each word is what it was.
    let quoted: Vec<String> = words.iter().map(|word| quote(word)).collect();
    assert_eq!(split(&quoted.join(" ")).as_ref(), Ok(&words));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let before = config.clone();
    match config.apply_arguments(words.iter().copied()) {
        Ok(()) => {
            check(&config);
            // What stands before the separator is someone else's.
            if let Some(at) = words.iter().position(|&word| word == SEPARATOR) {
                let mut alone = before;
                alone.apply_arguments(words[at + 1..].iter().copied()).unwrap();
                assert_eq!(alone, config);
            }
        }
        Err(error) => {
            let Place::BootArgument(word) = &error.place else { panic!("{error}") };
            assert!(words.contains(&word.as_str()));
            check_error(&error);
        }
    }
}

fn quote(word: &str) -> String {
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
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
