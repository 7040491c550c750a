"""Writes what llama.cpp's samplers make of fixed logits: goldens/sampling.json.

Each chain is built as llama.cpp's common sampler builds it, from settings with the names that
`anchorite.toml` has for them, and ends with a draw, before which the probabilities are read. DRY is
asked on its own as well, with vocabularies, texts and what ends a repetition.
"""

import ctypes
import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path

import llama_cpp as ll
import numpy as np

from goldens import compact
from reference import Reference

HERE = Path(__file__).parent
N_VOCAB = 97
DEFAULTS = {
    "penalty_last_n": 64, "repeat_penalty": 1.0, "frequency_penalty": 0.0, "presence_penalty": 0.0,
    "dry_multiplier": 0.0, "dry_base": 1.75, "dry_allowed_length": 2, "dry_penalty_last_n": 64,
    "top_n_sigma": 0.0, "top_k": 0, "typical_p": 1.0, "top_p": 1.0, "min_p": 0.0,
    "xtc_probability": 0.0, "xtc_threshold": 0.1, "temperature": 1.0,
}
CREATIVE = {"top_k": 40, "top_p": 0.95, "min_p": 0.05, "temperature": 0.8}
ALL = {**CREATIVE, "repeat_penalty": 1.1, "frequency_penalty": 0.2, "presence_penalty": 0.3,
       "penalty_last_n": 23, "dry_multiplier": 0.8, "top_n_sigma": 3.0, "typical_p": 0.9,
       "xtc_probability": 1.0, "xtc_threshold": 0.05}
CHAINS = [
    {}, CREATIVE, ALL,
    {"temperature": 0.3}, {"temperature": 1.7}, {"temperature": 0.0},
    {"top_k": 1}, {"top_k": 7}, {"top_k": 96},
    {"top_p": 0.0}, {"top_p": 0.3}, {"top_p": 0.9}, {"top_p": 0.999},
    {"min_p": 0.01}, {"min_p": 0.3}, {"min_p": 1.0},
    {"typical_p": 0.1}, {"typical_p": 0.5}, {"typical_p": 0.95},
    {"top_n_sigma": 0.5}, {"top_n_sigma": 1.0}, {"top_n_sigma": 2.5},
    {"xtc_probability": 1.0}, {"xtc_probability": 1.0, "xtc_threshold": 0.02},
    {"xtc_probability": 1.0, "xtc_threshold": 0.51}, {"xtc_probability": 1.0, "temperature": 0.0},
    {"repeat_penalty": 1.3}, {"repeat_penalty": 0.8, "penalty_last_n": 5},
    {"frequency_penalty": 0.5}, {"frequency_penalty": -0.25, "presence_penalty": 1.5},
    {"repeat_penalty": 1.2, "penalty_last_n": 0},
    {"dry_multiplier": 0.8}, {"dry_multiplier": 2.5, "dry_base": 1.0, "dry_allowed_length": 1},
    {"dry_multiplier": 0.5, "dry_allowed_length": 0, "dry_penalty_last_n": 11},
    {"logit_bias": [[3, -1e30], [5, 4.0], [11, -2.5]], **CREATIVE},
    {"top_k": 20, "typical_p": 0.7, "top_p": 0.8, "temperature": 1.2},
    {"top_n_sigma": 2.0, "min_p": 0.02, "xtc_probability": 1.0},
]
MIROSTATS = [
    {"mirostat_tau": 5.0, "mirostat_eta": 0.1}, {"mirostat_tau": 2.0, "mirostat_eta": 0.5},
    {**ALL, "mirostat_tau": 3.0, "mirostat_eta": 0.3, "logit_bias": [[5, 4.0]]},
]
BREAKERS = [["\n", ":", '"', "*"], [], ["said"], ["e"], ["<|im_end|>", "aaaa"],
            ["a little bit of everything that is there"], ["Rosie", "é", "<x>"],
            ["other day"], ['said: "The', "day aa"]]
TEXT = ('Rosie said: "The other day aaaaaaaa was dark."\nRosie said: "The other day aaaaaaaa was '
        'not dark."<|im_end|>\n* The <x><x>é said *\n* The <x>é said')


def number(x: float) -> float:
    """An F32 with as many digits as it has."""
    return float(f"{x:.9g}")


def chain_of(settings: dict, vocab: ctypes.c_void_p, seed: int) -> ctypes.c_void_p:
    """The chain that llama.cpp builds of these settings."""
    s = {**DEFAULTS, **settings}
    chain = ll.llama_sampler_chain_init(ll.llama_sampler_chain_default_params())
    parts = []
    if biases := s.get("logit_bias"):
        array = (ll.llama_logit_bias * len(biases))(*map(tuple, biases))
        parts.append(ll.llama_sampler_init_logit_bias(N_VOCAB, len(biases), array))
    if "mirostat_tau" in s:
        parts += [ll.llama_sampler_init_temp(s["temperature"]),
                  ll.llama_sampler_init_mirostat_v2(seed, s["mirostat_tau"], s["mirostat_eta"])]
    else:
        parts += [
            ll.llama_sampler_init_penalties(
                N_VOCAB, s["penalty_last_n"], s["repeat_penalty"], s["frequency_penalty"],
                s["presence_penalty"]),
            dry_of(s, vocab, []),
            ll.llama_sampler_init_top_n_sigma(s["top_n_sigma"]),
            ll.llama_sampler_init_top_k(s["top_k"]),
            ll.llama_sampler_init_typical(s["typical_p"], 0),
            ll.llama_sampler_init_top_p(s["top_p"], 0),
            ll.llama_sampler_init_min_p(s["min_p"], 0),
            ll.llama_sampler_init_xtc(s["xtc_probability"], s["xtc_threshold"], 0, seed),
            ll.llama_sampler_init_temp_ext(s["temperature"], 0.0, 1.0),
            ll.llama_sampler_init_dist(seed)]
    for part in parts:
        ll.llama_sampler_chain_add(chain, part)
    return chain


