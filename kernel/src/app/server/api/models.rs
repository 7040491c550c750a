//! What the server tells of itself: `/v1/models`, `/props`, `/slots`, `/health`.

use alloc::string::String;
use alloc::vec::Vec;

use serde::Serialize;

use super::answer::settings::Sampling;
use super::{BUILD, Served, to_json};
use crate::llm::sampling::SamplingConfig;
use crate::llm::scheduler::SlotStatus;

/// Answers `GET /health` of a server that is ready.
pub fn health() -> &'static str {
    "{\"status\":\"ok\"}"
}

/// Answers `GET /v1/models`. `created` is the time in seconds since 1970.
pub fn models(served: &Served<'_>, created: u64) -> String {
    #[derive(Serialize)]
    struct Meta {
        n_vocab: usize,
        n_ctx: usize,
        n_ctx_train: usize,
        n_embd: usize,
        n_params: u64,
        size: u64,
        ftype: String,
    }
    #[derive(Serialize)]
    struct Model<'a> {
        id: &'a str,
        aliases: [&'a str; 1],
        tags: [&'a str; 0],
        object: &'static str,
        created: u64,
        owned_by: &'static str,
        meta: Meta,
    }
    /// The shape of ollama, which some clients look for.
    #[derive(Serialize)]
    struct Listed<'a> {
        name: &'a str,
        model: &'a str,
        modified_at: &'static str,
        size: &'static str,
        digest: &'static str,
        #[serde(rename = "type")]
        kind: &'static str,
        description: &'static str,
        tags: [&'static str; 1],
        capabilities: [&'static str; 1],
        parameters: &'static str,
        details: Details<'a>,
    }
    #[derive(Serialize)]
    struct Details<'a> {
        parent_model: &'static str,
        format: &'static str,
        family: &'a str,
        families: [&'a str; 1],
        parameter_size: &'static str,
        quantization_level: &'a str,
    }
    #[derive(Serialize)]
    struct Models<'a> {
        models: [Listed<'a>; 1],
        object: &'static str,
        data: [Model<'a>; 1],
    }

    let metadata = served.metadata;
    let model = Model {
        id: served.model,
        aliases: [served.model],
        tags: [],
        object: "model",
        created,
        owned_by: "anchorite",
        meta: Meta {
            n_vocab: metadata.n_vocab,
            n_ctx: served.n_ctx,
            n_ctx_train: metadata.n_ctx_train,
            n_embd: metadata.n_embd,
            n_params: metadata.parameters,
            size: served.bytes,
            ftype: metadata.quantization.clone(),
        },
    };
    let listed = Listed {
        name: served.model,
        model: served.model,
        modified_at: "",
        size: "",
        digest: "",
        kind: "model",
        description: "",
        tags: [""],
        capabilities: ["completion"],
        parameters: "",
        details: Details {
            parent_model: "",
            format: "gguf",
            family: &metadata.architecture,
            families: [&metadata.architecture],
            parameter_size: "",
            quantization_level: &metadata.quantization,
        },
    };
    to_json(&Models { models: [listed], object: "list", data: [model] })
}

/// Answers `GET /props`.
pub fn props(served: &Served<'_>) -> String {
    #[derive(Serialize)]
    struct Generation {
        params: Sampling,
        n_ctx: usize,
    }
    #[derive(Serialize)]
    struct Modalities {
        vision: bool,
        video: bool,
        audio: bool,
    }
    #[derive(Serialize)]
    struct Props<'a> {
        default_generation_settings: Generation,
        total_slots: usize,
        model_alias: &'a str,
        model_ftype: &'a str,
        model_path: &'a str,
        modalities: Modalities,
        endpoint_slots: bool,
        endpoint_props: bool,
        endpoint_metrics: bool,
        /// llama.cpp's name of the template, in place of the program that this server does not run.
        chat_template: &'a str,
        bos_token: &'a str,
        eos_token: &'a str,
        build_info: &'static str,
        is_sleeping: bool,
    }

    let declared = &served.metadata.chat;
    let defaults = &served.defaults.sampling;
    // As in llama-server, the largest 32-bit seed stands for a random one.
    let seed = defaults.seed.unwrap_or(u32::MAX.into());
    let config = SamplingConfig { seed, ..defaults.config };
    to_json(&Props {
        default_generation_settings: Generation {
            params: Sampling::new(&config, defaults.mirostat, served.defaults.max_tokens),
            n_ctx: served.n_ctx,
        },
        total_slots: served.parallel,
        model_alias: served.model,
        model_ftype: &served.metadata.quantization,
        model_path: served.path,
        modalities: Modalities { vision: false, video: false, audio: false },
        endpoint_slots: true,
        endpoint_props: false,
        endpoint_metrics: true,
        chat_template: declared.known.map_or("", |known| known.name),
        bos_token: &declared.bos,
        eos_token: &declared.eos,
        build_info: BUILD,
        is_sleeping: false,
    })
}

/// Answers `GET /slots`.
pub fn slots(served: &Served<'_>, slots: impl Iterator<Item = SlotStatus>) -> String {
    #[derive(Serialize)]
    struct NextToken {
        has_next_token: bool,
        n_remain: i64,
        n_decoded: usize,
    }
    #[derive(Serialize)]
    struct Running {
        id_task: u64,
        n_prompt_tokens: usize,
        n_prompt_tokens_processed: usize,
        n_prompt_tokens_cache: usize,
        params: Sampling,
        next_token: [NextToken; 1],
    }
    #[derive(Serialize)]
    struct Slot {
        id: usize,
        n_ctx: usize,
        speculative: bool,
        is_processing: bool,
        #[serde(flatten)]
        running: Option<Running>,
    }

    let mirostat = served.defaults.sampling.mirostat;
    let slot = |status: SlotStatus| Slot {
        id: status.slot,
        n_ctx: status.n_ctx,
        speculative: false,
        is_processing: status.request.is_some(),
        running: status.request.map(|request| Running {
            id_task: request.id.number(),
            n_prompt_tokens: request.n_prompt,
            n_prompt_tokens_processed: request.n_processed,
            n_prompt_tokens_cache: request.n_cached,
            params: Sampling::new(&request.sampling, mirostat, request.max_tokens),
            next_token: [NextToken {
                has_next_token: true,
                n_remain: match request.max_tokens {
                    usize::MAX => -1,
                    most => most.saturating_sub(request.n_generated) as i64,
                },
                n_decoded: request.n_generated,
            }],
        }),
    };
    to_json(&slots.map(slot).collect::<Vec<_>>())
}
