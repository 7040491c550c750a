use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::ControlFlow;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::backend::{
    BackendOptions, ContextOptions, InferenceResult, ModelBuffer, Plan, Progress, StopReason,
    TransformerBackend,
};
use crate::llm::Error;
use crate::llm::engine_tests::synthetic::{N_CTX_TRAIN, Synthetic};
use crate::llm::gguf::write::Builder;
use crate::llm::gguf::{Gguf, TensorType};
use crate::llm::kernels::fixtures::Noise;
use crate::llm::kv_cache::CacheType;
use crate::llm::plan::{MemoryNeeded, answer_bytes};
use crate::llm::quantize::WeightType;
use crate::llm::sampling::SamplingConfig;
use crate::llm::tokenizer::Tokenizer;
use crate::llm::workers::SingleThread;

/// A clock that goes on by 1 ms with each look.
fn now_us() -> u64 {
    static NOW: AtomicU64 = AtomicU64::new(0);
    NOW.fetch_add(1000, Ordering::Relaxed)
}

fn context(n_ctx: Option<usize>) -> ContextOptions {
    ContextOptions { n_ctx, ..ContextOptions::default() }
}

fn backend(n_ctx: Option<usize>) -> TransformerBackend {
    TransformerBackend::with_options(BackendOptions {
        context: context(n_ctx),
        workers: &SingleThread,
        now_us,
    })
}

fn builder() -> Builder {
    Synthetic::new(WeightType::F32).builder()
}

fn loaded(file: &[u8], n_ctx: Option<usize>) -> TransformerBackend {
    let mut backend = backend(n_ctx);
    backend.load_bytes(ModelBuffer::from(file)).unwrap();
    backend
}

fn memory_needed(
    prefix: &[u8],
    file_bytes: u64,
    context: ContextOptions,
) -> Result<MemoryNeeded, Error> {
    Plan::read(prefix, file_bytes)?.needed(context)
}

/// The positions, and the bytes of KV cache and arena, of the model that is loaded.
fn sizes(backend: &TransformerBackend) -> (usize, usize, usize) {
    let workspace = backend.workspace().unwrap();
    let state = workspace.state_shape();
    (state.n_ctx, state.bytes().unwrap(), workspace.arena_bytes())
}

fn infer(backend: &mut TransformerBackend, prompt: &str, n: usize) -> InferenceResult {
    backend.infer(prompt, n).unwrap()
}

#[track_caller]
fn refused(file: &[u8], words: &str) -> Error {
    let error = backend(None).load_bytes(ModelBuffer::from(file)).unwrap_err();
    assert!(alloc::format!("{error}").contains(words), "{error} does not say {words:?}");
    error
}

#[test]
fn a_model_is_described() {
    let mut backend = backend(Some(31));
    assert!(!backend.is_loaded() && backend.model_metadata().is_none());
    let file = builder().build();
    backend.load_bytes(ModelBuffer::from(&file[..])).unwrap();
    assert!(backend.is_loaded());
    let model = backend.model_metadata().unwrap();
    assert_eq!((&model.name[..], &model.architecture[..]), ("synthetic", "llama"));
    assert_eq!((model.n_layer, model.n_embd, model.n_head, model.n_head_kv), (2, 66, 6, 2));
    assert_eq!((model.n_ff, model.n_vocab, model.n_ctx_train), (37, 267, 97));
    assert_eq!(model.quantization, "F32");
    let layer = 2 * 66 + 2 * 66 * 66 + 2 * 22 * 66 + 3 * 37 * 66;
    assert_eq!(model.parameters, 2 * 267 * 66 + 66 + 2 * layer);
    let (n_ctx, kv_cache_bytes, _) = sizes(&backend);
    assert_eq!((n_ctx, kv_cache_bytes), (31, 2 * 2 * 31 * 22 * 2));
}

