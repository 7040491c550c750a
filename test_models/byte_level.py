"""Writes a byte-level vocabulary and the tokens that llama.cpp makes of nasty texts with it, for each
way of cutting texts into words: goldens/byte_level.json.

One vocabulary serves all ways: llama.cpp takes the way from `tokenizer.ggml.pre` alone.
"""

import argparse
import importlib.metadata
import json
import random
import tempfile
from pathlib import Path

import gguf
import tokenizers

import stories
from goldens import STRINGS, compact
from reference import Reference

PRE = ["default", "gpt-2", "llama-bpe", "dbrx", "glm4", "qwen2", "smollm", "tekken", "gpt-4o",
       "falcon", "deepseek-coder", "deepseek-v3"]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
N_VOCAB = 1200
SEED = 31

NASTY = STRINGS + [
    "don't DON'T Don'T we'Ll they'RE I'VE i'm she'd 's 't '", "'ſ ’s don’t", "it's 'tis ''s",
    "a  b   c    d     e", "a\n b\n\n c \n \n d", "  \n  x", "x  \n", "\r\n\r\n", "a\r\nb\rc\n\rd",
    "tabs\t\tand  spaces \t mixed\n\t", "\u00a0\u00a0x\u2003y\u3000z\u0085w\u2028v", "end   ",
    "1", "12", "123", "1234", "12345 678 9", "3.14 1,000 1e-5 0x1F", "½ ² Ⅷ ٣٤٥ 一二三 ௧௨", "a1b22c333d4444",
    "HelloWorld helloWORLD HELLOworld iPhone McDonald XMLHttpRequest", "ÀÉÎõü ÀÉ éa ǅ ʰ ª ﬁ",
    "foo_bar __init__ a-b c--d e---f", "!!! ??? ... ,,, ;;;", "@#$%^&*()+=[]{}|\\/<>~`\"'",
    "$100 + €200 = £300 < ¥400 > ¢5 ^ ~ | `", "a/b //c /// d/\n/e", "https://example.org/a?b=c&d=e#f",
    "日本語、テキスト。ひらがなカタカナ漢字", "中文字符，标点。１２３ＡＢＣ", "한국어 텍스트입니다", "ไทย ภาษาไทย", "हिन्दी भाषा क्षत्रिय",
    "Ελληνικά κείμενο", "Русский ТЕКСТ ёлка", "עִבְרִית", "العَرَبِيَّة", "Việt Nam e\u0301\u0323", "ქართული", "አማርኛ",
    "👩‍👩‍👧‍👦👍🏽🇫🇷🏴󠁧󠁢󠁥󠁮󠁧󠁿 ❤️ ☺", "z̸̧͓a̷l̶g̵o̴", "\u200b\u200d\ufeff\u00ad", "\u0000\u0001\u001f\u007f\u009f",
    "\U0001d518\U0010ffff\ue000\ufffd\ufffe", "if (x == 1) {\n\treturn \"y\";\n}\n",
    "    def f(self):\n        return {'a': 1}\n", "<|endoftext|>", "a<|im_end|>b <|im_start|>",
    "x" * 67, "ab" * 53, " " * 41, "\n" * 23, "!" * 37, "1" * 29, "é" * 31, "a b " * 19,
]


def train(texts: list[str]) -> tuple[list[str], list[str]]:
    """Tokens and merges of a vocabulary."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=N_VOCAB, special_tokens=SPECIAL, show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    return tokens, [" ".join(pair) for pair in model["merges"]]


def write(path: Path, pre: str, tokens: list[str], merges: list[str]) -> None:
    """A file of nothing but a vocabulary."""
    w = gguf.GGUFWriter(path, "gpt2")
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre(pre)
    w.add_token_list([token.encode("utf-8") for token in tokens])
    w.add_token_types([gguf.TokenType.CONTROL if token in SPECIAL else gguf.TokenType.NORMAL
                       for token in tokens])
    w.add_token_merges(merges)
    w.add_bos_token_id(0)
    w.add_eos_token_id(0)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.close()


def main() -> None:
    """Writes the file."""
    here = Path(__file__).parent
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    rng = random.Random(SEED)
    tokens, merges = train(NASTY * 3 + [stories.story(rng) for _ in range(300)])
    ways = {}
    with tempfile.TemporaryDirectory() as folder:
        for pre in PRE:
            path = Path(folder) / "vocabulary.gguf"
            write(path, pre, tokens, merges)
            model = Reference(path, vocab_only=True)
            ways[pre] = {"adds_bos": model.add_bos,
                         "tokens": [model.tokenize(text, False) for text in NASTY],
                         "with_special": [model.tokenize(text, True, True) for text in NASTY]}
            model.close()
    made = {"made_by": "test_models/byte_level.py",
            "llama_cpp_python": importlib.metadata.version("llama-cpp-python"),
            "tokenizers": importlib.metadata.version("tokenizers"),
            "vocabulary": tokens, "special": SPECIAL, "merges": merges, "texts": NASTY,
            "ways": ways}
    path = here / "goldens" / "byte_level.json"
    path.write_text(compact(json.dumps(made, ensure_ascii=False, indent=1)) + "\n", encoding="utf-8")
    print(f"{len(tokens)} tokens, {len(merges)} merges, {len(NASTY)} texts, {len(PRE)} ways")


if __name__ == "__main__":
    main()
