"""Writes models of full size and random weights, with the shapes and tensor types of the files that
people have: tinyllama (1.1 B parameters, 638 MB) and gpt2 (124 M parameters).

What they say is noise; they show that such files load, in how much memory, and how fast.
"""

import argparse
from pathlib import Path

import gguf
import numpy as np

Q4_0, Q6_K = gguf.GGMLQuantizationType.Q4_0, gguf.GGMLQuantizationType.Q6_K
# Rows of random blocks that are repeated: the speed of the generator does not matter then.
N_BLOCKS = 4096


def blocks(kind: gguf.GGMLQuantizationType, amplitude: float) -> np.ndarray:
    """Random blocks whose weights have about this size: [N_BLOCKS, bytes of a block]."""
    random = np.random.default_rng(11)
    n_weights, n_bytes = gguf.GGML_QUANT_SIZES[kind]
    made = random.integers(0, 256, (N_BLOCKS, n_bytes), dtype=np.uint8)
    if kind == Q4_0:
        made[:, :2] = np.array([amplitude / 4.6], np.float16).view(np.uint8)
    else:
        made[:, -18:-2] = random.integers(-32, 33, (N_BLOCKS, 16), dtype=np.int8).view(np.uint8)
        made[:, -2:] = np.array([amplitude / (18.6 * 18.5)], np.float16).view(np.uint8)
    assert n_weights in (32, 256)
    return made


class Writer:
    """A model being written."""

    def __init__(self, path: Path, architecture: str, n_vocab: int):
        self.file = gguf.GGUFWriter(path, architecture)
        self.file.add_name(f"random weights in the shape of {path.stem}")
        self.n_vocab = n_vocab

    def matrix(self, name: str, rows: int, columns: int,
               kind: gguf.GGMLQuantizationType = Q4_0) -> None:
        """A matrix in a quantised type."""
        n_weights, n_bytes = gguf.GGML_QUANT_SIZES[kind]
        data = np.resize(blocks(kind, 1 / np.sqrt(columns)),
                         (rows, columns // n_weights * n_bytes))
        self.file.add_tensor(f"{name}.weight", data, raw_dtype=kind)

    def vector(self, name: str, width: int, number: float = 1.0) -> None:
        """A vector of one number."""
        self.file.add_tensor(name, np.full(width, number, np.float32))

    def close(self) -> None:
        """Writes the file."""
        self.file.write_header_to_file()
        self.file.write_kv_data_to_file()
        self.file.write_tensors_to_file()
        self.file.close()


def tinyllama(path: Path) -> None:
    """TinyLlama-1.1B in Q4_0, its output in Q6_K."""
    w = Writer(path, "llama", 32000)
    f, n_embd, n_kv, n_ff = w.file, 2048, 256, 5632
    f.add_context_length(2048)
    f.add_embedding_length(n_embd)
    f.add_block_count(22)
    f.add_feed_forward_length(n_ff)
    f.add_head_count(32)
    f.add_head_count_kv(4)
    f.add_rope_dimension_count(64)
    f.add_layer_norm_rms_eps(1e-5)
    f.add_tokenizer_model("llama")
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens += [f"▁word{i}" for i in range(w.n_vocab - len(tokens))]
    f.add_token_list([token.encode("utf-8") for token in tokens])
    f.add_token_scores([-float(i) for i in range(len(tokens))])
    f.add_token_types([2, 3, 3, *[6] * 256, *[1] * (len(tokens) - 259)])
    w.matrix("token_embd", w.n_vocab, n_embd)
    for i in range(22):
        w.vector(f"blk.{i}.attn_norm.weight", n_embd)
        w.matrix(f"blk.{i}.attn_q", n_embd, n_embd)
        w.matrix(f"blk.{i}.attn_k", n_kv, n_embd)
        w.matrix(f"blk.{i}.attn_v", n_kv, n_embd)
        w.matrix(f"blk.{i}.attn_output", n_embd, n_embd)
        w.vector(f"blk.{i}.ffn_norm.weight", n_embd)
        w.matrix(f"blk.{i}.ffn_gate", n_ff, n_embd)
        w.matrix(f"blk.{i}.ffn_up", n_ff, n_embd)
        w.matrix(f"blk.{i}.ffn_down", n_embd, n_ff)
    w.vector("output_norm.weight", n_embd)
    w.matrix("output", w.n_vocab, n_embd, Q6_K)
    w.close()


def gpt2(path: Path) -> None:
    """GPT-2 with 124 million parameters in Q4_0, its embedding, which is the output too, in Q6_K."""
    w = Writer(path, "gpt2", 50257)
    f, n_embd, n_ff = w.file, 768, 3072
    f.add_context_length(1024)
    f.add_embedding_length(n_embd)
    f.add_block_count(12)
    f.add_feed_forward_length(n_ff)
    f.add_head_count(12)
    f.add_layer_norm_eps(1e-5)
    f.add_tokenizer_model("gpt2")
    f.add_tokenizer_pre("gpt-2")
    visible = [*range(0x21, 0x7f), *range(0xa1, 0xad), *range(0xae, 0x100)]
    tokens = [chr(code) for code in (*visible, *range(0x100, 0x144))]
    tokens += [f"Ġword{i}" for i in range(w.n_vocab - len(tokens) - 1)] + ["<|endoftext|>"]
    f.add_token_list([token.encode("utf-8") for token in tokens])
    f.add_token_types([*[1] * (len(tokens) - 1), 3])
    f.add_token_merges(["w o", "r d"])
    f.add_bos_token_id(w.n_vocab - 1)
    f.add_eos_token_id(w.n_vocab - 1)
    w.matrix("token_embd", w.n_vocab, n_embd, Q6_K)
    positions = 0.1 * np.random.default_rng(13).standard_normal((1024, n_embd))
    f.add_tensor("position_embd.weight", positions.astype(np.float32))
    for i in range(12):
        for part, rows, columns in (("attn_qkv", 3 * n_embd, n_embd),
                                    ("attn_output", n_embd, n_embd),
                                    ("ffn_up", n_ff, n_embd), ("ffn_down", n_embd, n_ff)):
            w.matrix(f"blk.{i}.{part}", rows, columns)
            w.vector(f"blk.{i}.{part}.bias", rows, 0.01)
        for part in "attn_norm", "ffn_norm":
            w.vector(f"blk.{i}.{part}.weight", n_embd)
            w.vector(f"blk.{i}.{part}.bias", n_embd, 0.01)
    w.vector("output_norm.weight", n_embd)
    w.vector("output_norm.bias", n_embd, 0.01)
    w.close()


MODELS = {"tinyllama": tinyllama, "gpt2": gpt2}


def main() -> None:
    """Writes the models asked for."""
    arg = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arg.add_argument("--out", type=Path, default=Path(__file__).parent / "build")
    arg.add_argument("models", nargs="*", default=list(MODELS), help=" or ".join(MODELS))
    args = arg.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.models:
        path = args.out / f"{name}-full.gguf"
        MODELS[name](path)
        print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
