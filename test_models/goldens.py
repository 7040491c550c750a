"""Writes what llama.cpp makes of a model: goldens/tiny.json and goldens/tokenizer.json, or
goldens/tiny-gpt2.json and goldens/tokenizer-gpt2.json.

Generation never stops at eos: a golden is 128 tokens whatever comes, and says
where the first eos is. Every step's gap between the best and the second-best
logit is kept, so that a near-tie can be told from a fault.
"""

import argparse
import hashlib
import importlib.metadata
import json
import re
from pathlib import Path

import numpy as np

from reference import N_CTX, SETTINGS, Reference

N_GENERATED = 128

# Chosen from some fifty for the size of their smallest gap between the two best logits.
PROMPTS = {
    "tiny": [
        "Once upon a time",
        "The capital of France is",
        "One day, Lily took her red ball to the park.",
        "🙂 Lily",
        "Hello!",
        "Question: What do bees make?\nAnswer:",
        "Once upon a time, there was a brave little fox named Rusty. He lived in a small house near "
        "the forest.",
        "Once upon a time, there was a kind girl named Mia. She lived in a little house near the farm "
        "with her father. One cold morning, Mia went to the market with her grandmother. There were "
        "many things to see. They saw fresh bread and yellow cheese. \"Hold my hand,\" said her "
        "grandmother. \"It is easy to get lost here.\" Mia saw a man with a white kite. It was so "
        "pretty. She stopped to look at it.",
        "It was autumn. All the animals were looking for food for the winter.",
        "A big dragon lived on the hill above the village. Everyone was afraid of it.",
    ],
    "tiny-gpt2": [
        "Once upon a time, there lived",
        "The capital of France is",
        "Question: What do bees make?\nAnswer:",
        "Hello, ",
        "naïve café 🙂",
        "Early one morning, Max heard a strange noise.",
        "In the castle lived a king who never laughed.",
        "When Lily woke up, everything was white.",
        "Once upon a time, there was a brave little fox named Rusty. He lived in a small house near "
        "the forest with his mother. One day, Rusty found a small seed.",
        "One windy day, Lily and Tom went to the beach. \"Let us build a sandcastle,\" said Tom. "
        "Lily fetched water, and Tom dug a deep hole. But the sea came closer and closer. A big "
        "wave rolled over the sand, and the castle was gone! Tom was sad. \"All our work is gone,\" "
        "he said. A crab was sitting on a stone. \"The sea takes every castle,\" it said.",
    ],
}

STRINGS = [
    "", " ", "  ", "   ", "        ", "\n", "\n\n", "\t", " \t \n ", "a", " a", "  a", "a ",
    "Hello", "Hello world", " Hello world", "  Hello  world  ", "Once upon a time",
    "Once upon a time, there was a little girl named Lily.", "The capital of France is Paris.",
    "the", "The", "THE", "tHe", "unhappinesses", "antidisestablishmentarianism",
    "naïve café", "Zürich, Åland, Łódź", "e\u0301 (combining)", "\u00a0no-break\u00a0space",
    "日本語のテキスト", "中文", "한국어", "Привет, мир", "שלום", "مرحبا", "🙂", "👩‍👩‍👧‍👦 🇫🇷 👍🏽", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢",
    "0", "1234567890", "3.14159", "1,000,000", "a1b2c3", "...", "?!", "\"quoted\" 'text'",
    "--- *** ###", "<s>", "</s>", "<unk>", "<0x41>", "<s>Hello</s>", "▁", "▁▁a▁b",
    "<|endoftext|>", "Hi<|endoftext|>Hi",
    "fn main() {\n    println!(\"{}\", 1 + 2);\n}\n", "if (a<b && c>=d) return x[0];",
    "line one\nline two\r\nline three", "tab\tseparated\tvalues", "\u0001\u001b[0m\u007f",
    "\ufeffbyte order mark", "zero\u200bwidth", "Question: What is ice made of?\nAnswer:",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "....................", "it's don't we'll",
    "IT'S DON'T 'tis 's'd 're've'm", "it\u2019s", "x'", "a  b   c", "a \n b", "end \n\n  ",
    "word \u3000word", "\u00a0 \u00a0x", "x\u00b2 \u00bd \u2167 \u0663\u0664", "snake_case_name",
    "$9.99 50% #1", "(a)[b]{c}",
    "\u0939\u093f\u0928\u094d\u0926\u0940", "\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22",
    "\U0001f600\U0001f600", "e\u0301e\u0301",
]


def logits_along(model: Reference, prompt: list[int], tokens: list[int] | None) -> np.ndarray:
    """Logits of each step, [N_GENERATED, n_vocab]: greedy, or along the given tokens."""
    model.clear()
    steps = [model.decode(prompt, 0)[0]]
    while len(steps) < N_GENERATED:
        token = int(steps[-1].argmax()) if tokens is None else tokens[len(steps) - 1]
        steps.append(model.decode([token], len(prompt) + len(steps) - 1)[0])
    return np.stack(steps)


