//! A served model without weights, for the tests of the API.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::models::{Listed, Status};
use super::{Answer, ApiError, Defaults, Endpoint, Ids, Job, SamplingDefaults, Served, generate};
use crate::app::sha256::Digest;
use crate::llm::chat::tools::ToolTexts;
use crate::llm::chat::{Around, Declared, Template, by_name};
use crate::llm::gguf::Gguf;
use crate::llm::gguf::write::Builder;
use crate::llm::plan::ModelMetadata;
use crate::llm::sampling::{Mirostat, SamplingConfig};
use crate::llm::scheduler::{Finished, Stop, TokenProbs, Update};
use crate::llm::tokenizer::Tokenizer;

pub const BOS: u32 = 1;
pub const EOS: u32 = 2;
/// " Hello".
pub const HELLO: u32 = 259;
/// " world".
pub const WORLD: u32 = 260;
/// "!".
pub const BANG: u32 = 261;
pub const IM_START: u32 = 264;
pub const IM_END: u32 = 265;
pub const N_VOCAB: usize = 266;

/// The token of a byte.
pub fn byte(byte: u8) -> u32 {
    3 + u32::from(byte)
}

pub fn tokenizer() -> Tokenizer {
    let mut tokens: Vec<(String, i32)> = Vec::new();
    tokens.extend([("<unk>", 2), ("<s>", 3), ("</s>", 3)].map(|(text, kind)| (text.into(), kind)));
    tokens.extend((0..256).map(|byte| (format!("<0x{byte:02X}>"), 6)));
    tokens.extend(["▁Hello", "▁world", "!", "▁", "a"].map(|text| (text.into(), 1)));
    tokens.extend(["<|im_start|>", "<|im_end|>"].map(|text| (text.into(), 3)));
    let texts: Vec<&str> = tokens.iter().map(|(text, _)| text.as_str()).collect();
    let scores: Vec<f32> = (0..tokens.len()).map(|i| -(i as f32)).collect();
    let kinds: Vec<i32> = tokens.iter().map(|&(_, kind)| kind).collect();
    let file = Builder::new()
        .string("tokenizer.ggml.model", "llama")
        .strings("tokenizer.ggml.tokens", &texts)
        .f32s("tokenizer.ggml.scores", &scores)
        .i32s("tokenizer.ggml.token_type", &kinds)
        .build();
    Tokenizer::from_gguf(&Gguf::parse(&file).unwrap()).unwrap()
}

/// A model with the settings of a server.
pub struct Fixture {
    pub tokenizer: Tokenizer,
    pub metadata: ModelMetadata,
    pub template: Option<Template>,
    pub defaults: Defaults,
}

impl Fixture {
    pub fn new() -> Self {
        let metadata = ModelMetadata {
            name: "Tiny".into(),
            architecture: "llama".into(),
            quantization: "Q4_0".into(),
            parameters: 12345,
            n_layer: 2,
            n_embd: 64,
            n_head: 4,
            n_head_kv: 2,
            n_ff: 128,
            n_vocab: N_VOCAB,
            n_ctx_train: 512,
            chat: Declared {
                has_template: true,
                problem: None,
                known: by_name("chatml"),
                tools: None,
                bos: "<s>".into(),
                eos: "</s>".into(),
            },
        };
        let sampling = SamplingDefaults {
            config: SamplingConfig { seed: 99, ..SamplingConfig::creative() },
            mirostat: Mirostat::DEFAULT,
            breakers: Vec::from(["\n".into()]),
            seed: None,
        };
        Fixture {
            tokenizer: tokenizer(),
            metadata,
            template: by_name("chatml").map(|known| known.template("<s>", "</s>")),
            defaults: Defaults { sampling, max_tokens: usize::MAX },
        }
    }

    /// With a template that has texts around tools.
    pub fn with_tools(texts: ToolTexts) -> Self {
        let mut fixture = Fixture::new();
        let template = fixture.template.get_or_insert_default();
        template.tools = Some(texts.into());
        fixture
    }

