//! Reads any bytes as the body of a request, and answers what is accepted.
#![no_main]

use std::sync::LazyLock;

use fuzz::limits::Limits;
use kernel::app::server::api::request::tokens::{apply_template, count_tokens};
use kernel::app::server::api::request::tokens::{detokenize, tokenize};
use kernel::app::server::api::{
    ApiError, Defaults, Endpoint, Ids, Job, SamplingDefaults, Served, generate,
};
use kernel::llm::chat::{Declared, Template, by_name};
use kernel::llm::gguf::Gguf;
use kernel::llm::plan::ModelMetadata;
use kernel::llm::sampling::{DEFAULT_BREAKERS, Mirostat, SamplingConfig};
use kernel::llm::scheduler::{Finished, Stop, TokenProbs, Update};
use kernel::llm::tokenizer::Tokenizer;
use libfuzzer_sys::fuzz_target;

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
        name: String::new(),
        architecture: "llama".into(),
        quantization: "Q4_0".into(),
        parameters: 1,
        n_layer: 1,
        n_embd: 1,
        n_head: 1,
        n_head_kv: 1,
        n_ff: 1,
        n_vocab: tokenizer.n_vocab(),
        n_ctx_train: 256,
        chat: Declared::default(),
    };
    let sampling = SamplingDefaults {
        config: SamplingConfig::creative(),
        mirostat: Mirostat::DEFAULT,
        breakers: DEFAULT_BREAKERS.map(String::from).to_vec(),
        seed: None,
    };
    Fixture {
        tokenizer,
        template: by_name("chatml").unwrap().template("<s>", "</s>"),
        metadata,
        defaults: Defaults { sampling, max_tokens: 64 },
    }
});

const MAX_ANSWERS: usize = 4;

/// The sequence breakers of DRY and their copies take memory by the vocabulary.
const LIMITS: Limits = Limits { memory: (512, 4 << 20), ns_per_byte: 50_000 };

// The first byte chooses the endpoint.
fuzz_target!(|data: &[u8]| {
    LazyLock::force(&FIXTURE);
    let Some((first, body)) = data.split_first() else { return };
    LIMITS.hold(data.len(), || run(*first, body));
});

fn run(first: u8, body: &[u8]) {
    let Fixture { tokenizer, template, metadata, defaults } = &*FIXTURE;
    let served = Served {
        model: "model",
        path: "models/model.gguf",
        bytes: 1,
        metadata,
        tokenizer,
        template: Some(template),
        defaults,
        n_ctx: 256,
        parallel: 2,
        max_answers: MAX_ANSWERS,
    };
    let ids = Ids { id: 1, seed: 2, created: 3 };
    let endpoint = match first.wrapping_sub(b'0') % 7 {
        0 => Endpoint::Chat,
        1 => Endpoint::Completions,
        2 => Endpoint::Completion,
        3 => return check_text(tokenize(body, &served)),
        4 => return check_text(detokenize(body, &served)),
        5 => return check_text(apply_template(body, &served)),
        _ => return check_text(count_tokens(body, &served)),
    };
    match generate(endpoint, body, &served, &ids) {
        Ok(job) => answer(endpoint, job),
        Err(error) => check_error(&error),
    }
}

fn check_text(text: Result<String, ApiError>) {
    match text {
        Ok(text) => check_json(&text),
        Err(error) => check_error(&error),
    }
}

fn check_json(text: &str) {
    // Numbers of JSON are finite, and the text is one object or a list of them.
    let value: serde_json::Value = serde_json::from_str(text).unwrap();
    assert!(value.is_object() || value.is_array());
}

fn check_error(error: &ApiError) {
    assert_eq!(error.status, 400, "{error:?}");
    assert!(!error.message.is_empty() && error.message.len() <= 303);
    check_json(&error.body());
}

/// Answers with a few tokens, and checks each event.
fn answer(endpoint: Endpoint, job: Job) {
    let Job { requests, mut answer } = job;
    let tokenizer = &FIXTURE.tokenizer;
    assert!((1..=MAX_ANSWERS).contains(&requests.len()));
    let stream = answer.options().stream;
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
        }
        updates.push(Update::Finished(Finished {
            text: "\u{1}\n".into(),
            stop: Stop::Word(0),
            n_prompt,
            n_cached: 0,
            n_generated: probs.len() * 2,
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
    if !stream {
        return check_json(&all);
    }
    let mut events: Vec<&str> = all.split_terminator("\n\n").collect();
    assert!(all.ends_with("\n\n"));
    if endpoint != Endpoint::Completion {
        assert_eq!(events.pop(), Some("data: [DONE]"));
    }
    events.iter().for_each(|event| check_json(event.strip_prefix("data: ").unwrap()));
}
