"""Writes what llama.cpp makes of its KV caches in F32 and Q8_0, and of a text that outgrows the
context: goldens/kv_cache.json.

When one position is left, llama.cpp's `--context-shift` keeps the first `n_keep` tokens, drops half
of the rest and rotates the keys of what is left to their new positions; so does this script, with
the same two calls. llama.cpp has values in Q8_0 only for heads of whole blocks of 32, and can shift
keys in Q8_0 only where heads are wide enough to be spread (64): it crashes else.

A prompt is only taken if rounding does not decide the text: see `is_stable`.
"""

import argparse
import hashlib
import importlib.metadata
import json
import tempfile
from pathlib import Path

import llama_cpp as ll
import numpy as np

from architectures import Model, changed
from goldens import compact
from reference import SETTINGS, Reference, quantise

N_GENERATED = 96
# A context in which texts of this many tokens shift more than once.
SHORT = 40
# The least lead of a best logit over the second.
MIN_GAP = {"tiny": 0.05, "random": 0.01}
# The most that the last logits may change where nothing should.
MAX_CHANGE = {"tiny": 0.2, "random": 0.02}

STORIES = ["Once upon a time", "The capital of France is", "Hello!",
           "Question: What do bees make?\nAnswer:", "A big dragon lived on the hill.",
           "One day, Lily took her red ball to the park.", "In the castle lived a king",
           "Early one morning, Max heard a strange noise.", "The capital of Norway is",
           "When Lily woke up, everything was white.", "A young horse is called",
           "It was autumn.", "The opposite of hot is", "A cow says", "Snow is"]
LETTERS = ["abcab cab", "a", "Fox!", "b c", "cab", "abc abc", "Hello", "one two", "?", "zebra",
           "12345", "ab ab ab", "x y z", "Lily", "q", "the", "car", "bab", "cc", "no"]

# Model, prompts, types of the cache; context shifts, with the tokens kept besides the first.
CASES = [
    ("tiny", STORIES, ["f32", "q8_0"], ["f16", "f32"]),
    ("tiny-gpt2", STORIES, ["f32", "q8_0"], []),
    ("architectures/llama-F16", LETTERS, ["f32"], ["f16", "f32"]),
    ("architectures/llama-biased-F16", LETTERS, ["f32"], ["f16"]),
    ("architectures/qwen2-F16", LETTERS, ["f32"], []),
    ("architectures/qwen3-F16", LETTERS, ["f32", "q8_0"], ["f16"]),
    ("architectures/gemma-F16", LETTERS, ["f32", "q8_0"], ["f16"]),
    ("architectures/gemma2-F16", LETTERS, ["f32", "q8_0"], ["f16"]),
    ("architectures/gemma3-F16", LETTERS, ["f32"], ["f16"]),
    ("architectures/wide-F16", LETTERS, ["f16", "q8_0"], ["f16", "q8_0"]),
]
# Prompts that are taken of each case.
N_PROMPTS = 2


