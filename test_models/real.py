"""Writes the logits of a real model in double precision, with llama.cpp's: goldens/real.json.

On 30 layers of real weights two right engines differ: activations are rounded to 8 bits, and which
of two neighbours one becomes hangs on the last digit of a sum. llama.cpp's own modes, flash
attention on and off, move its logits by a tenth or two. So neither is the reference: the reference
is the same network in float64, with the file's weights and nothing rounded on the way. For each
step of five texts the file holds float64's ten best tokens, with their logits by float64 and by
llama.cpp in both modes.

That float64 is right is checked against llama.cpp as well: with weights and KV cache in F32 it
rounds nothing to 8 or 16 bits, and must come near.
"""

import argparse
import hashlib
import importlib.metadata
import json
import tempfile
from pathlib import Path

import gguf
import llama_cpp as ll
import numpy as np

from goldens import compact
from reference import SETTINGS, Reference, quantise

# Each has N_TOKENS tokens. Those of PLAIN have no control tokens, and one after the other give the
# same tokens: goldens/real.txt.
PLAIN = [
    "The lighthouse stood on a rock far out in the sea. Every evening the old keeper climbed the "
    "stairs and lit the lamp, so that no ship was lost.",
    "Water boils at 100 degrees at sea level. On a mountain the air is thinner, so water boils "
    "sooner, and rice takes longer to cook.",
    "def largest(numbers):\n    best = numbers[0]\n    for number in numbers:\n"
    "        if number > best:\n            best = number\n    return best\n",
    "Dear Anna,\n\nThank you for your letter. We are all very well and hope to see you all in "
    "spring, when the garden is green again.",
]
CHAT = ("<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
        "The capital of France is Paris. It lies on the river Seine.<|im_end|>")
N_TOKENS = 32
N_BEST = 10
# The most that a logit of llama.cpp in F32 may be off.
MAX_ERROR = 1e-3


