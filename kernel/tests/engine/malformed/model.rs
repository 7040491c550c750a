//! Faults of the numbers and the tensors of a model.

use kernel::llm::gguf::{TensorType, ValueType};

use super::file::{At, File, array, i32s, scalar, string};
use super::{Fault, NotAModel, Parse, Sound, Unsupported, fault, judge, model, models, try_all};

const ARCHITECTURE: &str = "general.architecture";
const NAME: &str = "general.name";
const TEMPLATE: &str = "tokenizer.chat_template";
const BLOCKS: &str = "llama.block_count";
const WIDTH: &str = "llama.embedding_length";
const HEADS: &str = "llama.attention.head_count";
const HEADS_KV: &str = "llama.attention.head_count_kv";
const KEY_LENGTH: &str = "llama.attention.key_length";
const EPSILON: &str = "llama.attention.layer_norm_rms_epsilon";
const N_ROT: &str = "llama.rope.dimension_count";
const BASE: &str = "llama.rope.freq_base";
const SCALING: &str = "llama.rope.scaling.type";
const FACTOR: &str = "llama.rope.scaling.factor";
const ATTN_FACTOR: &str = "llama.rope.scaling.attn_factor";

/// Faults of a `llama`.
const LLAMA: &[Fault] = &[
    fault(
        "no architecture",
        |f| f.remove(ARCHITECTURE),
        Parse("the key `general.architecture` is missing", At::EndOfKeys),
    ),
    fault(
        "an architecture that is a number",
        |f| f.set_u32(ARCHITECTURE, 7),
        Parse("`general.architecture` must be UTF-8 text but is 7", At::Value(ARCHITECTURE, 0)),
    ),
    fault(
        "an architecture that is no UTF-8",
        |f| f.set(ARCHITECTURE, string(b"llam\xc3")),
        Parse("`general.architecture` must be UTF-8 text", At::Value(ARCHITECTURE, 0)),
    ),
    fault(
        "an unknown architecture",
        |f| f.set(ARCHITECTURE, string(b"mamba")),
        Unsupported("the architecture `mamba`; those that work are gemma, gemma2, gemma3, gpt2"),
    ),
    fault(
        "an architecture with an endless name",
        |f| f.set(ARCHITECTURE, string(&[b'x'; 4096])),
        Unsupported("xxx`; those that work"),
    ),
    fault(
        "a part of a model in several files",
        |f| f.set_u32("split.count", 2),
        Unsupported("2 files (`split.count`) and not 1: join them by `llama-gguf-split --merge`"),
    ),
    fault(
        "a LoRA adapter",
        |f| f.set("general.type", string(b"adapter")),
        NotAModel("the file is a LoRA adapter"),
    ),
    fault(
        "a projector",
        |f| f.set(ARCHITECTURE, string(b"clip")),
        NotAModel("the file is a projector for images or sounds (mmproj)"),
    ),
    fault(
        "a vocabulary alone",
        |f| f.tensors.clear(),
        NotAModel("the file is a vocabulary without weights"),
    ),
    fault("a model by its type", |f| f.set("general.type", string(b"model")), Sound),
    // Keys that only people read.
    fault("a name that is no UTF-8", |f| f.set(NAME, string(b"Caf\xe9")), Sound),
    fault("a name that is a number", |f| f.set_u32(NAME, 7), Sound),
    fault("a chat template that is no UTF-8", |f| f.set(TEMPLATE, string(b"\xe9")), Sound),
    fault("a chat template that is a list", |f| f.set(TEMPLATE, i32s(&[1])), Sound),
    fault(
        "experts",
        |f| f.set_u32("llama.expert_count", 8),
        Unsupported("experts (`llama.expert_count`)"),
    ),
    // Layers.
    fault(
        "a layer more than there is",
        |f| f.set_u32(BLOCKS, 3),
        Parse("the tensor `blk.2.attn_q.weight` is missing", At::Data),
    ),
    fault(
        "more layers than any file has",
        |f| f.set_u32(BLOCKS, i32::MAX as u32),
        Parse("the tensor `blk.2.attn_q.weight` is missing", At::Data),
    ),
    fault(
        "a layer less",
        |f| f.set_u32(BLOCKS, 1),
        Unsupported("the tensor `blk.1.attn_k.weight`"),
    ),
    fault(
        "a number of layers for each layer",
        |f| f.set(BLOCKS, i32s(&[2, 2])),
        Parse("`llama.block_count` must be a whole number but is an array", At::Value(BLOCKS, 0)),
    ),
    // Widths.
    fault(
        "another width",
        |f| f.set_u32(WIDTH, 128),
        Parse("has the shape [64, 64], expected [128, 128]", At::Tensor("blk.0.attn_q.weight")),
    ),
    fault(
        "a width that heads do not divide",
        |f| f.set_u32(WIDTH, 66),
        Parse("is 4, which does not divide the width 66", At::Value(HEADS, 0)),
    ),
    fault(
        "another width of the network",
        |f| f.set_u32("llama.feed_forward_length", 64),
        Parse("has the shape [64, 96], expected [64, 64]", At::Tensor("blk.0.ffn_gate.weight")),
    ),
    // Heads.
    fault(
        "more heads",
        |f| f.set_u32(HEADS, i32::MAX as u32),
        Parse("is 2, which does not divide the 2147483647 heads", At::Value(HEADS_KV, 0)),
    ),
    fault(
        "heads that products overflow with",
        |f| {
            f.set_u32(HEADS, i32::MAX as u32);
            f.set_u32(HEADS_KV, i32::MAX as u32);
            f.set_u32(KEY_LENGTH, i32::MAX as u32);
        },
        Parse(
            "has the shape [64, 64], expected [64, 4611686014132420609]",
            At::Tensor("blk.0.attn_q.weight"),
        ),
    ),
    fault(
        "heads that those of keys do not divide",
        |f| f.set_u32(HEADS_KV, 3),
        Parse("is 3, which does not divide the 4 heads", At::Value(HEADS_KV, 0)),
    ),
    fault(
        "another number of heads of keys",
        |f| f.set_u32(HEADS_KV, 1),
        Parse("has the shape [64, 32], expected [64, 16]", At::Tensor("blk.0.attn_k.weight")),
    ),
    fault(
        "layers with other heads",
        |f| f.set(HEADS_KV, i32s(&[2, 1])),
        Unsupported("layers of different shapes (`llama.attention.head_count_kv`)"),
    ),
    fault(
        "fewer numbers than layers",
        |f| f.set(HEADS_KV, i32s(&[2])),
        Parse("has 1 numbers for 2 layers", At::Value(HEADS_KV, 0)),
    ),
    fault(
        "more numbers than layers",
        |f| f.set(HEADS, i32s(&[4, 4, 4])),
        Parse("has 3 numbers for 2 layers", At::Value(HEADS, 0)),
    ),
    fault(
        "no number for any layer",
        |f| f.set(HEADS, i32s(&[])),
        Parse("has 0 numbers for 2 layers", At::Value(HEADS, 0)),
    ),
    fault(
        "a negative number for a layer",
        |f| f.set(HEADS_KV, i32s(&[2, -2])),
        Parse("is no array of whole numbers", At::Value(HEADS_KV, 0)),
    ),
    fault(
        "texts for layers",
        |f| f.set(HEADS_KV, array(ValueType::String, 2, &[0; 16])),
        Parse("is no array of whole numbers", At::Value(HEADS_KV, 0)),
    ),
    fault("a number for each layer", |f| f.set(HEADS_KV, i32s(&[2, 2])), Sound),
    fault(
        "heads of another width",
        |f| f.set_u32(KEY_LENGTH, 32),
        Parse("has the shape [64, 64], expected [64, 128]", At::Tensor("blk.0.attn_q.weight")),
    ),
    fault(
        "values of another width than keys",
        |f| f.set_u32("llama.attention.value_length", 32),
        Unsupported("values of another width than keys"),
    ),
    // Numbers with a fraction.
    fault(
        "a negative epsilon",
        |f| f.set_f32(EPSILON, -1e-5),
        Parse("is negative", At::Value(EPSILON, 0)),
    ),
    fault(
        "an epsilon that is no number",
        |f| f.set_f32(EPSILON, f32::NAN),
        Parse("must be a finite number but is NaN", At::Value(EPSILON, 0)),
    ),
    fault(
        "an epsilon out of range",
        |f| f.set(EPSILON, scalar(ValueType::F64, &1e300_f64.to_le_bytes())),
        Parse("must be a finite number but is 1e300", At::Value(EPSILON, 0)),
    ),
    // Rotation.
    fault(
        "half a pair",
        |f| f.set_u32(N_ROT, 15),
        Parse("is 15, not an even number", At::Value(N_ROT, 0)),
    ),
    fault("more than a head", |f| f.set_u32(N_ROT, 18), Parse("up to 16", At::Value(N_ROT, 0))),
    fault(
        "other factors than frequencies",
        |f| f.set_u32(N_ROT, 8),
        Parse("has the shape [8], expected [4]", At::Tensor("rope_freqs.weight")),
    ),
    fault("a base of 0", |f| f.set_f32(BASE, 0.0), Parse("is not above 0", At::Value(BASE, 0))),
    fault("a negative base", |f| f.set_f32(BASE, -1.0), Parse("is negative", At::Value(BASE, 0))),
    fault("a base of 1", |f| f.set_f32(BASE, 1.0), Sound),
    fault(
        "an unknown way to stretch a context",
        |f| f.set(SCALING, string(b"elastic")),
        Unsupported("the RoPE scaling `elastic`"),
    ),
    fault(
        "a negative factor",
        |f| f.set_f32(FACTOR, -1.0),
        Parse("is negative", At::Value(FACTOR, 0)),
    ),
    fault("a factor of 0", |f| f.set_f32(FACTOR, 0.0), Sound),
    fault(
        "a magnitude of 0",
        |f| f.set_f32(ATTN_FACTOR, 0.0),
        Parse("is not above 0", At::Value(ATTN_FACTOR, 0)),
    ),
    fault(
        "YaRN with a base of 1",
        |f| {
            f.set(SCALING, string(b"yarn"));
            f.set_f32(BASE, 1.0);
            f.set_f32(FACTOR, f32::MAX);
        },
        Sound,
    ),
    // Tensors.
    fault(
        "a tensor that nobody knows",
        |f| f.tensors[1].name = "surprise.weight".into(),
        Unsupported("the tensor `surprise.weight`"),
    ),
    fault(
        "a vocabulary of another size",
        |f| f.tensor("token_embd.weight").reshape(TensorType::Q8_0, &[64, 12]),
        Parse("has the shape [64, 12], expected [64, 11]", At::Tensor("token_embd.weight")),
    ),
    fault(
        "a norm that is a matrix",
        |f| f.tensor("output_norm.weight").reshape(TensorType::F32, &[64, 2]),
        Parse("has the shape [64, 2], expected [64]", At::Tensor("output_norm.weight")),
    ),
    fault(
        "a matrix that is a vector",
        |f| f.tensor("blk.0.attn_q.weight").reshape(TensorType::Q4_0, &[64]),
        Parse("has the shape [64], expected [64, 64]", At::Tensor("blk.0.attn_q.weight")),
    ),
    fault(
        "a matrix of three dimensions",
        |f| f.tensor("blk.0.attn_q.weight").reshape(TensorType::Q4_0, &[64, 32, 2]),
        Parse("has the shape [64, 32, 2], expected [64, 64]", At::Tensor("blk.0.attn_q.weight")),
    ),
    fault(
        "an unusual number of dimensions",
        |f| f.tensor("output_norm.weight").dims = vec![64, 1, 1, 1],
        Sound,
    ),
];