def dry_of(s: dict, vocab: ctypes.c_void_p, breakers: Sequence[str]) -> ctypes.c_void_p:
    """DRY alone."""
    texts = (ctypes.c_char_p * max(len(breakers), 1))(*(b.encode("utf-8") for b in breakers))
    return ll.llama_sampler_init_dry(
        vocab, s["dry_multiplier"], s["dry_base"], s["dry_allowed_length"],
        s["dry_penalty_last_n"], texts, len(breakers))


class Candidates:
    """Candidates for the next token."""

    def __init__(self, logits: Sequence[float]):
        self.data = (ll.llama_token_data * len(logits))(
            *((token, logit, 0.0) for token, logit in enumerate(logits)))
        self.array = ll.llama_token_data_array(self.data, len(logits), -1, False)

    def apply(self, sampler: ctypes.c_void_p) -> "Candidates":
        """Lets a sampler see them."""
        ll.llama_sampler_apply(sampler, ctypes.byref(self.array))
        return self

    def left(self) -> dict:
        """Those that may be drawn, with their probabilities."""
        kept = [self.array.data[i] for i in range(self.array.size)]
        kept = sorted((c.id, number(c.p)) for c in kept if c.p > 0.0)
        return {"tokens": [token for token, _ in kept], "p": [p for _, p in kept]}

    def drawn(self) -> int:
        """The one drawn."""
        return self.array.data[self.array.selected].id


def main() -> None:
    """Writes the goldens."""
    random = np.random.default_rng(17)
    # Logits as models have them, a sure choice, and none.
    logits = [[number(x) for x in random.standard_normal(N_VOCAB).astype(np.float32) * size + middle]
              for size, middle in [(3.0, 0.0), (6.0, -9.0), (0.4, 2.0)]]
    phrase = random.integers(0, N_VOCAB, 7).tolist()
    text = random.integers(0, 9, 40).tolist() + phrase + [5, 5, 5, 5] + phrase + [8] + phrase[:5]

    models = {name: Reference(HERE / "vocabularies" / f"{name}.gguf", vocab_only=True)
              for name in ("spm", "spm-bare", "bpe", "odd")}
    vocab = models["spm"].vocab
    chains = []
    for settings in CHAINS:
        for which, row in enumerate(logits):
            chain = chain_of(settings, vocab, 1)
            for token in text:
                ll.llama_sampler_accept(chain, token)
            left = Candidates(row).apply(chain).left()
            chains.append({"settings": settings, "logits": which, "left": left})
            ll.llama_sampler_free(chain)
    mirostats = []
    for settings in MIROSTATS:
        chain = chain_of(settings, vocab, 3)
        for token in text:
            ll.llama_sampler_accept(chain, token)
        steps = []
        for step in range(13):
            candidates = Candidates(logits[step % 3]).apply(chain)
            steps.append({"left": candidates.left(), "drawn": candidates.drawn()})
            ll.llama_sampler_accept(chain, candidates.drawn())
        mirostats.append({"settings": settings, "steps": steps})
        ll.llama_sampler_free(chain)
    repetitions = []
    for name, model in models.items():
        common = model.tokenize(TEXT, add_special=False, parse_special=True)
        few = sorted(set(common))[:5]
        texts = [common + common[:-1], common + common[:len(common) // 2], few[:3] * 7 + few[:1],
                 [few[0]] * 31, random.choice(few[:3], 53).tolist()]
        for i, breakers in enumerate(BREAKERS):
            for j, tokens in enumerate(texts):
                settings = {"dry_multiplier": 0.75, "dry_base": [1.75, 1.0, 100.0][(i + j) % 3],
                            "dry_allowed_length": [2, 1, 4, 0][j % 4],
                            "dry_penalty_last_n": [64, 4096, 29][(i + j) % 3]}
                dry = dry_of({**DEFAULTS, **settings}, model.vocab, breakers)
                for token in tokens:
                    ll.llama_sampler_accept(dry, token)
                candidates = Candidates([0.0] * model.n_vocab).apply(dry)
                lowered = [c for c in candidates.data if c.logit != 0.0]
                repetitions.append({
                    "vocabulary": name, "breakers": breakers, "settings": settings, "text": tokens,
                    "tokens": [c.id for c in lowered],
                    "logits": [number(c.logit) for c in lowered]})
                ll.llama_sampler_free(dry)
    made = {"made_by": "test_models/sampling.py",
            "llama_cpp_python": importlib.metadata.version("llama-cpp-python"),
            "text": text, "logits": logits, "chains": chains, "mirostats": mirostats,
            "repetitions": repetitions}
    out = HERE / "goldens" / "sampling.json"
    out.write_text(compact(json.dumps(made, ensure_ascii=False, indent=1)) + "\n")
    print(f"{len(chains)} chains, {len(repetitions)} repetitions, "
          f"{sum(bool(r['tokens']) for r in repetitions)} of them lowered, "
          f"{out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
