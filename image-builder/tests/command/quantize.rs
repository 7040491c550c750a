//! `image-builder quantize`, against checksums of llama.cpp's quantiser.
//!
//! `test_models/quantize.py` made the checksums, with the same models.

use std::collections::BTreeMap;
use std::fs;

use kernel::backend::{BackendOptions, ContextOptions, ModelBuffer, TransformerBackend};
use kernel::llm::gguf::write::Builder;
use kernel::llm::gguf::{Gguf, TensorType};
use kernel::llm::quantize::{WeightType, dequantize_row};
use kernel::llm::sampling::SplitMix64;
use kernel::llm::workers::SingleThread;
use sha2::{Digest, Sha256};

use super::common::{Place, read};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../test_models/");

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A model of random weights: see `test_models/quantize.py`.
struct Source {
    name: &'static str,
    architecture: &'static str,
    layers: u32,
    heads: u32,
    heads_kv: Option<u32>,
    kind: WeightType,
    /// Names, columns and rows of tensors: those outside the layers, and those in each.
    outside: &'static [(&'static str, usize, usize)],
    layer: &'static [(&'static str, usize, usize)],
}

const SOURCES: [Source; 4] = [
    Source {
        name: "llama",
        architecture: "llama",
        layers: 16,
        heads: 8,
        heads_kv: Some(2),
        kind: WeightType::F32,
        outside: &[
            ("token_embd.weight", 256, 11),
            ("output_norm.weight", 256, 1),
            ("output.weight", 256, 11),
            ("rope_freqs.weight", 16, 1),
        ],
        layer: &[
            ("attn_norm.weight", 256, 1),
            ("attn_q.weight", 256, 7),
            ("attn_k.weight", 256, 3),
            ("attn_v.weight", 256, 3),
            ("attn_output.weight", 256, 7),
            ("ffn_norm.weight", 256, 1),
            ("ffn_gate.weight", 256, 5),
            ("ffn_up.weight", 256, 5),
            ("ffn_down.weight", 512, 3),
        ],
    },
    Source {
        name: "gpt2",
        architecture: "gpt2",
        layers: 12,
        heads: 4,
        heads_kv: None,
        kind: WeightType::F16,
        outside: &[
            ("token_embd.weight", 256, 13),
            ("position_embd.weight", 256, 5),
            ("output_norm.weight", 256, 1),
            ("output_norm.bias", 256, 1),
        ],
        layer: &[
            ("attn_norm.weight", 256, 1),
            ("attn_qkv.weight", 256, 9),
            ("attn_qkv.bias", 9, 1),
            ("attn_output.weight", 256, 3),
            ("ffn_up.weight", 256, 4),
            ("ffn_down.weight", 1024, 3),
        ],
    },
    Source {
        name: "qwen2",
        architecture: "qwen2",
        layers: 80,
        heads: 8,
        heads_kv: Some(1),
        kind: WeightType::BF16,
        outside: &[("token_embd.weight", 96, 5), ("output.weight", 96, 5)],
        layer: &[("attn_v.weight", 256, 2), ("ffn_down.weight", 256, 2)],
    },
    Source {
        name: "odd",
        architecture: "llama",
        layers: 5,
        heads: 4,
        heads_kv: Some(4),
        kind: WeightType::F32,
        outside: &[("token_embd.weight", 100, 3)],
        layer: &[
            ("attn_v.weight", 96, 2),
            ("attn_output.weight", 100, 2),
            ("ffn_down.weight", 288, 3),
        ],
    },
];

