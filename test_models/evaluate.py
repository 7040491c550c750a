"""Loss of GGUF files on held-out documents, by llama.cpp, in nats a token.

Every document is read alone, from bos; the loss is that of all its tokens after
bos, its eos included.
"""

import argparse
import math
from pathlib import Path

import numpy as np

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


def main() -> None:
    """Prints a line for each file and each kind of document."""
    here = Path(__file__).parent
    arg = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arg.add_argument("models", type=Path, nargs="*",
                     default=[here / "build" / "tiny-f16.gguf", here / "tiny.gguf"])
    arg.add_argument("--corpus", type=Path, default=here / "build")
    arg.add_argument("--documents", type=int, default=120)
    args = arg.parse_args()

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
