//! Generates text with the engine on this computer:
//!
//!     cargo run -p kernel --release --example generate -- test_models/tiny.gguf "Once upon a time"

#![deny(clippy::print_stdout, clippy::print_stderr)]

use std::ops::ControlFlow;
use std::process::ExitCode;
use std::str::FromStr;

use host_io::console;
use kernel::backend::host::{ThreadPool, now_us};
use kernel::backend::{
    BackendOptions, ContextOptions, LoadError, Perplexity, Progress, SamplingConfig,
    TransformerBackend,
};
use kernel::llm;

const HELP: &str = "\
Generates text from a GGUF model.

Usage: generate [OPTIONS] MODEL PROMPT

  --tokens N        tokens to generate at most (128)
  --context N       positions in the KV cache (256, or the model's own if less)
  --kv-cache TYPE   format of the KV cache: f16, f32 or q8_0 (f16)
  --context-shift   when the context is full, forget half of it and go on
  --keep N          tokens of the prompt that --context-shift never forgets; -1: all (0)
  --temperature T   0 always takes the best token (0)
  --top-k K         keep the K best candidates; 0 keeps all (40)
  --top-p P         keep the best candidates that reach this probability (0.95)
  --min-p P         keep those of at least this share of the best one's probability (0.05)
  --repeat-penalty X  divide the logits of the last 64 tokens by this (1)
  --seed S          seed of the draw (0)
  --threads N       threads (all cores)
  --ignore-end      go on after the end of the text
  --perplexity      PROMPT is a text file: measure how well the model predicts it
  --special         find control tokens in the prompt by their names
  --check           run the kernels' self-tests first
  --verbose         log the tensors and the best candidates of each step
  --help            this text
";

struct Arguments {
    model: String,
    prompt: String,
    tokens: usize,
    context: ContextOptions,
    sampling: SamplingConfig,
    threads: usize,
    ignore_end: bool,
    perplexity: bool,
    special: bool,
    check: bool,
    verbose: bool,
}

fn value<T: FromStr>(option: &str, text: Option<String>) -> Result<T, String> {
    let text = text.ok_or_else(|| format!("{option} needs a value"))?;
    text.parse().map_err(|_| format!("{option} cannot be `{text}`"))
}

/// `None` if help was asked for.
fn parse(mut words: impl Iterator<Item = String>) -> Result<Option<Arguments>, String> {
    let mut arguments = Arguments {
        model: String::new(),
        prompt: String::new(),
        tokens: 128,
        context: ContextOptions::default(),
        sampling: SamplingConfig { temperature: 0.0, ..SamplingConfig::creative() },
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        ignore_end: false,
        perplexity: false,
        special: false,
        check: false,
        verbose: false,
    };
    let mut positional = Vec::new();
    while let Some(word) = words.next() {
        let option = word.as_str();
        match option {
            "--help" | "-h" => return Ok(None),
            "--tokens" => arguments.tokens = value(option, words.next())?,
            "--context" => arguments.context.n_ctx = Some(value(option, words.next())?),
            "--context-shift" => arguments.context.context_shift = true,
            "--keep" => {
                let n: i64 = value(option, words.next())?;
                let all = (n == -1).then_some(usize::MAX);
                let keep = all.or(usize::try_from(n).ok());
                arguments.context.keep = keep.ok_or(format!("--keep cannot be `{n}`"))?;
            }
            "--kv-cache" => arguments.context.kv_cache = value(option, words.next())?,
            "--temperature" => arguments.sampling.temperature = value(option, words.next())?,
            "--top-k" => arguments.sampling.top_k = value(option, words.next())?,
            "--top-p" => arguments.sampling.top_p = value(option, words.next())?,
            "--min-p" => arguments.sampling.min_p = value(option, words.next())?,
            "--repeat-penalty" => arguments.sampling.repeat_penalty = value(option, words.next())?,
            "--seed" => arguments.sampling.seed = value(option, words.next())?,
            "--threads" => arguments.threads = value(option, words.next())?,
            "--ignore-end" => arguments.ignore_end = true,
            "--perplexity" => arguments.perplexity = true,
            "--special" => arguments.special = true,
            "--check" => arguments.check = true,
            "--verbose" => arguments.verbose = true,
            "--" => positional.extend(words.by_ref()),
            _ if option.starts_with("--") => return Err(format!("there is no option {option}")),
            _ => positional.push(word),
        }
    }
    let [model, prompt] = <[String; 2]>::try_from(positional)
        .map_err(|words| format!("MODEL and PROMPT are needed, {} words given", words.len()))?;
    if arguments.threads == 0 {
        return Err("--threads cannot be `0`".into());
    }
    Ok(Some(Arguments { model, prompt, ..arguments }))
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
    let start_us = now_us();
    let mut backend = TransformerBackend::with_options(BackendOptions {
        context: arguments.context,
        workers: ThreadPool::leaked(arguments.threads),
        now_us,
    });
    backend.set_verbose(arguments.verbose);
    backend.set_sampling_config(arguments.sampling);
    backend.set_ignore_end(arguments.ignore_end);
    backend.set_parse_special(arguments.special);
    let message = |error: llm::Error| match llm::remedy(&error) {
        Some(instead) => format!("{}: {error}: {instead}", arguments.model),
        None => format!("{}: {error}", arguments.model),
    };
    backend.load_model(&arguments.model).map_err(|error| match error {
        LoadError::Engine(error) => message(error),
        error => error.to_string(),
    })?;
    let load_us = now_us() - start_us;

    if arguments.perplexity {
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
    let result = backend.infer_streaming(&arguments.prompt, arguments.tokens, &mut show);
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
            arguments.threads,
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
        Ok(None) => end(console::print(HELP).map_err(unprinted)),
        Err(error) => {
            console::say(format_args!("error: {error}\n\n{HELP}"));
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