class Float64:
    """A model of the architecture `llama` in double precision. Its weights are what ggml takes the
    file's blocks for, which F32 holds to the last digit or the one before."""

    def __init__(self, path: Path):
        file = gguf.GGUFReader(path)

        def value(key: str):
            return file.fields[f"llama.{key}"].contents()

        if file.fields["general.architecture"].contents() != "llama":
            raise SystemExit(f"{path} is no llama")
        self.n_layer = value("block_count")
        self.n_head, self.n_head_kv = value("attention.head_count"), value("attention.head_count_kv")
        self.epsilon = value("attention.layer_norm_rms_epsilon")
        self.rope_base = value("rope.freq_base")
        self.weights = {t.name.removesuffix(".weight"):
                        gguf.dequantize(t.data, t.tensor_type).astype(np.float64)
                        for t in file.tensors}

    def norm(self, x: np.ndarray, name: str) -> np.ndarray:
        """RMSNorm."""
        mean = (x * x).mean(-1, keepdims=True)
        return x / np.sqrt(mean + self.epsilon) * self.weights[name]

    def heads(self, x: np.ndarray, name: str, n_head: int) -> np.ndarray:
        """What a matrix makes of x, by heads: [n_tokens, n_head, head_size]."""
        return (x @ self.weights[name].T).reshape(len(x), n_head, -1)

    def rotate(self, heads: np.ndarray) -> np.ndarray:
        """RoPE, of neighbours."""
        n, _, size = heads.shape
        angles = np.outer(np.arange(n), self.rope_base ** (-np.arange(0, size, 2) / size))
        cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
        a, b = heads[..., 0::2], heads[..., 1::2]
        return np.stack([a * cos - b * sin, a * sin + b * cos], -1).reshape(heads.shape)

    def attention(self, x: np.ndarray, layer: str) -> np.ndarray:
        """Causal attention, with as many heads of keys and values as it takes."""
        queries = self.rotate(self.heads(x, f"{layer}.attn_q", self.n_head))
        keys = self.rotate(self.heads(x, f"{layer}.attn_k", self.n_head_kv))
        values = self.heads(x, f"{layer}.attn_v", self.n_head_kv)
        keys, values = (side.repeat(self.n_head // self.n_head_kv, 1) for side in (keys, values))
        scores = np.einsum("qhd,khd->hqk", queries, keys) / np.sqrt(queries.shape[-1])
        scores += np.triu(np.full((len(x), len(x)), -np.inf), 1)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        joined = np.einsum("hqk,khd->qhd", shares, values).reshape(len(x), -1)
        return joined @ self.weights[f"{layer}.attn_output"].T

    def feed_forward(self, x: np.ndarray, layer: str) -> np.ndarray:
        """SwiGLU."""
        gate = x @ self.weights[f"{layer}.ffn_gate"].T
        up = x @ self.weights[f"{layer}.ffn_up"].T
        return gate / (1 + np.exp(-gate)) * up @ self.weights[f"{layer}.ffn_down"].T

    def logits(self, tokens: list[int]) -> np.ndarray:
        """The logits after each token: [n_tokens, n_vocab]."""
        x = self.weights["token_embd"][tokens]
        for i in range(self.n_layer):
            layer = f"blk.{i}"
            x = x + self.attention(self.norm(x, f"{layer}.attn_norm"), layer)
            x = x + self.feed_forward(self.norm(x, f"{layer}.ffn_norm"), layer)
        output = "output" if "output" in self.weights else "token_embd"
        return self.norm(x, "output_norm") @ self.weights[output].T


def along(model: Reference, tokens: list[int]) -> np.ndarray:
    """llama.cpp's logits after each token, one token at a time as it generates."""
    model.clear()
    steps = [model.decode([token], i)[0] for i, token in enumerate(tokens)]
    return np.stack(steps).astype(np.float64)


def check(path: Path, truth: list[np.ndarray], texts: list[list[int]]) -> float:
    """The largest error of a logit of llama.cpp's without any rounding to fewer than 32 bits."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "f32.gguf"
        quantise(path, copy, ll.LLAMA_FTYPE_ALL_F32, again=True)
        model = Reference(copy, kv_type="f32")
        errors = [np.abs(along(model, tokens) - logits).max()
                  for tokens, logits in zip(texts, truth)]
        model.close()
    return float(max(errors))


def encode(model: Reference) -> list[list[int]]:
    """The tokens of all texts."""
    texts = [model.tokenize(text, parse_special=True) for text in [*PLAIN, CHAT]]
    if any(len(tokens) != N_TOKENS for tokens in texts):
        raise SystemExit(f"the texts have {[len(tokens) for tokens in texts]} tokens")
    if model.tokenize("".join(PLAIN)) != sum(texts[:len(PLAIN)], []):
        raise SystemExit("the texts one after the other have other tokens")
    return texts


def rounded(logits: np.ndarray, digits: int) -> list[float]:
    """As the file has them."""
    return [round(float(x), digits) for x in logits]


def main() -> None:
    """Writes both files."""
    here = Path(__file__).parent
    arg = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arg.add_argument("model", type=Path)
    path = arg.parse_args().model

    modes = {"flash": Reference(path, flash=True), "plain": Reference(path, flash=False)}
    texts = encode(modes["plain"])
    float64 = Float64(path)
    truth = [float64.logits(tokens) for tokens in texts]
    error = check(path, truth, texts)
    print(f"llama.cpp in F32 is within {error:.1e} of float64")
    if error > MAX_ERROR:
        raise SystemExit("so one of the two is wrong")

    engines = {name: [along(model, tokens) for tokens in texts] for name, model in modes.items()}
    made, squares = [], {name: [] for name in modes}
    for i, (tokens, exact) in enumerate(zip(texts, truth)):
        steps = []
        for at in range(len(tokens)):
            best = np.argsort(-exact[at], kind="stable")[:N_BEST]
            step = {"best": [int(token) for token in best], "float64": rounded(exact[at][best], 6)}
            for name, logits in engines.items():
                step[name] = rounded(logits[i][at][best], 4)
                squares[name].append(((logits[i][at] - exact[at])[best] ** 2).mean())
            steps.append(step)
        made.append({"tokens": tokens, "steps": steps})
    for name, errors in squares.items():
        print(f"{name}: root mean square error {np.sqrt(np.mean(errors)):.4f}, of each text",
              np.sqrt(np.mean(np.reshape(errors, (len(texts), -1)), -1)).round(3).tolist())

    goldens = {"made_by": "test_models/real.py",
               "llama_cpp_python": importlib.metadata.version("llama-cpp-python"),
               "numpy": importlib.metadata.version("numpy"),
               "settings": SETTINGS | {"flash_attn": [True, False], "prompt": "one token a batch"},
               "model": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
               "n_plain": len(PLAIN), "texts": made}
    text = compact(json.dumps(goldens, ensure_ascii=False, indent=1))
    (here / "goldens" / "real.json").write_text(text + "\n", encoding="utf-8")
    (here / "goldens" / "real.txt").write_text("".join(PLAIN), encoding="utf-8")


if __name__ == "__main__":
    main()