#[test]
fn faults_of_a_llama_are_named() {
    try_all(&model("llama"), LLAMA);
}

const PATTERN: &str = "gemma2.attention.sliding_window_pattern";
const SCORES: &str = "gemma2.attn_logit_softcapping";
const LOGITS: &str = "gemma2.final_logit_softcapping";
const WINDOW: &str = "gemma2.attention.sliding_window";

#[test]
fn faults_of_a_gemma2_are_named() {
    try_all(
        &model("gemma2"),
        &[
            fault(
                "a bound of 0",
                |f| f.set_f32(SCORES, 0.0),
                Parse("is not above 0", At::Value(SCORES, 0)),
            ),
            fault(
                "a negative bound",
                |f| f.set_f32(LOGITS, -1.0),
                Parse("is negative", At::Value(LOGITS, 0)),
            ),
            fault("a window of 0", |f| f.set_u32(WINDOW, 0), Parse("is 0", At::Value(WINDOW, 0))),
            fault("the widest window", |f| f.set_u32(WINDOW, i32::MAX as u32), Sound),
            fault(
                "a pattern of too few layers",
                |f| f.set(PATTERN, array(ValueType::Bool, 1, &[1])),
                Parse("has no truth value for each layer", At::Value(PATTERN, 0)),
            ),
            fault(
                "a pattern of texts",
                |f| f.set(PATTERN, string(b"every second one")),
                Parse("must be a whole number", At::Value(PATTERN, 0)),
            ),
            fault("a pattern of 0", |f| f.set_u32(PATTERN, 0), Sound),
            fault("the widest pattern", |f| f.set_u32(PATTERN, i32::MAX as u32), Sound),
        ],
    );
}

