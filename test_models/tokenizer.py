"""Trains a tokenizer and packs the corpus into rows of tokens.

A row holds 256 tokens: whole documents, numbered from 1 in `segments`; padding has segment 0.
"""

import argparse
import json
from pathlib import Path

import gguf
import numpy as np
import sentencepiece as spm
import tokenizers


class SentencePiece:
    """BPE with byte fallback, no normalisation and a space before the first word: what
    llama.cpp calls the `llama` tokenizer, which joins the neighbours whose joint piece has
    the highest score until none is left. A document is `bos … eos`."""

    SUFFIX = ".model"

    def __init__(self, path: Path):
        self.sp = spm.SentencePieceProcessor(model_file=str(path))
        self.n_vocab = self.sp.vocab_size()

    @staticmethod
    def train(docs: list[str], path: Path, n_vocab: int) -> None:
        """Writes the trained tokenizer. Newlines are left to the byte tokens."""
        lines = (line for doc in docs for line in doc.split("\n"))
        spm.SentencePieceTrainer.train(
            sentence_iterator=lines, model_prefix=str(path.with_suffix("")), model_type="bpe",
            vocab_size=n_vocab, byte_fallback=True, split_digits=True, character_coverage=1.0,
            normalization_rule_name="identity", add_dummy_prefix=True,
            remove_extra_whitespaces=False, unk_id=0, bos_id=1, eos_id=2, pad_id=-1,
            num_threads=1, minloglevel=1)

    def encode(self, docs: list[str]) -> list[list[int]]:
        """Tokens of whole documents."""
        return [[self.sp.bos_id(), *ids, self.sp.eos_id()] for ids in self.sp.encode(docs)]

    def write_keys(self, w: gguf.GGUFWriter) -> None:
        """Writes the `tokenizer.ggml` keys."""
        sp, ids = self.sp, range(self.n_vocab)
        w.add_tokenizer_model("llama")
        w.add_tokenizer_pre("default")
        w.add_token_list([sp.id_to_piece(i).encode("utf-8") for i in ids])
        w.add_token_scores([sp.get_score(i) for i in ids])
        w.add_token_types([gguf.TokenType.UNKNOWN if sp.is_unknown(i)
                           else gguf.TokenType.CONTROL if sp.is_control(i)
                           else gguf.TokenType.BYTE if sp.is_byte(i)
                           else gguf.TokenType.NORMAL for i in ids])
        w.add_bos_token_id(sp.bos_id())
        w.add_eos_token_id(sp.eos_id())
        w.add_unk_token_id(sp.unk_id())
        w.add_add_bos_token(True)
        w.add_add_eos_token(False)
        w.add_add_space_prefix(True)


class ByteLevel:
    """GPT-2's byte-level BPE. Its one special token is the last of the vocabulary, as in
    GPT-2; it ends a document, and nothing begins one, as llama.cpp begins none with it."""

    SUFFIX = ".json"
    END = "<|endoftext|>"

    def __init__(self, path: Path):
        self.path = path
        self.bpe = tokenizers.Tokenizer.from_file(str(path))
        self.n_vocab, self.end = self.bpe.get_vocab_size(), self.bpe.token_to_id(self.END)

    @staticmethod
    def train(docs: list[str], path: Path, n_vocab: int) -> None:
        """Writes the trained tokenizer."""
        level = tokenizers.pre_tokenizers.ByteLevel
        bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
        bpe.pre_tokenizer = level(add_prefix_space=False)
        bpe.decoder = tokenizers.decoders.ByteLevel()
        bpe.train_from_iterator(docs, tokenizers.trainers.BpeTrainer(
            vocab_size=n_vocab - 1, initial_alphabet=sorted(level.alphabet()),
            show_progress=False))
        bpe.add_special_tokens([ByteLevel.END])
        bpe.save(str(path))

    def encode(self, docs: list[str]) -> list[list[int]]:
        """Tokens of whole documents."""
        return [[*doc.ids, self.end] for doc in self.bpe.encode_batch(docs)]

    def write_keys(self, w: gguf.GGUFWriter) -> None:
        """Writes the `tokenizer.ggml` keys."""
        ids = range(self.n_vocab)
        merges = json.loads(self.path.read_text(encoding="utf-8"))["model"]["merges"]
        w.add_tokenizer_model("gpt2")
        w.add_tokenizer_pre("gpt-2")
        w.add_token_list([self.bpe.id_to_token(i) for i in ids])
        w.add_token_types([gguf.TokenType.CONTROL if i == self.end
                           else gguf.TokenType.NORMAL for i in ids])
        w.add_token_merges([" ".join(pair) for pair in merges])
        w.add_bos_token_id(self.end)
        w.add_eos_token_id(self.end)


KINDS = {"llama": SentencePiece, "gpt2": ByteLevel}


def read(path: Path) -> list[str]:
    """The documents of a corpus file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


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
    arg.add_argument("arch", choices=KINDS)
    arg.add_argument("--corpus", type=Path, default=build, help="folder with the .jsonl files")
    arg.add_argument("--out", type=Path, required=True, help="the rows, .npz; the tokenizer "
                     "goes beside them")
    arg.add_argument("--vocab", type=int, default=2048)
    arg.add_argument("--ctx", type=int, default=256)
    args = arg.parse_args()

    train, valid = read(args.corpus / "train.jsonl"), read(args.corpus / "valid.jsonl")
    kind = KINDS[args.arch]
    path = args.out.with_suffix(kind.SUFFIX)
    if not path.exists():
        kind.train(train[:20000], path, args.vocab)
    tokenizer = kind(path)
    arrays = {"n_vocab": np.int64(tokenizer.n_vocab)}
    singles = read(args.corpus / "singles.jsonl")
    for name, docs in (("train", train + singles), ("valid", valid)):
        ids = tokenizer.encode(docs)
        fit = [doc for doc in ids if len(doc) <= args.ctx]
        tokens, segments = pack(fit, args.ctx)
        arrays |= {f"{name}_tokens": tokens, f"{name}_segments": segments}
        print(f"{name}: {len(fit)} documents ({len(ids) - len(fit)} too long), "
              f"{sum(map(len, fit))} tokens in {len(tokens)} rows")
    np.savez_compressed(args.out, **arrays)


if __name__ == "__main__":
    main()
