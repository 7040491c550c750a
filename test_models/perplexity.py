"""Writes a text and its perplexity by llama.cpp: goldens/perplexity.txt and goldens/perplexity.json.

The measure is that of llama.cpp's `llama-perplexity`: the text is cut into chunks of the context's
length, each chunk starts with bos in place of its first token, and the tokens of its second half
are predicted.

llama.cpp itself gives several figures for a quantised model: one for each order in which it adds
up, which depends on whether it repacks weights and how many tokens it takes at a time, and others
for norms that differ in their last digits. Each is as right as the others: a sum that is rounded to
the other side makes another activation of eight bits. All are written down; no engine can be nearer
to "the" figure than they are to each other. F16 models show how near one is without that.
"""

import argparse
import hashlib
import importlib.metadata
import json
import math
import random
import tempfile
from pathlib import Path

import numpy as np

import stories
from architectures import changed
from goldens import compact
from reference import N_CTX, SETTINGS, Reference

MODELS = ["tiny.gguf", "tiny-gpt2.gguf", "architectures/llama-F16.gguf",
          "architectures/gpt2-F16.gguf"]
SEED, N_STORIES = 7919, 8


def perplexity(path: Path, text: str, repack: bool, single: bool) -> list[float]:
    """Perplexity after each chunk. `single`: one token at a time."""
    model = Reference(path, repack)
    ids = model.tokenize(text)
    first, nll, after = N_CTX // 2, [], []
    for start in range(0, len(ids) - N_CTX + 1, N_CTX):
        chunk = ids[start:start + N_CTX]
        chunk[0] = model.bos if model.add_bos else chunk[0]
        model.clear()
        logits = (np.concatenate([model.decode([token], i) for i, token in enumerate(chunk)])
                  if single else model.decode(chunk, 0, all_logits=True))
        logits = logits.astype(np.float64)[first:-1]
        top = logits.max(-1, keepdims=True)
        log_sum = np.log(np.exp(logits - top).sum(-1)) + top[:, 0]
        nll += list(log_sum - logits[np.arange(len(logits)), chunk[first + 1:]])
        after.append(round(math.exp(np.mean(nll)), 6))
    model.close()
    return after


def measure(path: Path, text: str) -> dict:
    """All figures of a model."""
    data = path.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        copy.write_bytes(data)
        orders = [perplexity(copy, text, repack, single)
                  for repack in (True, False) for single in (False, True)]
        others = [perplexity(other, text, repack, single=False)
                  for other, repack in changed(copy) if other != copy]
    return {"sha256": hashlib.sha256(data).hexdigest(), "after_each_chunk": orders + others}


def main() -> None:
    """Writes both files."""
    here = Path(__file__).parent
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    rng = random.Random(SEED)
    text = "\n\n".join(stories.story(rng) for _ in range(N_STORIES)) + "\n"
    (here / "goldens" / "perplexity.txt").write_text(text, encoding="utf-8")
    made = {"made_by": "test_models/perplexity.py",
            "llama_cpp_python": importlib.metadata.version("llama-cpp-python"),
            "settings": SETTINGS, "models": {m: measure(here / m, text) for m in MODELS}}
    (here / "goldens" / "perplexity.json").write_text(compact(json.dumps(made, indent=1)) + "\n")
    for name, model in made["models"].items():
        logs = np.log(model["after_each_chunk"])
        print(f"{name}: {np.exp(logs.mean(0)[-1]):.4f}, deviations {logs.std(0).round(6).tolist()}")


if __name__ == "__main__":
    main()
