//! `GET /metrics`, in the text format of Prometheus and under llama-server's names.

use alloc::format;
use alloc::string::String;
use core::fmt::Write as _;

use crate::llm::scheduler::Counters;

/// The state of the scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metrics<'a> {
    /// The sums since the start.
    pub total: &'a Counters,
    /// The sums since the last answer, for the rates.
    pub window: &'a Counters,
    /// Requests that run.
    pub n_running: usize,
    /// Requests that wait.
    pub n_waiting: usize,
    /// Memory in use.
    pub resident_bytes: u64,
}

/// Answers `GET /metrics`.
pub fn metrics(metrics: &Metrics<'_>) -> String {
    let Metrics { total, window, n_running, n_waiting, resident_bytes } = metrics;
    let seconds = |us: u64| us as f64 / 1e6;
    let counters = [
        (
            "prompt_tokens_total",
            "Tokens of prompts that were processed, without cached ones.",
            total.prompt_tokens_total as f64,
        ),
        (
            "prompt_tokens_cached_total",
            "Tokens of prompts that were cached.",
            total.prompt_tokens_cached_total as f64,
        ),
        (
            "prompt_seconds_total",
            "Time of the processing of prompts.",
            seconds(total.prompt_us_total),
        ),
        ("tokens_predicted_total", "Tokens generated.", total.tokens_predicted_total as f64),
        (
            "tokens_predicted_seconds_total",
            "Time of the generation of tokens.",
            seconds(total.tokens_predicted_us_total),
        ),
        ("n_decode_total", "Forward passes.", total.n_decode_total as f64),
        ("n_tokens_max", "The most tokens of a prompt and its answer.", total.n_tokens_max as f64),
        ("spec_decode_num_draft_tokens_total", "Always 0: no speculative decoding.", 0.0),
        ("spec_decode_num_accepted_tokens_total", "Always 0: no speculative decoding.", 0.0),
        ("spec_decode_num_drafts_total", "Always 0: no speculative decoding.", 0.0),
    ];
    let n_passes = total.n_decode_total.max(1) as f64;
    let gauges = [
        (
            "prompt_tokens_seconds",
            "Tokens of prompts a second, since the last reading.",
            window.prompt_tokens_per_s(),
        ),
        (
            "predicted_tokens_seconds",
            "Generated tokens a second, since the last reading.",
            window.predicted_tokens_per_s(),
        ),
        ("requests_processing", "Requests that run.", *n_running as f64),
        ("requests_deferred", "Requests that wait.", *n_waiting as f64),
        (
            "n_busy_slots_per_decode",
            "Requests in a forward pass, on average.",
            total.n_busy_slots_total as f64 / n_passes,
        ),
    ];
    let mut text = String::new();
    // Writing to a text cannot fail.
    let mut write = |name: &str, kind: &str, help: &str, value: f64| {
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
    };
    let counters = counters.iter().map(|item| ("counter", item));
    for (kind, (name, help, value)) in counters.chain(gauges.iter().map(|item| ("gauge", item))) {
        write(&format!("llamacpp:{name}"), kind, help, *value);
    }
    // Prometheus's own name for the memory of a process, which is the machine here.
    write("process_resident_memory_bytes", "gauge", "Memory in use.", *resident_bytes as f64);
    text
}
