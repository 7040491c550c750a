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

/// The state of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status<'a> {
    /// Not in memory.
    Unloaded,
    /// On its way into memory.
    Loading,
    /// In memory.
    Loaded,
    /// Not in memory, as the last load failed for this reason.
    Failed(&'a str),
}

/// A model of the disk.
#[derive(Clone, Copy, Debug)]
pub struct Listed<'a> {
    /// The name for clients.
    pub name: &'a str,
    /// The path of the file.
    pub path: &'a str,
    /// Size of the file.
    pub bytes: u64,
    /// The state.
    pub status: Status<'a>,
    /// The model, if it is in memory.
    pub served: Option<Served<'a>>,
}

/// Answers `GET /v1/models`. `created` is the time in seconds since 1970.
pub fn models(list: &[Listed<'_>], created: u64) -> String {
    #[derive(Serialize)]
    struct Meta<'a> {
        n_vocab: usize,
        n_ctx: usize,
        n_ctx_train: usize,
        n_embd: usize,
        n_params: u64,
        size: u64,
        ftype: &'a str,
    }
    /// The state, as llama-server's router gives it.
    #[derive(Serialize)]
    struct State<'a> {
        value: &'static str,
        args: [&'static str; 0],
        #[serde(skip_serializing_if = "Option::is_none")]
        failed: Option<bool>,
        #[serde(skip_serializing_if = "Option::is_none")]
        exit_code: Option<u8>,
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<&'a str>,
    }
    #[derive(Serialize)]
    struct Modalities {
        input_modalities: [&'static str; 1],
        output_modalities: [&'static str; 1],
    }
    #[derive(Serialize)]
    struct Model<'a> {
        id: &'a str,
        aliases: [&'a str; 1],
        tags: [&'a str; 0],
        object: &'static str,
        created: u64,
        owned_by: &'static str,
        path: &'a str,
        status: State<'a>,
        architecture: Modalities,
        #[serde(skip_serializing_if = "Option::is_none")]
        meta: Option<Meta<'a>>,
    }
    /// The shape of ollama, which some clients look for.
    #[derive(Serialize)]
    struct Ollamas<'a> {
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
        models: Vec<Ollamas<'a>>,
        object: &'static str,
        data: Vec<Model<'a>>,
    }

    let state = |status| {
        let (value, message) = match status {
            Status::Unloaded => ("unloaded", None),
            Status::Loading => ("loading", None),
            Status::Loaded => ("loaded", None),
            Status::Failed(message) => ("unloaded", Some(message)),
        };
        let (failed, exit_code) = (message.map(|_| true), message.map(|_| 1));
        State { value, args: [], failed, exit_code, message }
    };
    let (mut models, mut data) = (Vec::new(), Vec::new());
    for Listed { name, path, status, served, .. } in list {
        let metadata = served.map(|served| served.metadata);
        data.push(Model {
            id: name,
            aliases: [name],
            tags: [],
            object: "model",
            created,
            owned_by: "anchorite",
            path,
            status: state(*status),
            architecture: Modalities { input_modalities: ["text"], output_modalities: ["text"] },
            meta: served.map(|served| Meta {
                n_vocab: served.metadata.n_vocab,
                n_ctx: served.n_ctx,
                n_ctx_train: served.metadata.n_ctx_train,
                n_embd: served.metadata.n_embd,
                n_params: served.metadata.parameters,
                size: served.bytes,
                ftype: &served.metadata.quantization,
            }),
        });
        let family = metadata.map_or("", |metadata| &metadata.architecture);
        models.push(Ollamas {
            name,
            model: name,
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
                family,
                families: [family],
                parameter_size: "",
                quantization_level: metadata.map_or("", |metadata| &metadata.quantization),
            },
        });
    }
    to_json(&Models { models, object: "list", data })
}

/// Answers `GET /props` of a server without a loaded model, as llama-server's router does.
pub fn no_props(n_models: usize) -> String {
    #[derive(Serialize)]
    struct Nothing {}
    #[derive(Serialize)]
    struct Generation {
        params: Nothing,
        n_ctx: usize,
    }
    #[derive(Serialize)]
    struct Props {
        role: &'static str,
        max_instances: usize,
        models_autoload: bool,
        model_alias: &'static str,
        model_path: &'static str,
        default_generation_settings: Generation,
        build_info: &'static str,
    }
    to_json(&Props {
        role: "router",
        max_instances: n_models,
        models_autoload: true,
        model_alias: "anchorite",
        model_path: "none",
        default_generation_settings: Generation { params: Nothing {}, n_ctx: 0 },
        build_info: BUILD,
    })
}

/// Answers `POST /models/load` and `POST /models/unload`.
pub fn success() -> &'static str {
    "{\"success\":true}"
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

/// A running request.
#[derive(Clone, Debug, PartialEq)]
pub struct Running {
    /// The number of the request.
    pub id: u64,
    /// Tokens of the prompt.
    pub n_prompt: usize,
    /// Tokens of the prompt that were cached.
    pub n_cached: usize,
    /// Tokens of the prompt that were processed, without the cached ones.
    pub n_processed: usize,
    /// Tokens generated so far.
    pub n_generated: usize,
    /// Tokens to generate, at most.
    pub max_tokens: usize,
    /// Settings of sampling.
    pub sampling: SamplingConfig,
}

/// A slot in the answer to `GET /slots`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Slot {
    id: usize,
    n_ctx: usize,
    speculative: bool,
    is_processing: bool,
    #[serde(flatten)]
    task: Option<Task>,
}

#[derive(Clone, Debug, Serialize)]
struct Task {
    id_task: u64,
    n_prompt_tokens: usize,
    n_prompt_tokens_processed: usize,
    n_prompt_tokens_cache: usize,
    params: Sampling,
    next_token: [NextToken; 1],
}

#[derive(Clone, Copy, Debug, Serialize)]
struct NextToken {
    has_next_token: bool,
    n_remain: i64,
    n_decoded: usize,
}

/// A slot with its request.
pub(super) fn slot(served: &Served<'_>, id: usize, n_ctx: usize, running: Option<Running>) -> Slot {
    let mirostat = served.defaults.sampling.mirostat;
    let task = |running: Running| Task {
        id_task: running.id,
        n_prompt_tokens: running.n_prompt,
        n_prompt_tokens_processed: running.n_processed,
        n_prompt_tokens_cache: running.n_cached,
        params: Sampling::new(&running.sampling, mirostat, running.max_tokens),
        next_token: [NextToken {
            has_next_token: true,
            n_remain: match running.max_tokens {
                usize::MAX => -1,
                most => most.saturating_sub(running.n_generated) as i64,
            },
            n_decoded: running.n_generated,
        }],
    };
    let is_processing = running.is_some();
    Slot { id, n_ctx, speculative: false, is_processing, task: running.map(task) }
}

/// Answers `GET /slots`.
pub fn slots(served: &Served<'_>, slots: impl Iterator<Item = SlotStatus>) -> String {
    let slot = |status: SlotStatus| {
        let running = status.request.map(|request| Running {
            id: request.id.number(),
            n_prompt: request.n_prompt,
            n_cached: request.n_cached,
            n_processed: request.n_processed,
            n_generated: request.n_generated,
            max_tokens: request.max_tokens,
            sampling: request.sampling,
        });
        slot(served, status.slot, status.n_ctx, running)
    };
    to_json(&slots.map(slot).collect::<Vec<_>>())
}
