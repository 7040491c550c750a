"""Makes goldens/quantize.json: checksums of what llama.cpp's quantiser makes of models of random
weights, which `image-builder quantize` must make too (image-builder/tests/command/quantize.rs
builds the same models).

Each model has what a rule of the quantiser looks at: many layers, heads that share keys, an
embedding that is the output too, rows that blocks of 256 or of 32 weights do not fit.
"""

import argparse
import hashlib
import importlib.metadata
import json
import os
import tempfile

import gguf
import numpy as np

from reference import quantise

TYPES = {
    "Q2_K": 10, "Q3_K_S": 11, "Q3_K_M": 12, "Q3_K_L": 13, "Q4_0": 2, "Q4_1": 3, "Q4_K_S": 14, "Q4_K_M": 15,
    "Q5_0": 8, "Q5_1": 9, "Q5_K_S": 16, "Q5_K_M": 17, "Q6_K": 18, "Q8_0": 7, "F16": 1, "BF16": 32, "F32": 0,
}


class Noise:
    """Multiples of 2^-27 from -1/16 to 1/16, by SplitMix64."""

    def __init__(self, seed):
        self.state = np.uint64(seed)

    def take(self, n):
        with np.errstate(over="ignore"):
            z = self.state + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
            self.state = z[-1]
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            z ^= z >> np.uint64(31)
        return ((z >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24) - np.float32(0.5)) / np.float32(8)


# Architecture, layers, heads, heads of keys, a tensor's type; tensors outside the layers and of
# each: name, columns, rows.
MODELS = {
    "llama": dict(
        architecture="llama", layers=16, heads=8, heads_kv=2, epsilon="attention.layer_norm_rms_epsilon", kind="F32",
        outside=[("token_embd.weight", 256, 11), ("output_norm.weight", 256, 1), ("output.weight", 256, 11),
                 ("rope_freqs.weight", 16, 1)],
        layer=[("attn_norm.weight", 256, 1), ("attn_q.weight", 256, 7), ("attn_k.weight", 256, 3),
               ("attn_v.weight", 256, 3), ("attn_output.weight", 256, 7), ("ffn_norm.weight", 256, 1),
               ("ffn_gate.weight", 256, 5), ("ffn_up.weight", 256, 5), ("ffn_down.weight", 512, 3)],
    ),
    "gpt2": dict(
        architecture="gpt2", layers=12, heads=4, heads_kv=None, epsilon="attention.layer_norm_epsilon", kind="F16",
        outside=[("token_embd.weight", 256, 13), ("position_embd.weight", 256, 5), ("output_norm.weight", 256, 1),
                 ("output_norm.bias", 256, 1)],
        layer=[("attn_norm.weight", 256, 1), ("attn_qkv.weight", 256, 9), ("attn_qkv.bias", 9, 1),
               ("attn_output.weight", 256, 3), ("ffn_up.weight", 256, 4), ("ffn_down.weight", 1024, 3)],
    ),
    "qwen2": dict(
        architecture="qwen2", layers=80, heads=8, heads_kv=1, epsilon="attention.layer_norm_rms_epsilon", kind="BF16",
        outside=[("token_embd.weight", 96, 5), ("output.weight", 96, 5)],
        layer=[("attn_v.weight", 256, 2), ("ffn_down.weight", 256, 2)],
    ),
    "odd": dict(
        architecture="llama", layers=5, heads=4, heads_kv=4, epsilon="attention.layer_norm_rms_epsilon", kind="F32",
        outside=[("token_embd.weight", 100, 3)],
        layer=[("attn_v.weight", 96, 2), ("attn_output.weight", 100, 2), ("ffn_down.weight", 288, 3)],
    ),
}


def write(path, name):
    model = MODELS[name]
    noise = Noise(len(name))
    arch = model["architecture"]
    writer = gguf.GGUFWriter(path, arch)
    writer.add_uint32(f"{arch}.context_length", 64)
    writer.add_uint32(f"{arch}.embedding_length", 256)
    writer.add_uint32(f"{arch}.block_count", model["layers"])
    writer.add_uint32(f"{arch}.feed_forward_length", 512)
    writer.add_uint32(f"{arch}.attention.head_count", model["heads"])
    if model["heads_kv"]:
        writer.add_uint32(f"{arch}.attention.head_count_kv", model["heads_kv"])
    writer.add_float32(f"{arch}.{model['epsilon']}", 1e-5)
    # What the quantiser replaces.
    writer.add_uint32("general.file_type", 1)
    writer.add_array("tokenizer.ggml.tokens", ["a", "b", "c"])

    tensors = list(model["outside"])
    for i in range(model["layers"]):
        for tensor, columns, rows in model["layer"]:
            tensors.append((f"blk.{i}.{tensor}", columns, rows))
    for tensor, columns, rows in tensors:
        weights = noise.take(columns * rows)
        weights = weights.reshape((rows, columns) if rows > 1 else (columns,))
        if rows == 1 or model["kind"] == "F32":
            writer.add_tensor(tensor, weights)
        elif model["kind"] == "F16":
            writer.add_tensor(tensor, weights.astype(np.float16))
        else:
            kind = gguf.GGMLQuantizationType.BF16
            writer.add_tensor(tensor, gguf.quantize(weights, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default=os.path.join(os.path.dirname(__file__), "goldens", "quantize.json"))
    arguments = parser.parse_args()
    versions = {p: importlib.metadata.version(p) for p in ("gguf", "llama-cpp-python")}
    result = {"versions": versions, "models": {}}
    with tempfile.TemporaryDirectory() as folder:
        source, out = os.path.join(folder, "source.gguf"), os.path.join(folder, "out.gguf")
        digest = lambda path: hashlib.sha256(open(path, "rb").read()).hexdigest()
        for name in MODELS:
            write(source, name)
            sums = {"source": digest(source)}
            for pure in (False, True):
                for kind, number in TYPES.items():
                    quantise(source, out, number, pure)
                    sums[kind + (" --pure" if pure else "")] = digest(out)
            result["models"][name] = sums
    with open(arguments.out, "w") as file:
        json.dump(result, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
