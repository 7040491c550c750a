//! Generates text with the engine on this computer:
//!
//!     cargo run -p kernel --release --example generate -- test_models/tiny.gguf "Once upon a time"

#![deny(clippy::print_stdout, clippy::print_stderr)]

use std::ops::ControlFlow;
use std::process::ExitCode;

use host_io::console;
use kernel::backend::host::{ThreadPool, now_us};
use kernel::backend::{BackendOptions, LoadError, Perplexity, Progress, TransformerBackend};
use kernel::llm;
use kernel::settings::{Config, Group, KEYS, Key, Mode};

const HELP: &str = "\
Generates text from a GGUF model.

Usage: generate [OPTIONS] MODEL PROMPT

  --ignore-end
        go on after the end of the text
  --perplexity
        PROMPT is a text file: measure how well the model predicts it
  --check
        run the kernels' self-tests first
  --verbose
        log the tensors and the best candidates of each step
  --help
        this text

Settings of Anchorite:

";

struct Arguments {
    model: String,
    prompt: String,
    config: Config,
    ignore_end: bool,
    check: bool,
    verbose: bool,
}

/// The settings of Anchorite that have options here.
fn keys() -> impl Iterator<Item = &'static Key> {
    let has_option =
        |key: &&Key| matches!(key.group, Group::Context | Group::Sampler) || key.name == "threads";
    KEYS.iter().filter(has_option)
}

/// The options of a setting, the first one first.
fn options(key: &Key) -> impl Iterator<Item = String> {
    let flags = [Some(key.flag()), key.other_flag()];
    flags.into_iter().flatten().map(|flag| format!("--{flag}"))
}

fn help() -> String {
    let mut text = HELP.to_owned();
    for key in keys() {
        let value = if key.is_boolean() { "[=false]" } else { " VALUE" };
        let options: Vec<String> = options(key).map(|option| format!("{option}{value}")).collect();
        text += &format!("  {}\n        {}\n", options.join(", "), key.short_help());
    }
    text
}

/// `None` if help was asked for.
fn parse(mut words: impl Iterator<Item = String>) -> Result<Option<Arguments>, String> {
    let (mut ignore_end, mut perplexity, mut check, mut verbose) = (false, false, false, false);
    let mut settings = Vec::new();
    let mut positional = Vec::new();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--help" | "-h" => return Ok(None),
            "--ignore-end" => ignore_end = true,
            "--perplexity" => perplexity = true,
            "--check" => check = true,
            "--verbose" => verbose = true,
            "--" => positional.extend(words.by_ref()),
            option if option.starts_with("--") => {
                let (option, joined) = match option.split_once('=') {
                    Some((option, value)) => (option, Some(value.to_owned())),
                    None => (option, None),
                };
                let key = keys()
                    .find(|key| options(key).any(|its| its == option))
                    .ok_or_else(|| format!("there is no option {option}"))?;
                let value = match joined {
                    Some(value) => value,
                    None if key.is_boolean() => "true".into(),
                    None => words.next().ok_or_else(|| format!("{option} needs a value"))?,
                };
                settings.push(format!("{}={value}", key.name));
            }
            _ => positional.push(word),
        }
    }
    let [model, prompt] = <[String; 2]>::try_from(positional)
        .map_err(|words| format!("MODEL and PROMPT are needed, {} words given", words.len()))?;
    let mode = if perplexity { Mode::Perplexity } else { Mode::Generate };
    let mut config = Config { mode, ..Config::default() };
    let settings = || settings.iter().map(String::as_str);
    config.apply_arguments(settings()).map_err(|error| error.to_string())?;
    config.refuse_unused(settings()).map_err(|error| error.to_string())?;
    Ok(Some(Arguments { model, prompt, config, ignore_end, check, verbose }))
}

/// Shows the engine's log.
struct Stderr;

impl log::Log for Stderr {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        console::say(format_args!("{}: {}", record.level(), record.args()));
    }

    fn flush(&self) {}
}

fn check() -> Result<(), String> {
    for (name, outcome) in llm::self_tests() {
        let detail = outcome.map_err(|error| format!("{name}: {error}"))?;
        console::say(format_args!("{name}: {detail}"));
    }
    Ok(())
}

