//! The program from its arguments to its exit status.

#![forbid(unsafe_code)]

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use serde_json::value::RawValue;

use crate::app::bench;
use crate::app::chat::chat;
use crate::app::error::Error;
use crate::app::generate::generate;
use crate::app::load;
use crate::app::model::{is_verbose, load_into};
use crate::app::os;
use crate::app::output::emit;
use crate::app::perplexity::perplexity;
use crate::app::selftest::SelfTests;
use crate::app::server::api::schema;
use crate::app::server::serve;
use crate::app::thread_pool::ThreadPool;
use crate::app::timeout::TIMEOUT_S;
#[cfg(target_os = "none")]
use crate::backend::{self, Platform};
use crate::backend::{BackendOptions, TransformerBackend};
use crate::llm;
use crate::llm::workers::Workers;
use crate::report::Event;
use crate::settings::{AtExit, Config, DEFAULT_PROMPT, GENERATE, Grammar, MAX_TEXT, Mode, Prompt};

/// The configuration wants the machine restarted at the end.
static REBOOTS: AtomicBool = AtomicBool::new(false);

/// Whether the configuration wants the machine restarted at the end. `false` until the
/// configuration is read.
pub fn reboots_at_exit() -> bool {
    REBOOTS.load(Ordering::Relaxed)
}

/// Runs the mode that configuration and boot arguments choose; returns the exit status.
pub fn run<'a, A: AsRef<[u8]> + ?Sized + 'a>(arguments: impl IntoIterator<Item = &'a A>) -> i32 {
    match try_run(arguments) {
        Ok(()) => 0,
        Err(error) => {
            emit(&Event::Error(error.fault()));
            1
        }
    }
}

fn try_run<'a, A: AsRef<[u8]> + ?Sized + 'a>(
    arguments: impl IntoIterator<Item = &'a A>,
) -> Result<(), Error> {
    let file = load::read_text("/anchorite.toml", MAX_TEXT)?;
    let mut config = Config::from_toml(file.as_deref().unwrap_or_default())?;
    let arguments: Vec<&A> = arguments.into_iter().collect();
    config.apply_arguments(arguments.iter().copied())?;
    config.refuse_unused(arguments)?;
    log::set_max_level(config.log);
    REBOOTS.store(config.at_exit == AtExit::Reboot, Ordering::Relaxed);

    let cores = os::cores();
    let threads = config.threads.unwrap_or(cores);
    if threads > cores {
        log::warn!("threads = {threads}, but there are {cores} cores: so many threads run");
    }
    let pool: &'static ThreadPool = Box::leak(Box::new(ThreadPool::new(threads, TIMEOUT_S)));
    #[cfg(target_os = "none")]
    backend::install(Platform { workers: pool, now_us: os::now_us, load: load::for_backend });
    if config.mode == Mode::Test {
        return test(&config, pool);
    }
    if config.mode == Mode::Serve {
        return serve(&config, pool);
    }
    let path = load::choose_model(config.model.as_deref())?;
    if config.mode == Mode::Bench {
        bench::disk(&path)?;
    }
    let mut backend = start(&path, &config, pool)?;
    backend.set_parse_special(config.parses_special());
    if GENERATE.contains(&config.mode) {
        backend.set_grammar(grammar(&config)?.as_deref())?;
    }
    match config.mode {
        Mode::Generate => {
            backend.set_cut_prompt(config.cut_prompt);
            generate(&mut backend, &prompt(&config)?, config.max_tokens)
        }
        Mode::Perplexity => perplexity(&mut backend, &prompt(&config)?),
        Mode::Chat => {
            let first = match config.prompt {
                Prompt::Unset => None,
                _ => Some(prompt(&config)?),
            };
            chat(&mut backend, &path, &config, pool, first.as_deref())
        }
        Mode::Bench => bench::engine(&mut backend, &prompt(&config)?, config.max_tokens),
        // Handled above.
        Mode::Serve | Mode::Test => Ok(()),
    }
}

/// Tests the image, then the model if the disk has one.
fn test(config: &Config, pool: &'static ThreadPool) -> Result<(), Error> {
    let mut tests = SelfTests::new(&config.tests);
    tests.run_engine(pool);
    if tests.want_model() {
        match load::choose_model(config.model.as_deref()) {
            Err(Error::NoModel { .. }) => log::warn!("there is no model, so that none is tested"),
            Err(error) => return Err(error),
            Ok(path) => {
                tests.run_backend(&path);
                tests.run_model(&mut start(&path, config, pool)?, pool);
            }
        }
    }
    tests.finish()
}