impl Source {
    fn builder(&self) -> Builder {
        let Source { architecture, kind, .. } = *self;
        let epsilon = match architecture {
            "gpt2" => "layer_norm_epsilon",
            _ => "layer_norm_rms_epsilon",
        };
        let mut builder = Builder::new()
            .string("general.architecture", architecture)
            .u32(&format!("{architecture}.context_length"), 64)
            .u32(&format!("{architecture}.embedding_length"), 256)
            .u32(&format!("{architecture}.block_count"), self.layers)
            .u32(&format!("{architecture}.feed_forward_length"), 512)
            .u32(&format!("{architecture}.attention.head_count"), self.heads);
        if let Some(heads) = self.heads_kv {
            builder = builder.u32(&format!("{architecture}.attention.head_count_kv"), heads);
        }
        builder = builder
            .f32(&format!("{architecture}.attention.{epsilon}"), 1e-5)
            .u32("general.file_type", 1)
            .strings("tokenizer.ggml.tokens", &["a", "b", "c"]);

        let mut noise = SplitMix64::new(self.name.len() as u64);
        let outside = self.outside.iter().map(|&(name, c, r)| (name.to_owned(), c, r));
        let layers = (0..self.layers).flat_map(|i| {
            self.layer.iter().map(move |&(name, c, r)| (format!("blk.{i}.{name}"), c, r))
        });
        for (name, columns, rows) in outside.chain(layers) {
            let weights: Vec<f32> = (0..columns * rows)
                .map(|_| ((noise.next_u64() >> 40) as f32 / (1 << 24) as f32 - 0.5) / 8.0)
                .collect();
            if rows == 1 {
                builder = builder.tensor_f32(&name, &[columns as u64], &weights);
                continue;
            }
            let mut data = vec![0; kind.row_bytes(weights.len())];
            kind.quantizer().unwrap()(&weights, &mut data);
            let dims = [columns as u64, rows as u64];
            builder = builder.tensor(&name, &dims, kind.tensor_type(), data);
        }
        builder
    }
}

#[test]
fn files_are_those_of_llama_cpp() {
    let goldens = fs::read(format!("{ROOT}goldens/quantize.json")).unwrap();
    let goldens: serde_json::Value = serde_json::from_slice(&goldens).unwrap();
    let place = Place::new();
    for source in SOURCES {
        let file = source.builder().build();
        let sums = &goldens["models"][source.name];
        let mut sums: BTreeMap<&str, &str> = sums
            .as_object()
            .unwrap()
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str().unwrap()))
            .collect();
        assert_eq!(digest(&file), sums.remove("source").unwrap(), "{}", source.name);
        place.write("in.gguf", file);
        assert_eq!(sums.len(), 2 * 17);
        for (arguments, sum) in sums {
            let arguments =
                ["quantize", "in.gguf", "out.gguf"].into_iter().chain(arguments.split(' '));
            place.run(arguments.clone()).succeeds();
            let actual = digest(&read(&place.path("out.gguf")));
            assert_eq!(actual, sum, "{} {:?}", source.name, arguments.collect::<Vec<_>>());
        }
    }
}

/// The trained model, in F32.
fn tiny_in_f32() -> Builder {
    let file = fs::read(format!("{ROOT}tiny.gguf")).unwrap();
    let gguf = Gguf::parse(&file).unwrap();
    let mut builder = Builder::new();
    for (key, value) in gguf.raw_metadata() {
        builder = builder.raw(key, value.into());
    }
    for tensor in gguf.tensors() {
        let mut weights = vec![0.0; tensor.elements() as usize];
        let kind = WeightType::from_tensor_type(tensor.kind).unwrap();
        dequantize_row(kind, gguf.data(tensor).unwrap(), &mut weights);
        builder = builder.tensor_f32(tensor.name, &tensor.dims[..tensor.n_dims], &weights);
    }
    builder
}

