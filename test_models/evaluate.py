"""Loss of GGUF files on held-out documents, by llama.cpp, in nats a token; facts known.

Every document is read alone, from bos where the tokenizer has one; the loss is that of
all its tokens after the first, its eos included.
"""

import argparse
import math
from pathlib import Path

import numpy as np

import facts
from reference import N_CTX, Reference
from tokenizer import read


def loss(path: Path, docs: list[str]) -> tuple[float, int]:
    """Mean loss and the number of tokens it is over."""
    model = Reference(path)
    total, count = 0.0, 0
    for doc in docs:
        ids = model.tokenize(doc) + [model.eos]
        if len(ids) > N_CTX:
            continue
        model.clear()
        logits = model.decode(ids[:-1], 0, all_logits=True).astype(np.float64)
        top = logits.max(-1, keepdims=True)
        log_sum = np.log(np.exp(logits - top).sum(-1)) + top[:, 0]
        total += float((log_sum - logits[np.arange(len(ids) - 1), ids[1:]]).sum())
        count += len(ids) - 1
    return total / count, count


def answer(model: Reference, prompt: str, n: int = 40) -> str:
    """Greedy continuation up to eos or n tokens."""
    ids, said = model.tokenize(prompt), []
    model.clear()
    logits = model.decode(ids, 0)[0]
    while len(said) < n and (token := int(logits.argmax())) != model.eos:
        said.append(token)
        logits = model.decode([token], len(ids) + len(said) - 1)[0]
    return model.detokenize(said).decode("utf-8", "replace")


def known(path: Path) -> dict[str, tuple[int, int]]:
    """By kind of fact: how many questions are answered with the fact, of how many."""
    model = Reference(path)
    kinds = {"capitals": facts.CAPITALS, "colours": facts.SUBJECTS[1][1][0],
             "sounds": facts.animals()[0], "opposites": facts.SUBJECTS[5][1][0],
             "others": facts.SUBJECTS[6][1][0]}
    return {kind: (sum(answer(model, question).startswith(f" {fact}") for fact, question in table),
                   len(table)) for kind, table in kinds.items()}


def main() -> None:
    """Prints a line for each file and each kind of document."""
    here = Path(__file__).parent
    arg = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arg.add_argument("models", type=Path, nargs="+", help="facts are asked of the last one")
    arg.add_argument("--corpus", type=Path, default=here / "build")
    arg.add_argument("--documents", type=int, default=120)
    args = arg.parse_args()

    for kind, (right, count) in known(args.models[-1]).items():
        print(f"{args.models[-1].name:16} {kind:9} {right} of {count} known", flush=True)
    docs = read(args.corpus / "valid.jsonl")[:args.documents]
    kinds = {"all": docs, "stories": [d for d in docs if len(d) > 500],
             "facts": [d for d in docs if len(d) <= 500]}
    for path in args.models:
        for kind, some in kinds.items():
            nats, count = loss(path, some)
            print(f"{path.name:16} {kind:8} {nats:.4f} nats/token  perplexity "
                  f"{math.exp(nats):.3f}  ({count} tokens)", flush=True)


if __name__ == "__main__":
    main()