#[test]
fn the_memory_needed_is_known_before_the_model_is_loaded() {
    let file = builder().build();
    let data = Gguf::parse(&file).unwrap().data_offset() as usize;
    let needed = memory_needed(&file[..data], file.len() as u64, context(Some(31))).unwrap();
    let (_, kv_cache_bytes, arena_bytes) = sizes(&loaded(&file, Some(31)));
    assert_eq!((needed.kv_cache_bytes, needed.arena_bytes), (kv_cache_bytes, arena_bytes));
    assert!(needed.total() > kv_cache_bytes + arena_bytes);
    let half = memory_needed(&file[..data / 2], file.len() as u64, context(None));
    assert!(matches!(half, Err(Error::HeaderCutShort { .. })), "{half:?}");
}

#[test]
fn the_context_is_256_or_what_the_model_has_or_what_is_asked_for() {
    let file = builder().build();
    assert_eq!(sizes(&loaded(&file, None)).0, N_CTX_TRAIN as usize);
    assert_eq!(sizes(&loaded(&file, Some(97))).0, 97);
    for n_ctx in [0, 98, usize::MAX] {
        let error = backend(Some(n_ctx)).load_bytes(ModelBuffer::from(&file[..])).unwrap_err();
        let what = alloc::format!("`context` is {n_ctx}, not between 1 and the model's 97");
        assert_eq!(error, Error::InvalidConfig { what });
    }
}

/// The result of loading a model in this context.
#[track_caller]
fn invalid(file: &[u8], context: ContextOptions, words: &str) {
    let options = BackendOptions { context, workers: &SingleThread, now_us };
    let error =
        TransformerBackend::with_options(options).load_bytes(ModelBuffer::from(file)).unwrap_err();
    assert!(matches!(error, Error::InvalidConfig { .. }), "{error}");
    assert!(alloc::format!("{error}").contains(words), "{error} does not say {words:?}");
}

#[test]
fn a_context_that_a_model_cannot_have_is_refused() {
    // Heads are 11 wide.
    let file = builder().build();
    let q8_0 = ContextOptions { kv_cache: CacheType::Q8_0, ..ContextOptions::default() };
    invalid(&file, q8_0, "`kv_cache` is q8_0, which takes heads whose width 32 divides");
    let shift = ContextOptions { context_shift: true, ..context(Some(7)) };
    invalid(&file, shift, "`context` is 7, but `context_shift` takes at least 8");
    let gpt2 = include_bytes!("../../../../test_models/architectures/gpt2-Q8_0.gguf");
    let shift = ContextOptions { context_shift: true, ..ContextOptions::default() };
    invalid(gpt2, shift, "`context_shift` is on, but a model of the architecture `gpt2`");
}

#[test]
fn the_memory_for_a_cache_of_each_type_is_known_exactly() {
    let synthetic = Synthetic { n_head: 8, n_rot: 32, ..Synthetic::new(WeightType::Q8_0) };
    let file = synthetic.builder().build();
    let data = Gguf::parse(&file).unwrap().data_offset() as usize;
    // Two layers of two heads of keys and values, of 32 numbers each.
    for (kind, bytes) in [(CacheType::F32, 128), (CacheType::F16, 64), (CacheType::Q8_0, 34)] {
        for context_shift in [false, true] {
            let context = ContextOptions { kv_cache: kind, context_shift, ..context(Some(31)) };
            let mut backend = TransformerBackend::with_options(BackendOptions {
                context,
                workers: &SingleThread,
                now_us,
            });
            backend.load_bytes(ModelBuffer::from(&file[..])).unwrap();
            let (_, kv_cache_bytes, arena_bytes) = sizes(&backend);
            assert_eq!(kv_cache_bytes, 31 * 2 * 2 * 2 * bytes);
            let needed = memory_needed(&file[..data], file.len() as u64, context).unwrap();
            assert_eq!((needed.kv_cache_bytes, needed.arena_bytes), (kv_cache_bytes, arena_bytes));
        }
    }
}