#[test]
fn a_quantised_model_answers() {
    let place = Place::new();
    place.write("tiny.gguf", tiny_in_f32().build());
    for (kind, described) in [("q4_k_m", "Q4_K"), ("Q3_K", "Q3_K"), ("Q5_1", "Q5_1")] {
        let said = place.run(["quantize", "tiny.gguf", "out.gguf", kind]).succeeds().stdout();
        assert!(said.contains(described) && said.contains("13 F32"), "{said}");
        let file = read(&place.path("out.gguf"));
        let options = BackendOptions {
            context: ContextOptions::default(),
            workers: &SingleThread,
            now_us: || 0,
        };
        let mut backend = TransformerBackend::with_options(options);
        backend.load_bytes(ModelBuffer::from(&file[..])).unwrap();
        let prompt = "The capital of France is";
        let result = backend.infer(prompt, 7).unwrap();
        assert!(result.output.starts_with(" Paris"), "{kind}: {}", result.output);
    }
}

#[test]
fn a_refusal_leaves_no_output() {
    let place = Place::new();
    let source = || Source { layers: 1, ..SOURCES[0] };
    let whole = source().builder().build();
    let with = |value: f32| {
        let weights: Vec<f32> = (0..512).map(|i| if i == 401 { value } else { 0.5 }).collect();
        source().builder().tensor_f32("blk.0.more.weight", &[256, 2], &weights).build()
    };
    place.write("good.gguf", &whole);
    place.write("text.gguf", "This is no model.");
    place.write("cut.gguf", &whole[..whole.len() - 1]);
    place.write("none.gguf", with(f32::NAN));
    place.write("large.gguf", with(1e9));
    place.write("falcon.gguf", Builder::new().string("general.architecture", "falcon").build());
    let experts = source().builder().u32("llama.expert_count", 8).build();
    place.write("experts.gguf", experts);
    let no_heads = Builder::new().string("general.architecture", "llama");
    place.write("no heads.gguf", no_heads.u32("llama.block_count", 7).build());
    let q8_0 = vec![0; 2 * 8 * 34];
    let quantised = source().builder().tensor("a.weight", &[256, 2], TensorType::Q8_0, q8_0);
    place.write("quantised.gguf", quantised.build());
    let mut before = place.names();

    for there_is_one_already in [false, true] {
        if there_is_one_already {
            place.write("out.gguf", "what was there before");
            before.push("out.gguf".into());
            before.sort();
        }
        for (input, kind, says) in [
            ("text.gguf", "Q8_0", "is no GGUF file"),
            ("cut.gguf", "Q8_0", "damaged or not all there"),
            ("missing.gguf", "Q8_0", "cannot read missing.gguf"),
            ("none.gguf", "Q4_K_M", "`blk.0.more.weight` has a weight that is no finite number"),
            ("large.gguf", "Q4_K_M", "`blk.0.more.weight` has a weight that is too large"),
            ("large.gguf", "F16", "too large"),
            ("falcon.gguf", "Q8_0", "the architecture `falcon`"),
            ("experts.gguf", "Q8_0", "mixtures of experts"),
            ("no heads.gguf", "Q8_0", "`llama.attention.head_count` is missing"),
            ("quantised.gguf", "Q4_K_M", "`a.weight` is Q8_0 already"),
        ] {
            place.run(["quantize", input, "out.gguf", kind]).fails(1, says);
            assert_eq!(place.names(), before, "{input}");
        }
        place.run(["quantize", "good.gguf", "out.gguf", "Q9"]).fails(2, "Q4_K_M");
        place.run(["quantize", "good.gguf", "out.gguf"]).fails(2, "TYPE");
        place.run(["quantize", "good.gguf", "./good.gguf", "Q8_0"]).fails(1, "would be replaced");
        place.run(["quantize", "good.gguf", "nowhere/o.gguf", "Q8_0"]).fails(1, "nowhere/o.gguf");
    }
    assert_eq!(read(&place.path("out.gguf")), b"what was there before");
    assert_eq!(read(&place.path("good.gguf")), whole);
    // A tensor that has the type already is copied.
    place.run(["quantize", "quantised.gguf", "out.gguf", "Q8_0"]).succeeds();
    place.run(["quantize", "large.gguf", "out.gguf", "BF16"]).succeeds();
}