fn run(arguments: Arguments) -> Result<(), String> {
    if arguments.check {
        check()?;
    }
    let config = &arguments.config;
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = config.threads.unwrap_or(all);
    let start_us = now_us();
    let mut backend = TransformerBackend::with_options(BackendOptions {
        context: config.context_options(),
        workers: ThreadPool::leaked(threads),
        now_us,
    });
    backend.set_verbose(arguments.verbose);
    backend.set_sampling_config(config.sampling(now_us));
    backend.set_dry_breakers(&config.dry_breakers);
    backend.set_ignore_end(arguments.ignore_end);
    backend.set_parse_special(config.parses_special());
    backend.set_cut_prompt(config.cut_prompt);
    let message = |error: llm::Error| match llm::remedy(&error) {
        Some(instead) => format!("{}: {error}: {instead}", arguments.model),
        None => format!("{}: {error}", arguments.model),
    };
    backend.load_model(&arguments.model).map_err(|error| match error {
        LoadError::Engine(error) => message(error),
        error => error.to_string(),
    })?;
    let load_us = now_us() - start_us;

    if config.mode == Mode::Perplexity {
        return perplexity(&mut backend, &arguments.prompt);
    }
    console::print(&arguments.prompt).map_err(unprinted)?;
    let mut fault = None;
    let mut show = |progress: Progress<'_>| {
        let Progress::Text(text) = progress else { return ControlFlow::Continue(()) };
        console::stream(text).unwrap_or_else(|error| {
            fault = Some(error);
            ControlFlow::Break(())
        })
    };
    let result = backend.infer_streaming(&arguments.prompt, config.max_tokens, &mut show);
    let result = result.map_err(message)?;
    fault.map_or_else(|| console::print("\n"), Err).map_err(unprinted)?;
    if let Some(workspace) = backend.workspace() {
        let (model, state) = (workspace.engine().metadata(), workspace.state_shape());
        console::say(format_args!(
            "{}: {} {}, {:.1} M parameters, loaded in {:.3} s; {} kernels, {} threads",
            arguments.model,
            model.architecture,
            model.quantization,
            model.parameters as f64 / 1e6,
            load_us as f64 / 1e6,
            llm::kernels::name(),
            threads,
        ));
        console::say(format_args!(
            "KV cache {} bytes ({}), arena {} bytes ({} used)",
            state.bytes().unwrap_or(0),
            state.kv_cache,
            result.arena_bytes,
            result.arena_peak_bytes
        ));
    }
    console::say(format_args!(
        "{} prompt tokens at {:.1}/s, first token after {:.3} s, {} tokens at {:.1}/s ({:?}, {} context shifts)",
        result.prompt_tokens,
        result.prompt_tokens_per_s,
        result.first_token_us as f64 / 1e6,
        result.tokens_emitted,
        result.tokens_per_s,
        result.stop,
        result.context_shifts,
    ));
    Ok(())
}

fn unprinted(error: std::io::Error) -> String {
    error.to_string()
}

/// Measures the perplexity of a text file, and shows it chunk by chunk.
fn perplexity(backend: &mut TransformerBackend, path: &str) -> Result<(), String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    // As llama.cpp's `-f` has it.
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let result = backend.perplexity(text, &mut |so_far| {
        let (chunks, n_chunks) = (so_far.chunks, so_far.n_chunks);
        console::show(format!("[{chunks}/{n_chunks}] {:.4} ", so_far.perplexity));
        ControlFlow::Continue(())
    });
    console::say("");
    let Perplexity { perplexity, error, tokens, .. } = result.map_err(|error| error.to_string())?;
    let line = format!("perplexity {perplexity:.4} ± {error:.4} over {tokens} tokens");
    console::print_line(line).map_err(unprinted)
}

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)) {
        Ok(Some(arguments)) => {
            if log::set_logger(&Stderr).is_ok() {
                log::set_max_level(if arguments.verbose {
                    log::LevelFilter::Debug
                } else {
                    log::LevelFilter::Warn
                });
            }
            end(run(arguments))
        }
        Ok(None) => end(console::print(help()).map_err(unprinted)),
        Err(error) => {
            console::say(format_args!("error: {error}\n\n{}", help()));
            console::status(2)
        }
    }
}

/// Prints the error, and returns the exit status.
fn end(result: Result<(), String>) -> ExitCode {
    if let Err(error) = &result {
        console::say(format_args!("error: {error}"));
    }
    console::status(result.is_err().into())
}