/// The numbers that every model of an architecture must have.
fn required(architecture: &str) -> [String; 6] {
    let epsilon = match architecture {
        "gpt2" => "attention.layer_norm_epsilon",
        _ => "attention.layer_norm_rms_epsilon",
    };
    [
        "block_count",
        "context_length",
        "embedding_length",
        "feed_forward_length",
        "attention.head_count",
        epsilon,
    ]
    .map(|name| format!("{architecture}.{name}"))
}

/// Collects faults of the answers to many files.
#[derive(Default)]
struct Wrong(usize, Vec<String>);

impl Wrong {
    fn judge(&mut self, what: &str, file: &File, expected: super::Expected<'_>) {
        self.0 += 1;
        self.1.extend(judge(file, expected).err().map(|answer| format!("{what}: {answer}\n")));
    }

    /// Fails if there is a fault, or if there were fewer files than `at_least`.
    #[track_caller]
    fn finish(self, at_least: usize) {
        assert!(self.0 >= at_least, "only {} files", self.0);
        assert!(self.1.is_empty(), "{} of {}:\n{}", self.1.len(), self.0, self.1.concat());
    }
}

#[test]
fn numbers_of_every_architecture_must_be_there_and_make_sense() {
    let mut wrong = Wrong::default();
    for (architecture, sound) in models() {
        wrong.judge(architecture, &sound, Sound);
        for key in required(architecture) {
            let mut try_value = |what: &str, value: Option<Vec<u8>>, words: &str| {
                let mut file = sound.clone();
                let words = words.replace("KEY", &format!("`{key}`"));
                match value {
                    None => {
                        file.remove(&key);
                        wrong.judge(&format!("{what} {key}"), &file, Parse(&words, At::EndOfKeys));
                    }
                    Some(value) => {
                        file.set(&key, value);
                        wrong.judge(
                            &format!("{what} {key}"),
                            &file,
                            Parse(&words, At::Value(&key, 0)),
                        );
                    }
                }
            };
            try_value("no", None, "the key KEY is missing");
            try_value("a text for", Some(string(b"64")), "KEY must be a");
            try_value("a truth value for", Some(scalar(ValueType::Bool, &[1])), "KEY must be a");
            if key.ends_with("epsilon") {
                try_value(
                    "an integer for",
                    Some(scalar(ValueType::U32, &[0; 4])),
                    "KEY must be a finite number but is 0",
                );
                continue;
            }
            try_value(
                "a fraction for",
                Some(scalar(ValueType::F32, &2.0_f32.to_le_bytes())),
                "KEY must be a whole number but is 2",
            );
            try_value(
                "a negative",
                Some(scalar(ValueType::I32, &(-2_i32).to_le_bytes())),
                "KEY must be a whole number but is -2",
            );
            try_value("0 for", Some(scalar(ValueType::U32, &[0; 4])), "KEY is 0");
            try_value(
                "2^31 for",
                Some(scalar(ValueType::U32, &[0, 0, 0, 128])),
                "KEY is 2147483648, which is not below 2^31",
            );
            try_value(
                "2^64 - 1 for",
                Some(scalar(ValueType::U64, &[255; 8])),
                "KEY is 18446744073709551615, which is not below 2^31",
            );
        }
    }
    wrong.finish(8 * (5 * 8 + 4));
}