#[test]
fn layers_with_a_window_keep_what_a_batch_sees_of_it() {
    // One layer of two sees 11 positions, through one head of 2 times 32 numbers. The tokens of a
    // batch of 32 see 31 more together.
    let file = include_bytes!("../../../../test_models/architectures/gemma2-Q8_0.gguf");
    let bytes = |n_ctx, context_shift| {
        let context = ContextOptions { context_shift, ..context(Some(n_ctx)) };
        memory_needed(file, file.len() as u64, context).unwrap().kv_cache_bytes
    };
    let row = 2 * 2 * 32 * 2;
    assert_eq!(bytes(61, false), (61 + 11 + 31) * row);
    assert_eq!(bytes(41, false), (41 + 41) * row);
    assert_eq!(bytes(7, false), (7 + 7) * row);
    // A context that shifts keeps all positions in all layers.
    assert_eq!(bytes(61, true), (61 + 61) * row);
}

#[test]
fn generation_stops_at_the_number_of_tokens() {
    let mut backend = loaded(&builder().build(), None);
    let mut streamed = String::new();
    let result = backend.infer_streaming("abc", 7, &mut |progress| {
        if let Progress::Text(text) = progress {
            streamed.push_str(text);
        }
        ControlFlow::Continue(())
    });
    let result = result.unwrap();
    assert_eq!((result.stop, result.tokens_emitted), (StopReason::MaxTokens, 7));
    assert_eq!((result.tokens.len(), result.prompt_tokens), (7, 3));
    assert_eq!(streamed, result.output);
    assert!(result.latency_us > result.first_token_us && result.first_token_us > 0);
    assert!(result.prompt_tokens_per_s > 0.0 && result.tokens_per_s > 0.0);
    assert_eq!(result.arena_bytes, result.arena_peak_bytes);
    assert_eq!(infer(&mut backend, "abc", 0).stop, StopReason::MaxTokens);
    assert_eq!(infer(&mut backend, "abc", 7).tokens, result.tokens);
}

