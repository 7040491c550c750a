//! A served model for the targets of the server's API, and answers of a few tokens.

use std::sync::LazyLock;

use crate::limits::Limits;
use kernel::app::server::api::{Defaults, Ids, Job, SamplingDefaults, Served};
use kernel::llm::chat::{KnownTools, Template, by_name};
use kernel::llm::gguf::Gguf;
use kernel::llm::plan::ModelMetadata;
use kernel::llm::sampling::{DEFAULT_BREAKERS, Mirostat, SamplingConfig};
use kernel::llm::scheduler::{Finished, Stop, TokenProbs, Update};
use kernel::llm::tokenizer::Tokenizer;

/// The limits of a request.
///
/// The sequence breakers of DRY and their copies take memory by the vocabulary, and grammars by the
/// limits of their sizes.
pub const LIMITS: Limits = Limits { memory: (512, 16 << 20), ns_per_byte: 50_000 };
/// The most answers of a request.
pub const MAX_ANSWERS: usize = 4;

/// A call of a tool, if the request has one of this name.
const CALL: &str = "<tool_call>{\"name\": \"f\", \"arguments\":\n{}}</tool_call>";

/// What makes answers different.
pub const IDS: Ids = Ids { id: 1, seed: 2, created: 3, now_us: 0 };

struct Fixture {
    tokenizer: Tokenizer,
    template: Template,
    metadata: ModelMetadata,
    defaults: Defaults,
}

static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
    let file = include_bytes!("../../test_models/vocabularies/spm.gguf");
    let tokenizer = Tokenizer::from_gguf(&Gguf::parse(file).unwrap()).unwrap();
    let metadata = ModelMetadata {
        architecture: "llama".into(),
        quantization: "Q4_0".into(),
        n_vocab: tokenizer.n_vocab(),
        n_ctx_train: 256,
        ..ModelMetadata::default()
    };
    let sampling = SamplingDefaults {
        config: SamplingConfig::creative(),
        mirostat: Mirostat::DEFAULT,
        breakers: DEFAULT_BREAKERS.map(String::from).to_vec(),
        seed: None,
    };
    let template = by_name("chatml").unwrap().template("<s>", "</s>");
    Fixture {
        tokenizer,
        template: Template { tools: Some(KnownTools::Qwen3.texts().into()), ..template },
        metadata,
        defaults: Defaults { sampling, max_tokens: 64 },
    }
});

/// Makes the model, outside of the limits of an input.
pub fn prepare() {
    LazyLock::force(&FIXTURE);
}

/// The model.
pub fn served() -> Served<'static> {
    let Fixture { tokenizer, template, metadata, defaults } = &*FIXTURE;
    Served {
        model: "model",
        path: "models/model.gguf",
        bytes: 1,
        digest: None,
        metadata,
        tokenizer,
        template: Some(template),
        defaults,
        n_ctx: 256,
        parallel: 2,
        max_answers: MAX_ANSWERS,
    }
}

/// Checks the requests of a job, and answers each with a few tokens; gives all that is written.
pub fn answer(job: Job) -> String {
    let Job { requests, mut answer } = job;
    let tokenizer = &FIXTURE.tokenizer;
    assert!((1..=MAX_ANSWERS).contains(&requests.len()));
    let mut now_us = 0;
    let mut all = String::new();
    for (number, request) in requests.iter().enumerate() {
        request.sampling.check().unwrap();
        let n_vocab = tokenizer.n_vocab();
        assert!(!request.tokens.is_empty());
        assert!(request.tokens.iter().all(|&token| (token as usize) < n_vocab));
        assert!(request.logit_bias.iter().all(|&(token, _)| (token as usize) < n_vocab));
        assert!(request.stop.iter().all(|text| !text.is_empty()));
        let n_prompt = request.tokens.len();
        let mut updates = vec![
            Update::Started { slot: 0, n_cached: 0 },
            Update::Prefill { done: n_prompt, total: n_prompt },
        ];
        let probs: Vec<TokenProbs> = request.tokens[..n_prompt.min(3)]
            .iter()
            .map(|&token| TokenProbs::new(token, -1.0, vec![(token, -1.0), (0, f32::MIN)]))
            .collect();
        for probs in &probs {
            let reported = (request.n_probs > 0).then_some(probs);
            updates.push(Update::Token { token: probs.token, text: "é", probs: reported });
            updates.push(Update::Token { token: probs.token, text: "", probs: reported });
            updates.push(Update::Token { token: probs.token, text: CALL, probs: None });
        }
        updates.push(Update::Finished(Finished {
            text: "\u{1}\n".into(),
            stop: Stop::Word(0),
            n_prompt,
            n_cached: 0,
            n_generated: probs.len() * 3,
            n_dropped: 1,
            prompt_us: 1,
            generated_us: 0,
        }));
        assert!(!answer.is_done());
        for update in updates {
            now_us += 1;
            let mut out = String::new();
            answer.on_update(number, update, tokenizer, now_us, &mut out).unwrap();
            all.push_str(&out);
        }
    }
    assert!(answer.is_done());
    all
}
