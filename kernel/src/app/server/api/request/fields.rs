//! The table of fields: read, ignored, or refused.
//!
//! The fields are those of OpenAI's API and of llama-server, and a few of vLLM that change the
//! text. A field that asks for a feature that this server does not have is refused by name. Null is
//! always the default. A field that is not in the table is ignored, as in llama-server: clients
//! send fields of many servers.

use alloc::format;
use alloc::string::String;

use serde_json::value::RawValue;

use super::super::error::ApiError;
use super::Endpoint::{self, Chat, Completion, Completions};
use super::object::Object;
use Support::{Ignored, Read, Refused};

/// What this server does with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// The field is read by these endpoints. Elsewhere it may only have the value of [`OFF`].
    Read(&'static [Endpoint]),
    /// The field has no influence on the answer.
    Ignored,
    /// The field is refused, except for these values, which ask for nothing.
    Refused(&'static [&'static str]),
}

const ALL: &[Endpoint] = &[Chat, Completions, Completion];
/// Values that switch a field off.
const OFF: &[&str] = &["false", "[]", "\"none\"", "\"auto\""];
const NONE: &[&str] = &[];

/// The fields of requests for answers.
pub const FIELDS: &[(&str, Support)] = &[
    // The task.
    ("messages", Read(&[Chat])),
    ("prompt", Read(&[Completions, Completion])),
    ("add_generation_prompt", Read(&[Chat])),
    ("continue_final_message", Read(&[Chat])),
    ("max_tokens", Read(ALL)),
    ("max_completion_tokens", Read(ALL)),
    ("n_predict", Read(ALL)),
    ("n", Read(ALL)),
    ("n_cmpl", Read(ALL)),
    ("stop", Read(ALL)),
    ("ignore_eos", Read(ALL)),
    ("cache_prompt", Read(ALL)),
    // Sampling.
    ("temperature", Read(ALL)),
    ("top_k", Read(ALL)),
    ("top_p", Read(ALL)),
    ("min_p", Read(ALL)),
    ("typical_p", Read(ALL)),
    ("top_n_sigma", Read(ALL)),
    ("xtc_probability", Read(ALL)),
    ("xtc_threshold", Read(ALL)),
    ("repeat_penalty", Read(ALL)),
    ("repeat_last_n", Read(ALL)),
    ("presence_penalty", Read(ALL)),
    ("frequency_penalty", Read(ALL)),
    ("dry_multiplier", Read(ALL)),
    ("dry_base", Read(ALL)),
    ("dry_allowed_length", Read(ALL)),
    ("dry_penalty_last_n", Read(ALL)),
    ("dry_sequence_breakers", Read(ALL)),
    ("mirostat", Read(ALL)),
    ("mirostat_tau", Read(ALL)),
    ("mirostat_eta", Read(ALL)),
    ("samplers", Read(ALL)),
    ("seed", Read(ALL)),
    ("logit_bias", Read(ALL)),
    // The form of the answer.
    ("stream", Read(ALL)),
    ("stream_options", Read(ALL)),
    ("sse_ping_interval", Read(ALL)),
    ("logprobs", Read(ALL)),
    ("top_logprobs", Read(&[Chat])),
    ("n_probs", Read(ALL)),
    ("post_sampling_probs", Read(ALL)),
    ("timings_per_token", Read(ALL)),
    ("return_progress", Read(ALL)),
    ("return_tokens", Read(&[Completion])),
    ("response_fields", Read(&[Completion])),
    ("verbose", Read(ALL)),
    // Labels, and hints for what is cached or stored elsewhere.
    // The host of the models reads this field before.
    ("model", Ignored),
    ("user", Ignored),
    ("metadata", Ignored),
    ("store", Ignored),
    ("service_tier", Ignored),
    ("safety_identifier", Ignored),
    ("prompt_cache_key", Ignored),
    ("prompt_cache_options", Ignored),
    ("prompt_cache_retention", Ignored),
    // A slot changes no answer, and pages of a prefix are shared by all slots.
    ("id_slot", Ignored),
    // This field counts with `adaptive_target` alone.
    ("adaptive_decay", Ignored),
    // Tools.
    ("tools", Read(&[Chat])),
    ("tool_choice", Read(&[Chat])),
    ("parallel_tool_calls", Read(&[Chat])),
    ("parse_tool_calls", Read(&[Chat])),
    ("functions", Refused(&["[]"])),
    ("function_call", Refused(&["\"none\"", "\"auto\""])),
    ("web_search_options", Refused(NONE)),
    // Constraints of the text.
    ("response_format", Read(ALL)),
    ("json_schema", Read(ALL)),
    ("grammar", Read(ALL)),
    ("grammar_lazy", Refused(&["false"])),
    ("grammar_triggers", Refused(&["[]"])),
    ("preserved_tokens", Refused(&["[]"])),
    ("structured_outputs", Refused(NONE)),
    ("guided_json", Refused(NONE)),
    ("guided_regex", Refused(NONE)),
    ("guided_choice", Refused(NONE)),
    ("guided_grammar", Refused(NONE)),
    // Media.
    ("modalities", Refused(&["[\"text\"]"])),
    ("audio", Refused(NONE)),
    ("images", Refused(&["[]"])),
    ("image_data", Refused(&["[]"])),
    ("multimodal_data", Refused(&["[]"])),
    // Reasoning. This server leaves thoughts in the text.
    ("reasoning_effort", Refused(&["\"none\""])),
    ("reasoning_format", Refused(&["\"none\"", "\"auto\""])),
    ("reasoning_budget_tokens", Refused(&["-1"])),
    ("reasoning_budget_message", Refused(&["\"\""])),
    ("reasoning_control", Refused(&["false"])),
    ("thinking_budget_tokens", Refused(&["-1"])),
    ("chat_template_kwargs", Refused(&["{}"])),
    ("verbosity", Refused(&["\"medium\""])),
    // Other features of the text.
    ("echo", Refused(&["false"])),
    ("suffix", Refused(&["\"\""])),
    ("best_of", Refused(&["1"])),
    ("prediction", Refused(NONE)),
    ("moderation", Refused(NONE)),
    ("input_prefix", Refused(&["\"\""])),
    ("input_suffix", Refused(&["\"\""])),
    ("input_extra", Refused(&["[]"])),
    ("lora", Refused(&["[]"])),
    // Samplers and limits that the engine does not have.
    ("min_keep", Refused(&["0"])),
    ("dynatemp_range", Refused(&["0", "0.0"])),
    ("dynatemp_exponent", Refused(&["1", "1.0"])),
    ("adaptive_target", Refused(&["-1", "-1.0"])),
    ("backend_sampling", Refused(&["false"])),
    ("repetition_penalty", Refused(&["1", "1.0"])),
    ("length_penalty", Refused(&["1", "1.0"])),
    ("use_beam_search", Refused(&["false"])),
    ("min_tokens", Refused(&["0"])),
    ("stop_token_ids", Refused(&["[]"])),
    ("n_keep", Refused(&["0"])),
    ("n_discard", Refused(&["0"])),
    ("n_indent", Refused(&["0"])),
    ("n_cache_reuse", Refused(&["0"])),
    ("t_max_prompt_ms", Refused(&["-1", "0"])),
    ("t_max_predict_ms", Refused(&["-1", "0"])),
];