def wide(out: Path, seed: int) -> None:
    """A model with a head wide enough for rotation in Q8_0: keys over 128, values over 64."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "f32.gguf"
        m = Model(source, "llama", seed, n_head=1, n_head_kv=1, head_size=128, n_ff=64)
        m.rms(names_head_size=True)
        m.file.add_rope_dimension_count(m.head_size)
        m.embeddings(output=False)
        m.layers()
        m.close()
        quantise(source, out, ll.LLAMA_FTYPE_MOSTLY_F16)


def generate(model: Reference, prompt: str, n_ctx: int | None, n_keep: int) -> dict:
    """Greedy generation with context shift in a context of `n_ctx`.

    Gives the logits of the first and the last step, and the least lead of a best logit."""
    ids = model.tokenize(prompt)
    model.clear()
    steps, n_past, n_shifts = [model.decode(ids, 0)[0]], len(ids), 0
    while len(steps) < N_GENERATED:
        if n_ctx and n_past + 1 >= n_ctx:
            n_past, n_shifts = model.shift(n_keep, n_past), n_shifts + 1
        steps.append(model.decode([int(steps[-1].argmax())], n_past)[0])
        n_past += 1
    logits = np.stack(steps)
    best = np.sort(logits, axis=-1)
    kept = {"n_ctx": n_ctx, "n_keep": n_keep, "n_shifts": n_shifts} if n_ctx else {}
    return {"prompt": prompt, **kept, "prompt_tokens": ids,
            "tokens": [int(t) for t in logits.argmax(-1)],
            "first_logits": logits[0], "last_logits": logits[-1],
            "min_gap": round(float((best[:, -1] - best[:, -2]).min()), 5)}


class Judge:
    """llama.cpp with a model in all the ways that should change nothing: without repacked weights;
    for models of random weights also with norms that differ in their last digits."""

    def __init__(self, file: Path, kv_type: str):
        self.kind = "tiny" if file.stem.startswith("tiny") else "random"
        self.folder = tempfile.TemporaryDirectory()
        copy = Path(self.folder.name) / file.name
        copy.write_bytes(file.read_bytes())
        self.others = []
        for i, (other, repack) in enumerate(changed(copy)):
            own = copy.with_suffix(f".{i}")
            own.write_bytes(other.read_bytes())
            self.others.append(Reference(own, repack, kv_type=kv_type))
            if self.kind == "tiny":
                break

    def is_stable(self, run: dict, n_ctx: int | None, n_keep: int) -> bool:
        """Whether rounding does not decide the text of a run."""
        if run["min_gap"] < MIN_GAP[self.kind]:
            return False
        for other in self.others:
            made = generate(other, run["prompt"], n_ctx, n_keep)
            change = np.abs(made["last_logits"] - run["last_logits"]).max()
            if made["tokens"] != run["tokens"] or change > MAX_CHANGE[self.kind]:
                return False
        return True

    def close(self) -> None:
        """Gives up the models."""
        for other in self.others:
            other.close()
        self.folder.cleanup()


def find(file: Path, prompts: list[str], kv_type: str, ways: list) -> list[dict]:
    """The first prompts of which each way of shifting gives a stable text."""
    model, judge = Reference(file, kv_type=kv_type), Judge(file, kv_type)
    found = []
    for n_ctx, n_keep in ways:
        n = 0
        for prompt in prompts:
            keep = len(model.tokenize(prompt)) if n_keep is None else n_keep
            run = generate(model, prompt, n_ctx, keep)
            if n < N_PROMPTS and len(set(run["tokens"])) > 5 and judge.is_stable(run, n_ctx, keep):
                n += 1
                run["kv_type"] = kv_type
                # Those of the large vocabulary would fill the file.
                for name in "first_logits", "last_logits":
                    logits = run.pop(name)
                    best = np.argsort(-logits, kind="stable")[:16]
                    run[name] = [[int(t), round(float(logits[t]), 5)] for t in best]
                found.append(run)
        print(f"{file.stem} in {kv_type}, context {n_ctx}, keep {n_keep}: {n} prompts", flush=True)
    model.close()
    judge.close()
    return found


def main() -> None:
    """Writes the goldens, and the model that only they need."""
    here = Path(__file__).parent
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    # The first seed with stable texts in all the ways below.
    wide(here / "architectures" / "wide-F16.gguf", seed=5)
    models = {}
    for name, prompts, kv_types, shifts in CASES:
        file = here / f"{name}.gguf"
        runs = [run for kv in kv_types for run in find(file, prompts, kv, [(None, 0)])]
        # The beginning alone is kept, or the whole prompt.
        ways = [(SHORT, 1), (SHORT, None)]
        runs += [run for kv in shifts for run in find(file, prompts, kv, ways)]
        models[f"{name}.gguf"] = {
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "runs": runs}
    made = {"made_by": "test_models/kv_cache.py",
            "llama_cpp_python": importlib.metadata.version("llama-cpp-python"),
            "settings": SETTINGS, "n_generated": N_GENERATED, "models": models}
    text = compact(json.dumps(made, ensure_ascii=False, indent=1))
    (here / "goldens" / "kv_cache.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