#[test]
fn generation_stops_at_the_end_of_the_text() {
    let file = builder().build();
    let tokens = infer(&mut loaded(&file, None), "abc", 7).tokens;
    let place = 1 + tokens[1..].iter().position(|t| *t != tokens[0]).unwrap();
    // The same model, where one of these tokens ends the text.
    let file = builder().u32("tokenizer.ggml.eos_token_id", tokens[place]).build();
    let mut backend = loaded(&file, None);
    let result = infer(&mut backend, "abc", 7);
    assert_eq!(result.stop, StopReason::EndOfSequence);
    assert_eq!(result.tokens, tokens[..place]);
    // The token that ended it is part of the text that goes on: as if it had been the prompt's.
    let more = backend.extend("", 7 - place, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(more.prompt_tokens, 1);
    backend.set_ignore_end(true);
    assert_eq!(infer(&mut backend, "abc", 7).tokens, tokens);
    infer(&mut backend, "abc", place + 1);
    let same = backend.extend("", more.tokens.len(), &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(same.tokens, more.tokens);
}

#[test]
fn generation_stops_when_the_context_is_full() {
    let mut backend = loaded(&builder().build(), Some(11));
    let result = infer(&mut backend, "abc", 100);
    // 3 of the prompt, 8 generated ones that are in the context, and the one after them.
    assert_eq!((result.stop, result.tokens_emitted), (StopReason::ContextFull, 9));
    // A token for each letter, for the space before them, and for the beginning.
    let error = backend.infer("cacacacacaca", 1);
    assert_eq!(error, Err(Error::ContextFull { prompt: 14, n_ctx: 11 }));
}

/// A backend in which no token ends a text.
fn endless(context: ContextOptions) -> TransformerBackend {
    let mut backend = TransformerBackend::with_options(BackendOptions {
        context,
        workers: &SingleThread,
        now_us,
    });
    backend.set_ignore_end(true);
    backend.load_bytes(ModelBuffer::from(&builder().build()[..])).unwrap();
    backend
}

/// A backend with context shift that keeps `keep` tokens of the first prompt.
fn shifting(n_ctx: usize, keep: usize) -> TransformerBackend {
    endless(ContextOptions { context_shift: true, keep, ..context(Some(n_ctx)) })
}

#[test]
fn a_text_that_shifts_outgrows_the_context() {
    let mut backend = shifting(11, 0);
    let result = infer(&mut backend, "abc", 101);
    assert_eq!((result.stop, result.tokens_emitted), (StopReason::MaxTokens, 101));
    // With the three of the prompt, all but the last are processed: 103. Ten tokens fit. The first
    // one, the begin token, stays. Half of the others are dropped: four.
    assert_eq!(result.context_shifts, (103_usize - 10).div_ceil(4));
    // Up to the first time nothing is different.
    let still = infer(&mut loaded(&builder().build(), Some(11)), "abc", 8);
    assert_eq!(result.tokens[..8], still.tokens);
    // It goes on as it would have without a break, and starts anew as if nothing had been.
    let mut parts = infer(&mut backend, "abc", 37).tokens;
    parts.extend(backend.extend("", 64, &mut |_| ControlFlow::Continue(())).unwrap().tokens);
    assert_eq!(parts, result.tokens);
    // If two tokens more are kept, three go each time.
    let kept = infer(&mut shifting(11, 2), "abc", 101);
    assert_eq!(kept.context_shifts, (103_usize - 10).div_ceil(3));
    assert_ne!(kept.tokens, result.tokens);
    assert_eq!(infer(&mut shifting(11, usize::MAX), "abc", 101).tokens, kept.tokens);
}

#[test]
fn a_chat_that_shifts_takes_any_number_of_prompts() {
    let mut backend = shifting(13, usize::MAX);
    infer(&mut backend, "abc", 7);
    for _ in 0..17 {
        let more = backend.extend("cab", 3, &mut |_| ControlFlow::Continue(())).unwrap();
        assert_eq!((more.stop, more.tokens_emitted), (StopReason::MaxTokens, 3));
    }
    // But each prompt must fit beside the kept tokens and some room.
    let full = backend.extend("cabcab cabcab", 3, &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert!(matches!(full, Error::ContextFull { n_ctx: 9, .. }), "{full}");
    assert!(backend.infer("cacacacacaca", 1).is_err());
}

#[test]
fn a_prompt_far_too_long_is_refused_before_it_is_encoded() {
    let mut backend = loaded(&builder().build(), Some(11));
    let infer = |backend: &mut TransformerBackend, prompt: &str| backend.infer(prompt, 1);
    // The longest token has the six bytes of "<0x00>": no prompt of 67 bytes has 11 tokens. The
    // prompt is not encoded, though it would have a token for each byte.
    let full = |prompt| Err(Error::ContextFull { prompt, n_ctx: 11 });
    assert_eq!(infer(&mut backend, &"q".repeat(67)), full(12));
    assert_eq!(infer(&mut backend, &"q".repeat(66)), full(68));
    // The positions in use count.
    infer(&mut backend, "abc").unwrap();
    let more = backend.extend(&"q".repeat(43), 1, &mut |_| ControlFlow::Continue(()));
    assert_eq!(more, full(12));
}

#[test]
fn a_prompt_that_is_too_long_is_cut_if_asked_for() {
    let cut = |keep, max_tokens, prompt: &str| {
        let mut backend = endless(ContextOptions { keep, ..context(Some(11)) });
        backend.set_cut_prompt(true);
        backend.infer(prompt, max_tokens)
    };
    let tokens = |prompt: &str, max_tokens| {
        infer(&mut endless(context(Some(11))), prompt, max_tokens).tokens
    };
    // Fourteen tokens: of the beginning, the space before the text, and each character. The begin
    // token stays, and so do the kept tokens.
    for (keep, max_tokens, prompt, left, n_cut) in [
        (0, 1, "cac cacacaca", "cacacaca", 4),
        (0, 3, "caaca cacaca", "cacaca", 6),
        (0, 100, "cacaaca caca", "caca", 8),
        (2, 2, "cacaac cacac", "c cacac", 5),
    ] {
        let result = cut(keep, max_tokens, prompt).unwrap();
        let n = (result.prompt_tokens_cut, result.prompt_tokens);
        assert_eq!(n, (n_cut, 14 - n_cut), "{prompt}");
        assert_eq!(result.tokens, tokens(left, max_tokens), "{prompt}");
    }
    // One that fits is not touched, even if that leaves no room for the answer.
    let fits = cut(0, 5, "cacacacac").unwrap();
    assert_eq!((fits.prompt_tokens_cut, fits.prompt_tokens, fits.tokens_emitted), (0, 11, 1));
    // All is to be kept: there is nothing to cut.
    let full = Err(Error::ContextFull { prompt: 14, n_ctx: 11 });
    assert_eq!(cut(usize::MAX, 1, "cacacacacaca"), full);
}

#[test]
fn an_answer_of_broken_bytes_fits_the_memory_reserved_for_it() {
    let file = Builder::new()
        .string("tokenizer.ggml.model", "llama")
        .strings(
            "tokenizer.ggml.tokens",
            &[&b"a"[..], b"\xff\xfe\xff\xfe\xff\xfe\xff", b"\xf0\x9f"],
        )
        .build();
    let tokenizer = Tokenizer::from_gguf(&Gguf::parse(&file).unwrap()).unwrap();
    let output = tokenizer.decode(&[1, 1, 1, 1, 1, 2]).unwrap();
    assert_eq!(output, "\u{fffd}".repeat(5 * 7 + 1));
    assert!(output.len() <= answer_bytes(6, &tokenizer));
}

#[test]
fn the_reader_can_stop_the_generation() {
    let mut backend = loaded(&builder().build(), None);
    let mut calls = 0;
    let result = backend.infer_streaming("abc", 50, &mut |_| {
        calls += 1;
        if calls == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!((result.unwrap().stop, calls), (StopReason::Cancelled, 3));
}

#[test]
fn a_text_goes_on_where_it_stopped() {
    let mut backend = loaded(&builder().build(), None);
    let whole = infer(&mut backend, "abc", 17).tokens;
    let mut parts = infer(&mut backend, "abc", 5).tokens;
    for n in [1, 4, 7] {
        let more = backend.extend("", n, &mut |_| ControlFlow::Continue(())).unwrap();
        // The last token of the part before is the prompt of this one.
        assert_eq!(more.prompt_tokens, 1);
        parts.extend(more.tokens);
    }
    assert_eq!(parts, whole);

    // A prompt in between counts, as it changes the text.
    infer(&mut backend, "abc", 5);
    let more = backend.extend("b", 12, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(more.prompt_tokens, 3);
    assert_ne!(more.tokens, whole[5..]);
    backend.reset();
    let anew = backend.extend("abc", 17, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(anew.tokens, whole);
}

#[test]
fn a_prompt_that_does_not_fit_leaves_the_text_as_it_was() {
    let mut backend = loaded(&builder().build(), Some(23));
    let whole = infer(&mut backend, "abc", 9).tokens;
    let mut parts = infer(&mut backend, "abc", 4).tokens;
    let long = "cab".repeat(20);
    assert!(backend.extend(&long, 5, &mut |_| ControlFlow::Continue(())).is_err());
    parts.extend(backend.extend("", 5, &mut |_| ControlFlow::Continue(())).unwrap().tokens);
    assert_eq!(parts, whole);
}

#[test]
fn the_seed_decides_the_text() {
    let mut backend = loaded(&builder().build(), None);
    let mut draw = |seed| {
        backend.set_sampling_config(SamplingConfig { seed, ..SamplingConfig::creative() });
        let first = infer(&mut backend, "abc", 19).tokens;
        assert_eq!(infer(&mut backend, "abc", 19).tokens, first);
        first
    };
    assert_eq!(draw(3), draw(3));
    assert_ne!(draw(3), draw(5));
}

#[test]
fn the_penalties_count_the_prompt_and_the_answer() {
    let file = builder().build();
    let tokenizer = Tokenizer::from_gguf(&Gguf::parse(&file).unwrap()).unwrap();
    let prompt = tokenizer.encode("abc", true, false);
    let mut backend = loaded(&file, None);
    // Without penalties the model repeats a token of the prompt.
    assert!(prompt.contains(&infer(&mut backend, "abc", 1).tokens[0]));

    // So high that no token is repeated, not even of the prompt.
    let sampling = SamplingConfig { frequency_penalty: 1000.0, ..SamplingConfig::greedy() };
    backend.set_sampling_config(sampling);
    let first = infer(&mut backend, "abc", 7).tokens;
    let more = backend.extend("", 7, &mut |_| ControlFlow::Continue(())).unwrap().tokens;
    let mut text = [&prompt[..], &first, &more].concat();
    text.sort_unstable();
    text.dedup();
    assert_eq!(text.len(), prompt.len() + 14, "{first:?} {more:?}");

    // For a new text the one before does not count.
    assert_eq!(infer(&mut backend, "abc", 7).tokens, first);
    backend.reset();
    let anew = backend.extend("abc", 7, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(anew.tokens, first);
}

#[test]
fn dry_counts_the_prompt_and_the_answer_and_ends_where_it_is_told() {
    let mut backend = loaded(&builder().build(), None);
    backend.set_ignore_end(true);
    let has_twins = |tokens: &[u32]| {
        let mut pairs: Vec<_> = tokens.windows(2).collect();
        pairs.sort_unstable();
        pairs.windows(2).any(|twins| twins[0] == twins[1])
    };
    let plain = infer(&mut backend, "abcabc", 61);
    assert!(has_twins(&plain.tokens));

    // So high that no two tokens come together twice, nor two of the prompt's.
    let dry_multiplier = 1000.0;
    backend.set_sampling_config(SamplingConfig {
        dry_multiplier,
        dry_allowed_length: 1,
        dry_penalty_last_n: 97,
        ..SamplingConfig::greedy()
    });
    backend.set_dry_breakers(&[]);
    let dry = infer(&mut backend, "abcabc", 61);
    assert!(!has_twins(&dry.tokens), "{:?}", dry.tokens);
    assert_eq!(infer(&mut backend, "abcabc", 61).tokens, dry.tokens);

    // With every visible character as a breaker, pairs may be repeated.
    let visible: Vec<String> = ('!'..='~').map(String::from).collect();
    backend.set_dry_breakers(&visible);
    let broken = infer(&mut backend, "abcabc", 61);
    assert!(has_twins(&broken.tokens), "{:?}", broken.tokens);
    backend.set_dry_breakers(&[]);
    assert_eq!(infer(&mut backend, "abcabc", 61).tokens, dry.tokens);
}

#[test]
fn settings_and_prompts_without_sense_are_refused() {
    assert!(matches!(backend(None).infer("a", 1), Err(Error::InvalidConfig { .. })));
    let mut backend = loaded(&builder().build(), None);
    backend.set_sampling_config(SamplingConfig { top_p: 2.0, ..SamplingConfig::creative() });
    assert!(matches!(backend.infer("a", 1), Err(Error::InvalidConfig { .. })));
    let mut silent = loaded(&builder().bool("tokenizer.ggml.add_bos_token", false).build(), None);
    assert!(matches!(silent.infer("", 1), Err(Error::InvalidConfig { .. })));
}

#[test]
fn models_that_need_more_than_there_is_are_unsupported() {
    let with = |key: &str, value: &str| {
        let file = builder().build();
        let gguf = Gguf::parse(&file).unwrap();
        let mut text = Vec::new();
        crate::llm::gguf::write::put_string(&mut text, value.as_bytes());
        let at = gguf.entry(key).unwrap().at as usize + 4;
        // The new values have the length of the old ones.
        let mut file = file.clone();
        file[at..at + text.len()].copy_from_slice(&text);
        file
    };
    for (file, words) in [
        (
            with("general.architecture", "mamba"),
            "the architecture `mamba`; those that work are gemma,",
        ),
        (with("tokenizer.ggml.model", "gpt2x"), "the tokenizer `gpt2x`"),
        (builder().u32("llama.expert_count", 8).build(), "experts"),
        (builder().u32("split.count", 3).build(), "3 files (`split.count`) and not 1"),
        (builder().string("llama.rope.scaling.type", "bent").build(), "the RoPE scaling `bent`"),
        (builder().u32("llama.attention.value_length", 3).build(), "values of another width"),
        (
            builder().tensor_f32("blk.0.attn_sinks.weight", &[3], &[0.0; 3]).build(),
            "the tensor `blk.0.attn_sinks.weight`",
        ),
    ] {
        assert!(matches!(refused(&file, words), Error::Unsupported { .. }));
    }
    let tied = Synthetic { tied: true, ..Synthetic::new(WeightType::Q4_0) };
    let data = vec![0; 267 * 144];
    let file = tied.builder().tensor("output.weight", &[256, 267], TensorType::NVFP4, data);
    let error = refused(&file.build(), "the tensor type NVFP4 (of `output.weight`)");
    assert!(matches!(error, Error::Unsupported { .. }));
}

#[test]
fn damaged_models_are_parse_errors() {
    let synthetic = Synthetic::new(WeightType::F32);
    for (file, words) in [
        (Synthetic { n_head: 0, ..synthetic.clone() }, "head_count` is 0"),
        (Synthetic { n_head: 7, ..synthetic.clone() }, "does not divide"),
        (Synthetic { n_head_kv: 4, ..synthetic.clone() }, "does not divide the 6 heads"),
        (Synthetic { n_rot: 5, ..synthetic.clone() }, "rope.dimension_count` is 5"),
        (Synthetic { n_rot: 12, ..synthetic.clone() }, "rope.dimension_count` is 12"),
    ]
    .map(|(synthetic, words)| (damaged(&synthetic), words))
    {
        assert!(matches!(refused(&file, words), Error::ParseError { .. }));
    }
    let wrong = Synthetic { tied: true, ..synthetic.clone() };
    let file = wrong.builder().tensor_f32("output.weight", &[66, 3], &[0.0; 198]).build();
    refused(&file, "`output.weight` has the shape [66, 3], expected [66, 267]");
    // One layer more than there is.
    let file = synthetic.builder().build();
    let gguf = Gguf::parse(&file).unwrap();
    let at = gguf.entry("llama.block_count").unwrap().at as usize + 4;
    let mut more = file.clone();
    more[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    refused(&more, "llama.block_count` is 4294967295");
    more[at..at + 4].copy_from_slice(&1_000_000_000_u32.to_le_bytes());
    refused(&more, "the tensor `blk.2.attn_q.weight` is missing");
    refused(&Builder::new().build(), "the key `general.architecture` is missing");
}

#[test]
fn no_damage_to_the_header_makes_the_engine_fail_otherwise() {
    let sound = Synthetic { n_layer: 1, ..Synthetic::new(WeightType::F32) }.builder().build();
    let header = Gguf::parse(&sound).unwrap().data_offset() as usize;
    let mut noise = Noise::new(41);
    let mut ran = 0;
    for _ in 0..3001 {
        let mut file = sound.clone();
        for _ in 0..1 + noise.byte() % 3 {
            let at = (noise.float().abs() * header as f32) as usize % header;
            file[at] = noise.byte();
        }
        // The file is accepted or refused without a panic, and an accepted model runs.
        let mut backend = backend(None);
        if backend.load_bytes(ModelBuffer::from(&file[..])).is_ok()
            && backend.infer("abc", 3).is_ok()
        {
            ran += 1;
        }
    }
    // Most of the header is text, which may be any.
    assert!(ran > 100, "{ran}");
}

/// The file of a shape that makes no sense: only the metadata has it.
fn damaged(synthetic: &Synthetic) -> Vec<u8> {
    let sound = Synthetic::new(WeightType::F32);
    let file = sound.builder().build();
    let gguf = Gguf::parse(&file).unwrap();
    let mut damaged = file.clone();
    for (key, value) in [
        ("attention.head_count", synthetic.n_head),
        ("attention.head_count_kv", synthetic.n_head_kv),
        ("rope.dimension_count", synthetic.n_rot),
    ] {
        let at = gguf.entry(&alloc::format!("llama.{key}")).unwrap().at as usize + 4;
        damaged[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    damaged
}
