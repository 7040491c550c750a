//! Errors, and what the server tells of itself.

use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use super::metrics::{Metrics, metrics};
use super::testing::Fixture;
use super::*;
use crate::llm;
use crate::llm::sampling::SamplingConfig;
use crate::llm::scheduler::{Counters, SlotStatus, SubmitError};

#[test]
fn errors_are_llama_servers() {
    for (error, status, body) in [
        (
            ApiError::unsupported("tools"),
            400,
            r#"{"error":{"code":400,"message":"`tools`: not supported by this server","type":"invalid_request_error"}}"#,
        ),
        (
            SubmitError::ContextFull { n_prompt: 300, n_ctx: 256 }.into(),
            400,
            r#"{"error":{"code":400,"message":"request (300 tokens) exceeds the available context size (256 tokens), try increasing it","type":"exceed_context_size_error","n_prompt_tokens":300,"n_ctx":256}}"#,
        ),
        (
            SubmitError::QueueFull.into(),
            503,
            r#"{"error":{"code":503,"message":"too many requests are waiting, try again later","type":"unavailable_error"}}"#,
        ),
        (
            SubmitError::Refused(llm::Error::InvalidConfig { what: "no".into() }).into(),
            400,
            r#"{"error":{"code":400,"message":"no","type":"invalid_request_error"}}"#,
        ),
        (
            llm::Error::OutOfMemory { what: "the queue", asked: 7 }.into(),
            503,
            r#"{"error":{"code":503,"message":"not enough memory for the queue: 7 bytes asked","type":"unavailable_error"}}"#,
        ),
        (
            ApiError::wrong_key(),
            401,
            r#"{"error":{"code":401,"message":"Invalid API Key","type":"authentication_error"}}"#,
        ),
        (
            ApiError::not_found(),
            404,
            r#"{"error":{"code":404,"message":"File Not Found","type":"not_found_error"}}"#,
        ),
        (
            ApiError::new(ErrorKind::NotSupported, "off"),
            501,
            r#"{"error":{"code":501,"message":"off","type":"not_supported_error"}}"#,
        ),
        (
            ApiError::new(ErrorKind::Permission, "no"),
            403,
            r#"{"error":{"code":403,"message":"no","type":"permission_error"}}"#,
        ),
        (
            ApiError::invalid("\"too\nlarge\"").with_status(413),
            413,
            r#"{"error":{"code":413,"message":"\"too\nlarge\"","type":"invalid_request_error"}}"#,
        ),
    ] {
        assert_eq!((error.status, &*error.body()), (status, body));
    }
    assert_eq!(models::health(), r#"{"status":"ok"}"#);
}

#[test]
fn the_models_are_listed() {
    let fixture = Fixture::new();
    let listed = |status, served| models::Listed {
        name: "tiny",
        path: "/models/tiny.gguf",
        bytes: 7,
        status,
        served,
    };
    let list = |models: &[models::Listed<'_>]| models::models(models, 1_700_000_000);
    let of_ollama = |family: &str, families: &str, quantization: &str| {
        format!(
            r#"{{"name":"tiny","model":"tiny","modified_at":"","size":"","digest":"","type":"model","description":"","tags":[""],"capabilities":["completion"],"parameters":"","details":{{"parent_model":"","format":"gguf","family":"{family}","families":["{families}"],"parameter_size":"","quantization_level":"{quantization}"}}}}"#
        )
    };
    let of_openai = |status: &str, meta: &str| {
        format!(
            r#"{{"id":"tiny","aliases":["tiny"],"tags":[],"object":"model","created":1700000000,"owned_by":"anchorite","path":"/models/tiny.gguf","status":{{{status}}},"architecture":{{"input_modalities":["text"],"output_modalities":["text"]}}{meta}}}"#
        )
    };
    let expected = format!(
        r#"{{"models":[{}],"object":"list","data":[{}]}}"#,
        of_ollama("llama", "llama", "Q4_0"),
        of_openai(
            r#""value":"loaded","args":[]"#,
            r#","meta":{"n_vocab":266,"n_ctx":256,"n_ctx_train":512,"n_embd":64,"n_params":12345,"size":6789,"ftype":"Q4_0"}"#
        ),
    );
    assert_eq!(list(&[listed(models::Status::Loaded, Some(fixture.served()))]), expected);
    for (status, shown) in [
        (models::Status::Unloaded, r#""value":"unloaded","args":[]"#),
        (models::Status::Loading, r#""value":"loading","args":[]"#),
        (
            models::Status::Failed("why \"so\""),
            r#""value":"unloaded","args":[],"failed":true,"exit_code":1,"message":"why \"so\"""#,
        ),
    ] {
        let expected = format!(
            r#"{{"models":[{}],"object":"list","data":[{}]}}"#,
            of_ollama("", "", ""),
            of_openai(shown, "")
        );
        assert_eq!(list(&[listed(status, None)]), expected);
    }
    let two = [listed(models::Status::Unloaded, None); 2];
    assert_eq!(list(&two).matches("\"id\":\"tiny\"").count(), 2);
}

/// The settings of sampling of [`Fixture`], but the seed and the number of tokens.
const SAMPLING: &str = r#""temperature":0.8,"dynatemp_range":0.0,"dynatemp_exponent":1.0,"top_k":40,"top_p":0.95,"min_p":0.05,"top_n_sigma":0.0,"xtc_probability":0.0,"xtc_threshold":0.1,"typical_p":1.0,"repeat_last_n":64,"repeat_penalty":1.0,"presence_penalty":0.0,"frequency_penalty":0.0,"dry_multiplier":0.0,"dry_base":1.75,"dry_allowed_length":2,"dry_penalty_last_n":64,"mirostat":0,"mirostat_tau":5.0,"mirostat_eta":0.1,"adaptive_target":-1.0,"adaptive_decay":0.9,"max_tokens":-1,"n_predict":-1,"n_keep":0,"n_discard":0,"min_keep":0,"chat_format":"Content-only","reasoning_format":"none","reasoning_in_content":false,"generation_prompt":"","samplers":["penalties","dry","top_n_sigma","top_k","typ_p","top_p","min_p","xtc","temperature"],"speculative.types":"none","backend_sampling":false,"lora":[]"#;

#[test]
fn the_properties_are_listed() {
    let mut fixture = Fixture::new();
    let expected = format!(
        r#"{{"default_generation_settings":{{"params":{{"seed":4294967295,{SAMPLING}}},"n_ctx":256}},"total_slots":4,"model_alias":"tiny","model_ftype":"Q4_0","model_path":"models/tiny.gguf","modalities":{{"vision":false,"video":false,"audio":false}},"endpoint_slots":true,"endpoint_props":false,"endpoint_metrics":true,"chat_template":"chatml","bos_token":"<s>","eos_token":"</s>","build_info":"b0.1.0-anchorite","is_sleeping":false}}"#
    );
    assert_eq!(models::props(&fixture.served()), expected);
    fixture.defaults.sampling.seed = Some(42);
    assert!(models::props(&fixture.served()).contains(r#""params":{"seed":42,"#));
}

#[test]
fn the_slots_are_listed() {
    let fixture = Fixture::new();
    let idle = |slot| SlotStatus { slot, n_ctx: 256, n_tokens: 9, request: None };
    let expected = r#"[{"id":0,"n_ctx":256,"speculative":false,"is_processing":false},{"id":1,"n_ctx":256,"speculative":false,"is_processing":false}]"#;
    assert_eq!(models::slots(&fixture.served(), [idle(0), idle(1)].into_iter()), expected);
    assert_eq!(models::slots(&fixture.served(), [].into_iter()), "[]");
    let running = |max_tokens| models::Running {
        id: 7,
        n_prompt: 5,
        n_cached: 2,
        n_processed: 3,
        n_generated: 4,
        max_tokens,
        sampling: SamplingConfig { seed: 42, ..SamplingConfig::creative() },
    };
    let slot = |max_tokens| {
        let slots = Vec::from([models::slot(&fixture.served(), 1, 256, Some(running(max_tokens)))]);
        to_json(&slots)
    };
    let expected = format!(
        r#"[{{"id":1,"n_ctx":256,"speculative":false,"is_processing":true,"id_task":7,"n_prompt_tokens":5,"n_prompt_tokens_processed":3,"n_prompt_tokens_cache":2,"params":{{"seed":42,{SAMPLING}}},"next_token":[{{"has_next_token":true,"n_remain":-1,"n_decoded":4}}]}}]"#
    );
    assert_eq!(slot(usize::MAX), expected);
    assert!(slot(6).contains(r#""n_remain":2,"#));
}

#[test]
fn the_metrics_are_those_of_llama_server() {
    let total = Counters {
        prompt_tokens_total: 100,
        prompt_tokens_cached_total: 20,
        prompt_us_total: 1_500_000,
        tokens_predicted_total: 50,
        decode_steps_total: 40,
        tokens_predicted_us_total: 2_000_000,
        n_decode_total: 8,
        n_busy_slots_total: 12,
        n_tokens_max: 77,
    };
    let window = Counters {
        prompt_tokens_total: 10,
        prompt_us_total: 500_000,
        decode_steps_total: 5,
        tokens_predicted_us_total: 1_000_000,
        ..Counters::default()
    };
    let state = Metrics {
        total: &total,
        window: &window,
        n_running: 3,
        n_waiting: 1,
        resident_bytes: 5 << 20,
    };
    let text = metrics(&state);
    let values: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let expected = [
        "llamacpp:prompt_tokens_total 100",
        "llamacpp:prompt_tokens_cached_total 20",
        "llamacpp:prompt_seconds_total 1.5",
        "llamacpp:tokens_predicted_total 50",
        "llamacpp:tokens_predicted_seconds_total 2",
        "llamacpp:n_decode_total 8",
        "llamacpp:n_tokens_max 77",
        "llamacpp:spec_decode_num_draft_tokens_total 0",
        "llamacpp:spec_decode_num_accepted_tokens_total 0",
        "llamacpp:spec_decode_num_drafts_total 0",
        "llamacpp:prompt_tokens_seconds 20",
        "llamacpp:predicted_tokens_seconds 5",
        "llamacpp:requests_processing 3",
        "llamacpp:requests_deferred 1",
        "llamacpp:n_busy_slots_per_decode 1.5",
        "process_resident_memory_bytes 5242880",
    ];
    assert_eq!(values, expected);
    for line in expected {
        let name = line.split(' ').next().unwrap();
        let kind = if expected[10..].contains(&line) { "gauge" } else { "counter" };
        assert!(text.contains(&["# TYPE ", name, " ", kind, "\n", line].concat()), "{name}");
        assert!(text.contains(&["# HELP ", name, " "].concat()), "{name}");
    }
    // Nothing has happened yet.
    let none = Counters::default();
    let idle = metrics(&Metrics {
        total: &none,
        window: &none,
        n_running: 0,
        n_waiting: 0,
        resident_bytes: 0,
    });
    let values = idle.lines().filter(|line| !line.starts_with('#'));
    assert!(values.into_iter().all(|line| line.ends_with(" 0")), "{}", idle.to_string());
}
