//! Generates text with the engine on this computer:
//!
//!     cargo run -p kernel --release --example generate -- test_models/tiny.gguf "Once upon a time"

use std::io::Write;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use kernel::llm;
use kernel::llm::backend::{
    ContextOptions, ModelBuffer, Options, Perplexity, TransformerBackend, memory_needed, remedy,
    settings_that_fit,
};
use kernel::llm::sampling::SamplingConfig;
use kernel::llm::workers::Workers;

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

/// Threads that wait for jobs.
struct Team {
    count: usize,
    shared: Arc<Shared>,
}

/// A job that lives until `busy` is 0 again.
type Job = &'static (dyn Fn(usize) + Sync);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    news: Condvar,
    done: Condvar,
}

#[derive(Default)]
struct State {
    /// Counts the jobs given out.
    round: u64,
    job: Option<Job>,
    /// Threads that have not finished the present job.
    busy: usize,
}

impl Team {
    fn new(count: usize) -> Team {
        let shared = Arc::new(Shared::default());
        for i in 1..count {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.serve(i));
        }
        Team { count, shared }
    }
}

impl Shared {
    fn serve(&self, i: usize) {
        let mut seen = 0;
        loop {
            let mut state = self.state.lock().expect("no thread panics");
            while state.round == seen {
                state = self.news.wait(state).expect("no thread panics");
            }
            seen = state.round;
            let job = state.job;
            drop(state);
            if let Some(job) = job {
                job(i);
            }
            let mut state = self.state.lock().expect("no thread panics");
            state.busy -= 1;
            if state.busy == 0 {
                self.done.notify_one();
            }
        }
    }
}

impl Workers for Team {
    fn count(&self) -> usize {
        self.count
    }

    fn run(&self, job: &(dyn Fn(usize) + Sync)) {
        // SAFETY: only the lifetime changes. The threads use the job while they are counted in
        // `busy`, and this function does not return before `busy` is 0.
        let job: Job = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), Job>(job) };
        let mut state = self.shared.state.lock().expect("no thread panics");
        state.job = Some(job);
        state.busy = self.count - 1;
        state.round += 1;
        drop(state);
        self.shared.news.notify_all();
        job(0);
        let mut state = self.shared.state.lock().expect("no thread panics");
        while state.busy > 0 {
            state = self.shared.done.wait(state).expect("no thread panics");
        }
        state.job = None;
    }
}

/// Shows what the engine logs.
struct Stderr;

impl log::Log for Stderr {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        eprintln!("{}: {}", record.level(), record.args());
    }

    fn flush(&self) {}
}

fn check() -> Result<(), String> {
    for (name, outcome) in llm::self_tests() {
        let detail = outcome.map_err(|error| format!("{name}: {error}"))?;
        eprintln!("{name}: {detail}");
    }
    Ok(())
}

fn now_us() -> u64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_micros() as u64
}

/// Refuses a model that would not fit into memory: Linux promises more than it has, and ends the
/// process later.
fn check_memory(file: &[u8], context: ContextOptions) -> Result<(), String> {
    let Ok(meminfo) = std::fs::read_to_string("/proc/meminfo") else { return Ok(()) };
    let kib = meminfo.lines().find_map(|line| {
        line.strip_prefix("MemAvailable:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    });
    // What the file does not say here, the load will.
    let size = file.len() as u64;
    let (Some(kib), Ok(needed)) = (kib, memory_needed(file, size, context)) else { return Ok(()) };
    // The engine takes a copy of the file.
    let (free, needed) = (kib * 1024, size.saturating_add(needed.total() as u64));
    if needed <= free {
        return Ok(());
    }
    let instead = settings_that_fit(file, size, context, free.saturating_sub(size));
    let instead = if instead.is_empty() { "take a smaller model" } else { &instead };
    Err(format!("not enough memory: {needed} bytes needed, {free} free: {instead}"))
}

fn run(arguments: Arguments) -> Result<(), String> {
    if arguments.check {
        check()?;
    }
    let start_us = now_us();
    let bytes = std::fs::read(&arguments.model)
        .map_err(|error| format!("cannot read {}: {error}", arguments.model))?;
    let mut backend = TransformerBackend::new(Options {
        context: arguments.context,
        workers: Box::leak(Box::new(Team::new(arguments.threads))),
        now_us,
    });
    backend.set_verbose(arguments.verbose);
    backend.set_sampling_config(arguments.sampling);
    backend.set_ignore_end(arguments.ignore_end);
    backend.set_parse_special(arguments.special);
    let told = |error: llm::Error| match remedy(&error) {
        Some(instead) => format!("{}: {error}: {instead}", arguments.model),
        None => format!("{}: {error}", arguments.model),
    };
    check_memory(&bytes, arguments.context).map_err(|e| format!("{}: {e}", arguments.model))?;
    backend.load_model(ModelBuffer::from(&bytes[..])).map_err(told)?;
    drop(bytes);
    let load_us = now_us() - start_us;

    if arguments.perplexity {
        return perplexity(&mut backend, &arguments.prompt);
    }
    let mut stdout = std::io::stdout();
    print!("{}", arguments.prompt);
    let mut show = |text: &str| match write!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Ok(()) => ControlFlow::Continue(()),
        // The reader is gone.
        Err(_) => ControlFlow::Break(()),
    };
    let result = backend.infer(&arguments.prompt, arguments.tokens, &mut show);
    let result = result.map_err(told)?;
    println!();
    if let Some(model) = backend.model_metadata() {
        eprintln!(
            "{}: {} {}, {:.1} M parameters, loaded in {:.3} s; {} kernels, {} threads",
            arguments.model,
            model.architecture,
            model.quantization,
            model.parameters as f64 / 1e6,
            load_us as f64 / 1e6,
            llm::kernels::name(),
            arguments.threads,
        );
        eprintln!(
            "KV cache {} bytes ({}), arena {} bytes ({} used)",
            model.kv_cache_bytes, model.kv_cache_type, result.arena_bytes, result.arena_peak_bytes
        );
    }
    eprintln!(
        "{} prompt tokens at {:.1}/s, first token after {:.3} s, {} tokens at {:.1}/s ({:?}, {} context shifts)",
        result.prompt_tokens,
        result.prompt_tokens_per_s,
        result.first_token_us as f64 / 1e6,
        result.tokens_emitted,
        result.tokens_per_s,
        result.stop,
        result.context_shifts,
    );
    Ok(())
}

/// Measures the perplexity of a text file, and shows it piece by piece.
fn perplexity(backend: &mut TransformerBackend, path: &str) -> Result<(), String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    let result = backend.perplexity(&text, &mut |so_far| {
        eprint!("[{}/{}] {:.4} ", so_far.chunks, so_far.n_chunks, so_far.perplexity);
        ControlFlow::Continue(())
    });
    eprintln!();
    let Perplexity { perplexity, error, tokens, .. } = result.map_err(|error| error.to_string())?;
    println!("perplexity {perplexity:.4} ± {error:.4} over {tokens} tokens");
    Ok(())
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
            match run(arguments) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("error: {error}");
                    ExitCode::FAILURE
                }
            }
        }
        Ok(None) => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}\n\n{HELP}");
            ExitCode::from(2)
        }
    }
}