/// Loads the model at a path of the disk into a new backend, and reports the model.
fn start(
    path: &str,
    config: &Config,
    pool: &'static dyn Workers,
) -> Result<TransformerBackend, Error> {
    let mut backend = TransformerBackend::with_options(BackendOptions {
        context: config.context_options(),
        workers: pool,
        now_us: os::now_us,
    });
    backend.set_verbose(is_verbose(config));
    backend.set_sampling_config(config.sampling(os::entropy));
    backend.set_dry_breakers(&config.dry_breakers);
    load_into(&mut backend, path, config, pool)?;
    Ok(backend)
}

/// The configured grammar of answers, in GBNF.
///
/// # Errors
/// The JSON schema is malformed.
fn grammar(config: &Config) -> Result<Option<String>, Error> {
    const NAME: &str = "json_schema";
    let invalid = |what| Error::Engine(llm::Error::InvalidConfig { what });
    match &config.grammar {
        Grammar::None => Ok(None),
        Grammar::Gbnf(text) => Ok(Some(text.clone())),
        Grammar::JsonSchema(text) => {
            let value: &RawValue = serde_json::from_str(text)
                .map_err(|error| invalid(format!("`{NAME}`: {error}")))?;
            let grammar = schema::grammar(NAME, value);
            grammar.map(Some).map_err(|error| invalid(error.message))
        }
    }
}

/// The text of the configured prompt.
///
/// A newline at the end of a file is not part of the prompt, as with llama.cpp's `-f`: editors add
/// such a newline.
fn prompt(config: &Config) -> Result<alloc::borrow::Cow<'_, str>, Error> {
    match &config.prompt {
        Prompt::Unset => Ok(DEFAULT_PROMPT.into()),
        Prompt::Text(text) => Ok(text.into()),
        Prompt::File(path) => {
            let path = format!("/{}", path.trim_start_matches('/'));
            match load::read_text(&path, MAX_TEXT)? {
                Some(mut text) => {
                    if text.ends_with('\n') {
                        text.pop();
                    }
                    Ok(text.into())
                }
                None => Err(Error::Unreadable { path, why: "is not on the model disk" }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_takes_every_setting_that_the_configuration_takes() {
        let check = |arguments: &[&str]| {
            let mut config = Config::default();
            config.apply_arguments(arguments.iter().copied()).unwrap();
            config.sampling(|| 1).check()
        };
        for (key, values) in [
            ("temperature", &["0", "1e-45", "100"][..]),
            ("top_k", &["0", "1", "4294967295"]),
            ("top_p", &["0", "1e-45", "0.5", "1"]),
            ("min_p", &["0", "1e-45", "1"]),
            ("typical_p", &["0", "1e-45", "1"]),
            ("repeat_penalty", &["0.01", "100"]),
            ("frequency_penalty", &["-100", "100"]),
            ("presence_penalty", &["-100", "100"]),
            ("penalty_last_n", &["0", "4096"]),
            ("dry_multiplier", &["0", "1000"]),
            ("dry_base", &["1", "1000"]),
            ("dry_allowed_length", &["0", "4096"]),
            ("dry_penalty_last_n", &["0", "4096"]),
            ("top_n_sigma", &["0", "1e-45", "100"]),
            ("xtc_probability", &["0", "1"]),
            ("xtc_threshold", &["0", "1"]),
            ("mirostat", &["0", "2"]),
            ("logit_bias", &["", "0:-inf,4294967295:1000,7:-1000"]),
            ("seed", &["0", "18446744073709551615"]),
        ] {
            for value in values {
                assert_eq!(check(&[&format!("{key}={value}")]), Ok(()), "{key}={value}");
            }
        }
        for (tau, eta) in [("0", "0"), ("100", "1")] {
            let mirostat = [&format!("mirostat_tau={tau}")[..], &format!("mirostat_eta={eta}")];
            assert_eq!(check(&["mirostat=2", mirostat[0], mirostat[1]]), Ok(()));
        }
    }
}