def generate(model: Reference, plain: Reference, prompt: str) -> dict:
    """Greedy generation with everything that a test wants to see of it.

    `plain` is the same model without repacked weights: llama.cpp adds up in another
    order there, and a golden that depends on which one is no golden.
    """
    ids = model.tokenize(prompt)
    if len(ids) + N_GENERATED > N_CTX:
        raise SystemExit(f"{len(ids)} prompt tokens leave no room: {prompt[:40]}")
    logits = logits_along(model, ids, None)
    tokens = [int(t) for t in logits.argmax(-1)]
    other = logits_along(plain, ids, tokens)
    first, best = logits[0], np.sort(logits, axis=-1)
    gaps = (best[:, -1] - best[:, -2]).astype(float)
    eos_at = tokens.index(model.eos) if model.eos in tokens else None
    raw = model.detokenize(tokens)
    return {
        "prompt": prompt, "prompt_tokens": ids, "tokens": tokens,
        "text": raw.decode("utf-8", "replace"), "text_utf8_hex": raw.hex(),
        "eos_at": eos_at, "stop": "eos" if eos_at is not None else "length",
        "first_top10": [[int(t), round(float(first[t]), 6)]
                        for t in np.argsort(-first, kind="stable")[:10]],
        "first_logits": {"min": float(first.min()), "max": float(first.max()),
                         "mean": float(first.mean(dtype=np.float64)),
                         "std": float(first.std(dtype=np.float64)),
                         "sum_squares": float((first.astype(np.float64) ** 2).sum())},
        "gaps": [round(float(g), 6) for g in gaps],
        "min_gap": round(float(gaps.min()), 6), "min_gap_at": int(gaps.argmin()),
        "without_repacking": {
            "same_tokens": bool((other.argmax(-1) == logits.argmax(-1)).all()),
            "max_logit_difference": round(float(np.abs(other - logits).max()), 6)},
    }


def compact(text: str) -> str:
    """Indented JSON with its innermost lists of numbers on one line each."""
    return re.sub(r"\[[\s\d.,eE+-]*\]", lambda m: re.sub(r"\s+", " ", m[0]), text)


def same_tokens(path: Path, made: dict) -> bool:
    """Whether a committed file has the tokens that were made now."""
    old = json.loads(path.read_text(encoding="utf-8"))
    key = "runs" if "runs" in made else "strings"
    pick = [[entry.get("prompt_tokens"), entry["tokens"]] for entry in made[key]]
    return pick == [[entry.get("prompt_tokens"), entry["tokens"]] for entry in old[key]]


def main() -> None:
    """Writes or checks both files and prints the smallest gaps."""
    here = Path(__file__).parent
    arg = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arg.add_argument("model", type=Path)
    arg.add_argument("--out", type=Path, default=here / "goldens")
    arg.add_argument("--prompts", nargs="*", help="try these, write nothing")
    arg.add_argument("--check", action="store_true", help="compare with --out, write nothing")
    args = arg.parse_args()

    head = {"made_by": "test_models/goldens.py",
            "llama_cpp_python": importlib.metadata.version("llama-cpp-python"),
            "model": args.model.name,
            "model_sha256": hashlib.sha256(args.model.read_bytes()).hexdigest()}
    model, plain = Reference(args.model), Reference(args.model, repack=False)
    runs = [generate(model, plain, prompt) for prompt in args.prompts or PROMPTS[args.model.stem]]
    for run in runs:
        print(f"gap {run['min_gap']:.4f} at {run['min_gap_at']:3}, eos at {run['eos_at']}, "
              f"without repacking {run['without_repacking']}, {run['prompt'][:40]!r}")
        print(f"    {run['text']!r}")
    if args.prompts:
        return
    files = {
        f"{args.model.stem}.json": {
            **head, "settings": SETTINGS, "n_generated": N_GENERATED, "runs": runs},
        f"{args.model.stem.replace('tiny', 'tokenizer', 1)}.json": {
            **head, "settings": {"add_special": True, "parse_special": False},
            "strings": [{"text": s, "tokens": model.tokenize(s)} for s in STRINGS]},
    }
    args.out.mkdir(parents=True, exist_ok=True)
    for name, made in files.items():
        if not args.check:
            text = json.dumps(made, ensure_ascii=False, indent=1)
            (args.out / name).write_text(compact(text) + "\n", encoding="utf-8")
        elif not same_tokens(args.out / name, made):
            raise SystemExit(f"{name} differs from what llama.cpp gives here")


if __name__ == "__main__":
    main()