/// Whether a model is complete without this tensor, as in llama.cpp.
fn is_optional(architecture: &str, tensor: &str) -> bool {
    match architecture {
        "qwen2" => tensor.ends_with(".bias") || tensor == "output.weight",
        "phi3" => tensor == "output.weight" || tensor.starts_with("rope_factors_"),
        "llama" => tensor == "rope_freqs.weight",
        _ => false,
    }
}

#[test]
fn tensors_of_every_architecture_must_be_there() {
    let mut wrong = Wrong::default();
    for (architecture, sound) in models() {
        for i in 0..sound.tensors.len() {
            let mut file = sound.clone();
            let name = file.tensors.remove(i).name;
            // There are other files of this architecture, with three tensors instead.
            let asked = match architecture {
                "phi3" => name.replace("attn_qkv", "attn_q"),
                _ => name.clone(),
            };
            let missing = format!("the tensor `{asked}` is missing");
            let expected = match is_optional(architecture, &name) {
                true => Sound,
                false => Parse(&missing, At::Data),
            };
            wrong.judge(&format!("{architecture} without {name}"), &file, expected);
        }
    }
    wrong.finish(200);
}

#[test]
fn tensors_of_every_architecture_must_have_their_shape_and_a_known_type() {
    let mut wrong = Wrong::default();
    for (architecture, sound) in models() {
        for i in 0..sound.tensors.len() {
            let tensor = &sound.tensors[i];
            let (name, dims) = (tensor.name.clone(), tensor.dims.clone());
            let kind = TensorType::from_id(tensor.kind).unwrap();
            let mut try_shape = |kind: TensorType, shape: &[u64]| {
                let mut file = sound.clone();
                file.tensors[i].reshape(kind, shape);
                let words = format!("`{name}` has the shape {shape:?}, expected {dims:?}");
                let what = format!("{architecture} with {name} of {shape:?}");
                wrong.judge(&what, &file, Parse(&words, At::Tensor(&name)));
            };
            // One more and one fewer in each dimension, a dimension more, a dimension fewer.
            for dim in 0..dims.len() {
                let step = if dim == 0 { kind.block_weights } else { 1 };
                for n in [dims[dim] + step, dims[dim] - step] {
                    let mut shape = dims.clone();
                    shape[dim] = n;
                    if n > 0 {
                        try_shape(kind, &shape);
                    }
                }
            }
            try_shape(kind, &[&dims[..], &[2]].concat());
            if dims.len() > 1 {
                try_shape(kind, &dims[..1]);
            }

            // Blocks of one weight fit all shapes; no weights are stored as I8.
            let mut file = sound.clone();
            file.tensors[i].reshape(TensorType::I8, &dims);
            let (as_matrix, as_vector) = (
                format!("the tensor type I8 (of `{name}`)"),
                format!("`{name}` in I8, where only F32 is read"),
            );
            let words = if dims.len() > 1 { &as_matrix } else { &as_vector };
            wrong.judge(&format!("{architecture} with {name} in I8"), &file, Unsupported(words));
        }
    }
    wrong.finish(1000);
}
