"""Makes tensor_types/vectors.gguf: what ggml makes of blocks of every tensor type.

A GGUF file, because the engine reads those anyway. For each type T:

    T.blocks     a row of blocks in T: 1,792 weights of random bits with scales of moderate size,
                 then all places of the type's table, if it has one, then edge cases: scales that
                 are zero, below the normal numbers, the largest, infinite and not a number
    T.values     the weights' values (F32), by the package `gguf` and by ggml's C code, which agree
    T.dots       dot products of the first 256, 512 … 1,792 weights with `x` (F32), by ggml's
                 portable kernels; not of plain numbers, whose sums ggml has in no fixed order
    T.quantized  `source` in T, by ggml's quantiser without an importance matrix
"""

import argparse
import ctypes
import importlib.metadata
import os
import struct

import gguf
import llama_cpp
import numpy as np

SEED = 20
RANDOM = 7 * 256

# Name; where the F16 scales of a block are; places in the type's table.
TYPES = [
    ("F32", None, 0),
    ("F16", None, 0),
    ("BF16", None, 0),
    ("Q4_0", [0], 0),
    ("Q4_1", [0, 2], 0),
    ("Q5_0", [0], 0),
    ("Q5_1", [0, 2], 0),
    ("Q8_0", [0], 0),
    ("Q2_K", [80, 82], 0),
    ("Q3_K", [108], 0),
    ("Q4_K", [0, 2], 0),
    ("Q5_K", [0, 2], 0),
    ("Q6_K", [208], 0),
    ("IQ2_XXS", [0], 256),
    ("IQ2_XS", [0], 512),
    ("IQ2_S", [0], 1024),
    ("IQ3_XXS", [0], 256),
    ("IQ3_S", [0], 512),
    ("IQ1_S", [0], 2048),
    ("IQ1_M", "nibbles", 0),
    ("IQ4_NL", [0], 0),
    ("IQ4_XS", [0], 0),
    ("TQ1_0", [52], 0),
    ("TQ2_0", [64], 0),
    ("MXFP4", "exponent", 0),
]

QUANTISERS = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]

# As bits of an F16: zeros, the smallest, the largest below the normal ones, the largest, infinity
# and no number, of both signs.
EDGES = [0x0000, 0x8000, 0x0001, 0x83FF, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00, 0x7E00]


def set_scale(block, places, bits):
    """Sets the scales of a block, which is an array of bytes."""
    if places == "exponent":
        # A power of two near the same number.
        block[0] = {0x0000: 0, 0x8000: 1, 0x0001: 2, 0x7BFF: 254, 0xFBFF: 255}.get(bits, bits >> 3 & 255)
    elif places == "nibbles":
        for i in range(4):
            block[49 + 2 * i] = block[49 + 2 * i] & 15 | (bits >> 4 * i & 15) << 4
    else:
        for i, place in enumerate(places):
            # Only one scale is odd at a time.
            block[place : place + 2] = np.frombuffer(struct.pack("<H", bits if i == 0 else 0x3555), np.uint8)


