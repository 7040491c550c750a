"""Trains the SentencePiece tokenizer and packs the corpus into rows of tokens.

The tokenizer is a BPE model with byte fallback, no normalisation and a space
before the first word: what llama.cpp calls the `llama` tokenizer, which joins
the neighbours whose joint piece has the highest score until none is left.

A row holds 256 tokens: whole documents, each `bos … eos`, numbered from 1 in
`segments`; padding has segment 0.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import sentencepiece as spm

BOS, EOS = 1, 2


def read(path: Path) -> list[str]:
    """The documents of a corpus file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def train_tokenizer(docs: list[str], prefix: Path, n_vocab: int) -> None:
    """Writes prefix.model and prefix.vocab. Newlines are left to the byte tokens."""
    lines = (line for doc in docs for line in doc.split("\n"))
    spm.SentencePieceTrainer.train(
        sentence_iterator=lines, model_prefix=str(prefix), model_type="bpe",
        vocab_size=n_vocab, byte_fallback=True, split_digits=True, character_coverage=1.0,
        normalization_rule_name="identity", add_dummy_prefix=True,
        remove_extra_whitespaces=False, unk_id=0, bos_id=BOS, eos_id=EOS, pad_id=-1,
        num_threads=1, minloglevel=1)


def pack(docs: list[list[int]], n_ctx: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of whole documents, long ones first, short ones into the gaps."""
    rows: list[list[list[int]]] = []
    gaps: dict[int, list[int]] = {n: [] for n in range(n_ctx + 1)}
    for doc in sorted(docs, key=len, reverse=True):
        room = next((n for n in range(len(doc), n_ctx + 1) if gaps[n]), None)
        if room is None:
            rows.append([])
            room, row = n_ctx, len(rows) - 1
        else:
            row = gaps[room].pop()
        rows[row].append(doc)
        gaps[room - len(doc)].append(row)
    tokens = np.zeros((len(rows), n_ctx), np.uint16)
    segments = np.zeros((len(rows), n_ctx), np.uint8)
    for i, row in enumerate(rows):
        at = 0
        for k, doc in enumerate(row):
            tokens[i, at:at + len(doc)] = doc
            segments[i, at:at + len(doc)] = k + 1
            at += len(doc)
    return tokens, segments


def main() -> None:
    """Trains the tokenizer if there is none yet, then packs both splits."""
    build = Path(__file__).parent / "build"
    arg = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arg.add_argument("--corpus", type=Path, default=build, help="folder with the .jsonl files")
    arg.add_argument("--out", type=Path, default=build)
    arg.add_argument("--vocab", type=int, default=2048)
    arg.add_argument("--ctx", type=int, default=256)
    args = arg.parse_args()

    train, valid = read(args.corpus / "train.jsonl"), read(args.corpus / "valid.jsonl")
    prefix = args.out / "tokenizer"
    if not prefix.with_suffix(".model").exists():
        train_tokenizer(train[:20000], prefix, args.vocab)
    sp = spm.SentencePieceProcessor(model_file=str(prefix) + ".model")
    arrays = {"n_vocab": np.int64(sp.vocab_size())}
    singles = read(args.corpus / "singles.jsonl")
    for name, docs in (("train", train + singles), ("valid", valid)):
        ids = [[BOS, *doc, EOS] for doc in sp.encode(docs)]
        fit = [doc for doc in ids if len(doc) <= args.ctx]
        tokens, segments = pack(fit, args.ctx)
        arrays |= {f"{name}_tokens": tokens, f"{name}_segments": segments}
        print(f"{name}: {len(fit)} documents ({len(ids) - len(fit)} too long), "
              f"{sum(map(len, fit))} tokens in {len(tokens)} rows")
    np.savez_compressed(args.out / "rows.npz", **arrays)


if __name__ == "__main__":
    main()