    pub fn served(&self) -> Served<'_> {
        Served {
            model: "tiny",
            path: "models/tiny.gguf",
            bytes: 6789,
            digest: Some(Digest([0xa5; 32])),
            metadata: &self.metadata,
            tokenizer: &self.tokenizer,
            template: self.template.as_ref(),
            defaults: &self.defaults,
            n_ctx: 256,
            parallel: 4,
            max_answers: 8,
        }
    }

    /// The disk of a server with this model alone.
    pub fn list(&self) -> [Listed<'_>; 1] {
        let served = self.served();
        let Served { model: name, path, bytes, .. } = served;
        [Listed { name, path, bytes, status: Status::Loaded, served: Some(served) }]
    }

    pub fn job(&self, endpoint: Endpoint, body: &str) -> Result<Job, ApiError> {
        generate(endpoint, body.as_bytes(), &self.served(), &IDS)
    }

    /// The tokens of a text that begins a prompt.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        self.tokenizer.encode(text, true, true)
    }
}

/// Texts around tools as Qwen's templates have them.
pub fn tool_texts() -> ToolTexts {
    let call = "<tool_call>\n{\"name\": \"";
    let around =
        |prefix: &str, suffix: &str| Around { prefix: prefix.into(), suffix: suffix.into() };
    ToolTexts {
        tools: around("<|im_start|>system\nTools:", "<|im_end|>\n"),
        separator: "\n".into(),
        system: around("<|im_start|>system\n", "\nTools:"),
        text_suffix: Some("\n".into()),
        call: around(call, "}\n</tool_call>"),
        arguments_prefix: "\", \"arguments\": ".into(),
        call_separator: Some(["}\n</tool_call>\n", call].concat()),
        results: around("<|im_start|>user\n<result>", "</result><|im_end|>\n"),
        result_separator: "</result><result>".into(),
        ..ToolTexts::default()
    }
}

pub const IDS: Ids = Ids { id: 0x2a, seed: 7 << 32 | 5, created: 1_700_000_000, now_us: 400_000 };

/// A run of an answer: what each update wrote.
pub struct Run<'f> {
    pub fixture: &'f Fixture,
    pub answer: Answer,
    pub now_us: u64,
}

impl<'f> Run<'f> {
    pub fn new(fixture: &'f Fixture, endpoint: Endpoint, body: &str) -> Self {
        let Job { answer, .. } = fixture.job(endpoint, body).unwrap();
        Run { fixture, answer, now_us: 1_000_000 }
    }

    /// Gives an update, 1 ms after the one before.
    pub fn update(&mut self, number: usize, update: Update<'_>) -> Result<String, ApiError> {
        let mut out = String::new();
        let tokenizer = &self.fixture.tokenizer;
        let result = self.answer.on_update(number, update, tokenizer, self.now_us, &mut out);
        self.now_us += 1000;
        result.map(|()| out)
    }

    pub fn start(&mut self, number: usize) -> String {
        self.update(number, Update::Started { slot: 3, n_cached: 2 }).unwrap()
    }

    pub fn token(&mut self, number: usize, token: u32, text: &str) -> String {
        self.update(number, Update::Token { token, text, probs: None }).unwrap()
    }

    /// A token of probability 1/2 before `BANG` of probability 1/4.
    pub fn likely(&mut self, number: usize, token: u32, text: &str) -> String {
        let (half, quarter) = (-2_f32.ln(), -4_f32.ln());
        let probs = TokenProbs::new(token, half, Vec::from([(token, half), (BANG, quarter)]));
        self.update(number, Update::Token { token, text, probs: Some(&probs) }).unwrap()
    }

    pub fn finish(&mut self, number: usize, finished: Finished) -> String {
        self.update(number, Update::Finished(finished)).unwrap()
    }
}

/// The end of an answer of two tokens to a prompt of five.
pub fn finished(stop: Stop) -> Finished {
    Finished {
        text: String::new(),
        stop,
        n_prompt: 5,
        n_cached: 2,
        n_generated: 2,
        n_dropped: 0,
        prompt_us: 6000,
        generated_us: 4000,
    }
}