def set_table_places(name, block, first):
    """Has a block use the table's places from `first` on."""
    stored, block = block, [int(byte) for byte in block]
    bits = {"IQ2_XXS": 8, "IQ2_XS": 9, "IQ2_S": 10, "IQ3_XXS": 8, "IQ3_S": 9, "IQ1_S": 11}[name]
    for i in range(64 if name.startswith("IQ3") else 32):
        place = (first + i) % (1 << bits)
        low, high = place & 255, place >> 8
        if name == "IQ2_XXS":
            block[2 + i // 4 * 8 + i % 4] = low
        elif name == "IQ2_XS":
            block[2 + 2 * i] = low
            block[3 + 2 * i] = block[3 + 2 * i] & 0xFE | high
        elif name == "IQ2_S":
            block[2 + i] = low
            block[66 + i // 4] = block[66 + i // 4] & ~(3 << i % 4 * 2) | high << i % 4 * 2
        elif name == "IQ3_XXS":
            block[2 + i] = low
        elif name == "IQ3_S":
            block[2 + i] = low
            block[66 + i // 8] = block[66 + i // 8] & ~(1 << i % 8) | high << i % 8
        elif name == "IQ1_S":
            block[2 + i] = low
            word = int(block[34 + i // 4 * 2]) | int(block[35 + i // 4 * 2]) << 8
            word = word & ~(7 << i % 4 * 3) | high << i % 4 * 3
            block[34 + i // 4 * 2], block[35 + i // 4 * 2] = word & 255, word >> 8
    stored[:] = block


def blocks_of(name, places, table, rng):
    kind = gguf.GGMLQuantizationType[name]
    weights, size = gguf.GGML_QUANT_SIZES[kind]
    if weights == 1:
        values = rng.normal(size=RANDOM).astype(np.float32)
        if name == "F32":
            edges = np.array([0, 0x80000000, 1, 0x807FFFFF, 0x7F7FFFFF, 0xFF800000, 0x7FC00000], "<u4")
            return np.concatenate([values.view(np.uint8), edges.view(np.uint8)])
        if name == "F16":
            bits = np.concatenate([values.astype("<f2").view("<u2"), np.arange(0, 1 << 16, 61).astype("<u2")])
        else:
            bits = np.concatenate([(values.view("<u4") >> 16).astype("<u2"), np.arange(0, 1 << 16, 61).astype("<u2")])
        return bits.view(np.uint8)

    def random_block(bits):
        block = rng.integers(0, 256, size, dtype=np.uint8)
        set_scale(block, places, bits)
        return block

    moderate = lambda: int(rng.uniform(-1, 1, 1).astype("<f2").view("<u2")[0])
    if places == "exponent":
        moderate = lambda: int(rng.integers(118, 130)) << 3
    blocks = [random_block(moderate()) for _ in range(RANDOM // weights)]
    for first in range(0, table, 64 if name.startswith("IQ3") else 32):
        block = random_block(0x3C00)
        set_table_places(name, block, first)
        blocks.append(block)
    blocks += [random_block(bits) for bits in EDGES]
    if isinstance(places, list):
        # The other scale.
        for bits in EDGES if len(places) == 2 else []:
            block = random_block(0x3555)
            block[places[1] : places[1] + 2] = np.frombuffer(struct.pack("<H", bits), np.uint8)
            blocks.append(block)
    # All bits of the rest off, and on.
    for byte in (0x00, 0xFF):
        block = np.full(size, byte, np.uint8)
        set_scale(block, places, 0x3555)
        blocks.append(block)
    return np.concatenate(blocks)


def source(rng):
    """Weights that a quantiser may meet: 256 at a time. None so small that ggml divides by zero
    and converts infinities to whole numbers, which C leaves undefined."""
    normal = lambda: rng.normal(size=256)
    outlier = normal()
    outlier[97] = 40.0
    one = np.zeros(256)
    one[200] = -3.0
    steps = np.repeat(np.arange(-8, 8) / 8.0, 16)
    mixed = np.concatenate([np.zeros(32), normal()[:32], np.full(32, 0.25), -np.abs(normal()[:32]),
                            np.abs(normal()[:32]) + 1.0, normal()[:32] * 1e-9, np.full(32, -0.5), normal()[:32]])
    parts = [normal(), 0.02 * normal(), rng.laplace(size=256), outlier, np.zeros(256), np.full(256, 0.75),
             np.full(256, -0.75), one, steps, mixed, np.abs(normal()), -np.abs(normal()) - 1.0,
             normal() * 1e-6, normal() * 1e-16, normal() * 3e4,
             rng.uniform(-1, 1, 256), np.sign(normal())]
    return np.concatenate(parts).astype(np.float32)


class Ggml:
    """ggml's C code, as llama-cpp-python has built it."""

    def __init__(self):
        folder = os.path.join(os.path.dirname(llama_cpp.__file__), "lib")
        self.base = ctypes.CDLL(os.path.join(folder, "libggml-base.so"))
        self.cpu = ctypes.CDLL(os.path.join(folder, "libggml-cpu.so"))
        self.cpu.ggml_cpu_init()
        self.base.ggml_quantize_chunk.restype = ctypes.c_size_t

    @staticmethod
    def suffix(name):
        # q4_0, but q4_K.
        return name.lower().replace("_k", "_K")

    def dequantize(self, name, blocks, n):
        out = np.zeros(n, np.float32)
        if name == "F32":
            return blocks.view("<f4").copy()
        function = {"F16": "ggml_fp16_to_fp32_row", "BF16": "ggml_bf16_to_fp32_row"}.get(
            name, f"dequantize_row_{self.suffix(name)}")
        getattr(self.base, function)(ctypes.c_void_p(blocks.ctypes.data), ctypes.c_void_p(out.ctypes.data),
                                     ctypes.c_int64(n))
        return out

    def dot(self, name, blocks, x):
        if name in ("F32", "F16", "BF16"):
            return None
        to, size, weights = {"Q4_1": ("q8_1", 36, 32), "Q5_1": ("q8_1", 36, 32)}.get(
            name, ("q8_0", 34, 32) if gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]][0] == 32
            else ("q8_K", 292, 256))
        n = len(x)
        y = np.zeros(n // weights * size, np.uint8)
        getattr(self.base, f"quantize_row_{to}_ref")(ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(y.ctypes.data),
                                                     ctypes.c_int64(n))
        result = ctypes.c_float()
        # GCC 12 for AVX-512 makes wrong code of ggml's portable kernel for Q5_0: take the other.
        kernel = f"ggml_vec_dot_{self.suffix(name)}_{to}" + ("" if name == "Q5_0" else "_generic")
        getattr(self.cpu, kernel)(
            ctypes.c_int(n), ctypes.byref(result), ctypes.c_size_t(0), ctypes.c_void_p(blocks.ctypes.data),
            ctypes.c_size_t(0), ctypes.c_void_p(y.ctypes.data), ctypes.c_size_t(0), ctypes.c_int(1))
        return result.value

    def quantize(self, name, x):
        kind = gguf.GGMLQuantizationType[name]
        weights, size = gguf.GGML_QUANT_SIZES[kind]
        out = np.zeros(len(x) // weights * size, np.uint8)
        self.base.ggml_quantize_chunk(ctypes.c_int(kind), ctypes.c_void_p(x.ctypes.data),
                                      ctypes.c_void_p(out.ctypes.data), ctypes.c_int64(0), ctypes.c_int64(1),
                                      ctypes.c_int64(len(x)), ctypes.c_void_p(0))
        return out


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default=os.path.join(os.path.dirname(__file__), "tensor_types", "vectors.gguf"))
    out = parser.parse_args().out

    ggml = Ggml()
    rng = np.random.default_rng(SEED)
    writer = gguf.GGUFWriter(out, "vectors")
    versions = {p: importlib.metadata.version(p) for p in ("gguf", "llama-cpp-python")}
    writer.add_string("general.description", f"seed {SEED}; " + ", ".join(f"{p} {v}" for p, v in versions.items()))

    x = rng.normal(size=RANDOM).astype(np.float32)
    writer.add_tensor("x", x)
    weights = source(rng)
    writer.add_tensor("source", weights)
    for name, places, table in TYPES:
        kind = gguf.GGMLQuantizationType[name]
        block_weights, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        blocks = blocks_of(name, places, table, rng)
        n = len(blocks) // block_bytes * block_weights
        values = ggml.dequantize(name, blocks, n)
        with np.errstate(all="ignore"):
            same = gguf.dequantize(blocks, kind).reshape(-1)
        assert np.array_equal(values, same, equal_nan=True), name
        writer.add_tensor(f"{name}.blocks", blocks, raw_dtype=kind)
        writer.add_tensor(f"{name}.values", values)
        if ggml.dot(name, blocks, x[:256]) is not None:
            dots = [ggml.dot(name, blocks, x[: 256 * (i + 1)]) for i in range(RANDOM // 256)]
            writer.add_tensor(f"{name}.dots", np.array(dots, np.float32))
        if name in QUANTISERS:
            writer.add_tensor(f"{name}.quantized", ggml.quantize(name, weights), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