/// The start of the names of llama-server's settings for speculative decoding.
const SPECULATIVE: &str = "speculative.";

/// Refuses a request that asks for a feature that this server does not have.
///
/// # Errors
/// A field is refused.
pub fn check(object: &Object<'_>, endpoint: Endpoint) -> Result<(), ApiError> {
    for (name, value) in object.fields() {
        let support = FIELDS.iter().find(|(field, _)| *field == name).map(|(_, support)| *support);
        let is_accepted = match support {
            Some(Read(endpoints)) if endpoints.contains(&endpoint) => true,
            Some(Read(_)) if is_one_of(value, OFF) => true,
            Some(Read(_)) => {
                let problem = format!("no field of {}", endpoint.path());
                return Err(ApiError::field(name, problem));
            }
            Some(Ignored) => true,
            Some(Refused(values)) => is_one_of(value, values),
            None => !name.starts_with(SPECULATIVE),
        };
        if !is_accepted {
            return Err(ApiError::unsupported(name));
        }
    }
    Ok(())
}

/// Whether a value is written as one of these, blanks between its parts aside.
pub fn is_one_of(value: &RawValue, texts: &[&str]) -> bool {
    let longest = texts.iter().map(|text| text.len()).max().unwrap_or(0);
    let mut is_text = false;
    let mut compact = String::new();
    for c in value.get().chars() {
        is_text ^= c == '"';
        if is_text || !c.is_ascii_whitespace() {
            compact.push(c);
        }
        if compact.len() > longest {
            return false;
        }
    }
    texts.contains(&&*compact)
}
