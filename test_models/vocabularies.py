"""Makes small vocabularies, and the tokens that llama.cpp gives for a corpus of nasty text.

Each vocabulary is a GGUF file without tensors: byte-level BPE, the same with faults, and
SentencePiece. The byte-level one is encoded once with every pre-tokeniser, with nothing but
`tokenizer.ggml.pre` changed.
"""

import argparse
import ctypes
import importlib.metadata
import io
import json
import os
import random
import re
import tempfile
from pathlib import Path

import gguf
import llama_cpp as ll
import sentencepiece as spm
import tokenizers

# One of each form of pre-tokeniser that the engine has, then others of the same form.
PRES = {
    "default": [],
    "gpt-2": ["phi-2", "gigachat", "a.x-4.0", "mellum", "mpt", "olmo", "jais", "trillion",
              "granite-docling", "exaone4"],
    "llama-bpe": ["llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"],
    "dbrx": ["smaug-bpe", "chatglm-bpe"],
    "glm4": ["glm5"],
    "minicpm5": [],
    "qwen2": ["deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "stablelm2", "hunyuan",
              "solar-open", "grok-2", "bailingmoe", "bailingmoe2", "llada-moe"],
    "qwen35": [],
    "laguna": [],
    "ufakzeka": [],
    "seed-coder": [],
    "tekken": [],
    "gpt-4o": ["llama4", "kanana2", "talkie", "minimax-m2"],
    "smollm": ["starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b",
               "mellum2"],
    "falcon": [],
    "deepseek-llm": [],
    "deepseek-coder": [],
    "deepseek-v3": ["hunyuan-dense", "joyai-llm", "hy_v4"],
    "bloom": ["gpt3-finnish", "poro-chat"],
    "viking": [],
}

# What the random strings are made of; short strings of all kinds that stand beside each other.
ATOMS = [
    "a", "B", "é", "É", "ß", "ÀÉ", "éÀ", "the", "The", "THE", " hello", " World", "camelCase",
    "XMLHttpRequest", "'s", "'S", "'re", "'LL", "'x", "’s", " ", "  ", "   ", "\t", "\n", "\r\n",
    "\n\n", " \n", "\u00a0", "\u3000", "\u2003", "\u0085", "\u2028", "\u1680", "1", "12", "1234",
    "12345678", "٣", "½", "Ⅷ", "²", ".", "!?", "...", "$", "€", "<", "=", "`", "(", "/", "//",
    "_", "-", "+", "^", "~", "|", "@", "#", "%", "&", "*", "\\", "\"", "“q”", "—", "·", "。",
    "，", "、", "！", "「", "ー", "〜", "㈱", "⑴", "\u200d", "\u200b", "\ufeff", "\u0301",
    "e\u0301", "漢", "字", "かな", "カナ", "한국", "ไทย", "हिन्दी", "عربي", "עברית", "ქართ",
    "Привет", "ΑΒΓ", "ΐ", "Ǆ", "ǅ", "ªº", "ʰ", "ﷺ", "𝔘", "👩‍👧‍👦", "🇫🇷", "👍🏽", "🙂",
    "\U000e0041", "\u0000", "\u0001", "\u007f", "\ue000", "\U0010ffff", "\u0378", "\u2ffc",
    "</s>", "<tool>", "▁", "<0x41>",
]

TEXTS = [
    "", " ", "  ", "   ", "        ", "\n", "\n\n", "\n\n\n\n", "\t", "\t\t", " \t \n ", "\r\n",
    " \r\n\r\n  x", "a", " a", "  a", "a ", "a  ", "a   b", "  a  b  ", "a\n", "a\n b", "a \n b",
    "end \n\n  ", "x\u3000y", "\u3000\u3000x", "\u00a0 \u00a0x", "x\u0085\u0085y", "\u2028\u2029",
    "Hello world", " Hello  World ", "The quick brown fox jumps over the lazy dog.",
    "it's don't we'll you're I've I'm he'd", "IT'S DON'T WE'LL YOU'RE I'VE I'M HE'D", "'s", "'",
    "''s", "x'", "'ſ", "x'sy'ty", "'tis 'twas", "it\u2019s", "O'Neill's", "'re've'll",
    "0", "7", "42", "123", "1234", "1234567890", "3.14159", "1,000,000", "12-34-56", "a1b2c3",
    "1a 2b", "x²y³", "½¾", "Ⅷ Ⅸ", "٠١٢٣٤٥", "१२३४", "１２３４", "000000000000000000000",
    "...", "?!?!", "--- *** ###", "(a)[b]{c}", "$9.99 50% #1 @me a&b", "x=y<z>w^v~u|t`s",
    "a/b/c //d", "\\n\\t", "¿Qué? ¡Sí!", "«guillemets» „Gänsefüßchen“ “quotes” ‘single’",
    "snake_case_name camelCaseName PascalCaseName SCREAMING_CASE kebab-case",
    "HTTPServer XMLHttpRequest iPhone McDonald's aB Ab AB ab", "ÀÉÎõü éÀ ÑañÁ ǅungla Ǆ ǆ",
    "fn main() {\n    println!(\"{}\", 1 + 2);\n}\n",
    "def f(x):\n\treturn x if x>0 else -x  # comment\n\n\n",
    "if (a<b && c>=d) return x[0];\n", "<p class=\"x\">text</p>", "SELECT * FROM t WHERE a='b';",
    "https://example.com/path?query=1&x=%20#frag", "user.name+tag@example.co.uk",
    "#include <stdio.h>\r\nint main(void) { return 0; }\r\n",
    "naïve café résumé Ångström", "e\u0301e\u0301 n\u0303 o\u0308\u0304", "\u0301", "a\u0301\u0302b",
    "Привет, мир! Ёлка", "Γειά σου Κόσμε", "Բարեւ աշխարհ", "გამარჯობა მსოფლიო", "שלום עולם",
    "مرحبا بالعالم ﷺ", "नमस्ते दुनिया हिन्दी", "হ্যালো বিশ্ব", "வணக்கம் உலகம்", "สวัสดีชาวโลก ภาษาไทย",
    "ສະບາຍດີ", "မင်္ဂလာပါ", "ជំរាបសួរ", "བཀྲ་ཤིས", "ሰላም ልዑል", "ᏣᎳᎩ", "ᐃᓄᒃᑎᑐᑦ", "ᚠᚢᚦᚨᚱᚲ", "Ⰳⰾⰰⰳⱁⰾ",
    "你好，世界！这是一个测试。", "漢字とひらがなとカタカナ、ーと〜。", "안녕하세요 세계 ㄱㄴㄷ", "Việt Nam tiếng Việt",
    "𠀀𠀁𪚥", "𐍈𐌰𐌿𐍄", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟙𝟚𝟛", "ﬁ ﬂ ﬃ", "㈱①⑴㊀", "ªº ʰʲ ᵃᵇ",
    "🙂", "🙂🙂🙂", "👩‍👧‍👦 family", "🇫🇷🇩🇪", "👍🏽👎🏿", "❤️ ☀️", "1️⃣2️⃣", "a🙂b 🙂c", "🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "zero\u200bwidth\u200djoin\ufeff", "\ufeffbyte order mark", "soft\u00adhyphen", "\u202eright to left",
    "\u0000", "a\u0000b", "\u0001\u001b[0m\u007f", "\ue000\uf8ff", "\ufffd", "\U0010ffff", "\u0378\u0379",
    "Ä" + "a" * 61, "a" * 97, "A" * 97, "ab" * 53, "É" * 31 + "A" * 31, " " * 127, "\n" * 67, "\t" * 43,
    "." * 101, "=" * 64, "'" * 37, "1" * 101, "漢" * 41, " \n" * 29, "x " * 47, "!a" * 23, "🙂" * 19,
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft",
    "🙂  ", "½ \t ", "हिन्दी  \nहिन्दी   ", "漢字\u3000\u3000", "🙂 🙂 \n 🙂   ",
    "<s>", "</s>", "<unk>", "a</s>b", "<|endoftext|>", "<tool>", " <tool> <tool>", "<tool><tool>x",
    "a\n\n\nb", "<|im_start|>user\nHi<|im_end|>\n", "<0x41>", "▁", "▁▁a▁b", "[UNK]", "Ġ", "ĠaĊ",
]

BROKEN = [
    b"\xff", b"\xfe\xff", b"\x80", b"a\x80b", b"\xc3", b"\xc3(", b"\xe2\x82", b"\xe2\x82a", b"\xf0\x9f\x99",
    b"\xf0\x9f\x99 \xf0\x9f\x99\x82", b"\xc0\xaf", b"\xe0\x80\xaf", b"caf\xe9 na\xefve", b"\xff" * 13,
    b"ok \xe6\xbc\xa2\xe5\xad x", b"\xf8\x88\x80\x80\x80", b"<tool>\xff<tool>",
]

SPECIAL_TEXTS = [
    "", "a", "<s>a</s>", "</s></s>", " </s> ", "a<|im_end|>\n b", "<|im_start|>user\n  Hi <|im_end|>\n",
    "<|im_start|><|im_start|>x", "<unk>", "<tool> a <tool>", "a  <s>  b", "<|im_", "im_end|>", "<|im_end|",
    "<|endoftext|>\t\n x", "<<s>>", "<s", "<|fim_pad|>x", "a\n\n\n\n\nb", "<x><x>y<x>", "unused",
]


def texts() -> list[str]:
    """What is above, and random strings of the atoms."""
    rng = random.Random(2)
    return TEXTS + ["".join(rng.choices(ATOMS, k=rng.randint(2, 11))) for _ in range(151)]


def strings() -> list[bytes]:
    """The corpus."""
    return [text.encode() for text in texts()] + BROKEN


def train_bpe(stories: str, n_vocab: int) -> tuple[list[str], list[tuple[str, str]]]:
    """A vocabulary and merges of byte-level BPE. Some of it comes from stories, most from the corpus
    itself, as it is, so that tokens go across the borders that pre-tokenisers make."""
    level = tokenizers.pre_tokenizers.ByteLevel
    tokens, merges = sorted(level.alphabet()), []
    corpus = [text for text in texts() for _ in range(2)]
    for docs, use_regex, n in ((stories.split("\n"), True, 400), (corpus, False, n_vocab)):
        bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
        bpe.pre_tokenizer = level(add_prefix_space=False, use_regex=use_regex)
        bpe.train_from_iterator(docs, tokenizers.trainers.BpeTrainer(
            vocab_size=n, initial_alphabet=sorted(level.alphabet()),
            show_progress=False))
        trained = [tuple(pair) for pair in json.loads(bpe.to_str())["model"]["merges"]]
        merges += [pair for pair in trained
                   if pair not in merges and "".join(pair) not in dict(SPECIALS)]
    for left, right in merges:
        if left + right not in tokens:
            tokens.append(left + right)
    return tokens, merges


SPECIALS = [
    ("<|endoftext|>", gguf.TokenType.CONTROL), ("<|im_start|>", gguf.TokenType.CONTROL),
    # Ends a turn, so it is a control token whatever the file says.
    ("<|im_end|>", gguf.TokenType.NORMAL), ("<|fim_pad|>", gguf.TokenType.USER_DEFINED),
    ("<tool>", gguf.TokenType.USER_DEFINED), ("<x>", gguf.TokenType.USER_DEFINED),
    ("<x><x>", gguf.TokenType.USER_DEFINED), ("\n\n\n", gguf.TokenType.USER_DEFINED),
    ("unused", gguf.TokenType.UNUSED),
]


def start(path: Path, name: str) -> gguf.GGUFWriter:
    """A file without tensors."""
    w = gguf.GGUFWriter(path, "llama")
    w.add_name(name)
    w.add_license("MIT OR Apache-2.0")
    return w


def finish(w: gguf.GGUFWriter) -> None:
    """Writes it."""
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.close()


def write_bpe(path: Path, pre: str, tokens: list[str], merges: list[str], eos: bool) -> None:
    """Byte-level BPE, with special tokens at the end; the first of them is `bos` and `eos`."""
    w = start(path, "byte-level BPE")
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre(pre)
    w.add_token_list(tokens + [text for text, _ in SPECIALS])
    w.add_token_types([gguf.TokenType.NORMAL] * len(tokens) + [kind for _, kind in SPECIALS])
    w.add_token_merges(merges)
    w.add_bos_token_id(len(tokens))
    w.add_eos_token_id(len(tokens))
    if eos:
        w.add_add_eos_token(True)
    finish(w)


def write_odd(path: Path, tokens: list[str], merges: list[tuple[str, str]]) -> None:
    """Byte-level BPE with faults that llama.cpp puts up with: a third of the longer tokens and some
    of the bytes' are missing, merges are malformed or come twice, tokens have no text."""
    left = [t for i, t in enumerate(tokens) if i % 3 or (len(t) == 1 and i % 7)]
    lines = [" ".join(pair) for pair in merges]
    lines[5:5] = ["nospace", " leading", "trailing ", "", "a b c", "漢 字", lines[9], lines[3]]
    write_bpe(path, "llama-bpe", left, lines, True)


def write_spm(path: Path, stories: str, name: str, prefix: bool) -> None:
    """SentencePiece's BPE with byte fallback."""
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(stories.split("\n") + TEXTS), model_writer=model, model_type="bpe",
        vocab_size=900, byte_fallback=True, character_coverage=0.98, split_digits=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, pad_id=-1,
        allow_whitespace_only_pieces=True, user_defined_symbols=["<tool>", "<x>", "<x><x>", "\n\n\n"],
        control_symbols=["<|im_start|>", "<|im_end|>", "<|endoftext|>"], num_threads=1,
        minloglevel=2)
    sp = spm.SentencePieceProcessor(model_proto=model.getvalue())
    ids, user = range(sp.vocab_size()), ["<tool>", "<x>", "<x><x>", "\n\n\n"]
    w = start(path, name)
    w.add_tokenizer_model("llama")
    w.add_token_list([sp.id_to_piece(i).encode() for i in ids])
    w.add_token_scores([sp.get_score(i) for i in ids])
    w.add_token_types([gguf.TokenType.UNKNOWN if sp.is_unknown(i)
                       else gguf.TokenType.CONTROL if sp.is_control(i)
                       else gguf.TokenType.BYTE if sp.is_byte(i)
                       else gguf.TokenType.USER_DEFINED if sp.id_to_piece(i) in user
                       else gguf.TokenType.NORMAL for i in ids])
    w.add_bool("tokenizer.ggml.remove_extra_whitespaces", True)
    if not prefix:
        w.add_add_space_prefix(False)
    finish(w)


@ll.llama_log_callback
def _quiet(_level, _text, _data):
    pass


class Vocabulary:
    """llama.cpp's reading of a file."""

    def __init__(self, path: Path):
        ll.llama_log_set(_quiet, ctypes.c_void_p(0))
        params = ll.llama_model_default_params()
        params.vocab_only = True
        self.model = ll.llama_model_load_from_file(os.fsencode(path), params)
        if not self.model:
            raise SystemExit(f"llama.cpp does not load {path}")
        self.vocab = ll.llama_model_get_vocab(self.model)
        self.n = ll.llama_vocab_n_tokens(self.vocab)

    def encode(self, text: bytes, add_special: bool = False,
               parse_special: bool = False) -> list[int]:
        """The tokens of a text."""
        ids = (ll.llama_token * (2 * len(text) + 8))()
        n = ll.llama_tokenize(self.vocab, text, len(text), ids, len(ids), add_special,
                              parse_special)
        return list(ids[:n])

    def pieces(self) -> list[str]:
        """The bytes of each token, in hexadecimal."""
        out = ctypes.create_string_buffer(512)
        lens = (ll.llama_token_to_piece(self.vocab, i, out, len(out), 0, False)
                for i in range(self.n))
        return [out.raw[:n].hex() for n in lens]

    def golden(self) -> dict:
        """All that a test compares of one vocabulary."""
        special = [[text, add, self.encode(text.encode(), add, True)]
                   for text in SPECIAL_TEXTS for add in (False, True)]
        return {"strings": [self.encode(text) for text in strings()], "special": special,
                "pieces": self.pieces(),
                "ends": [i for i in range(self.n) if ll.llama_vocab_is_eog(self.vocab, i)]}


def main() -> None:
    """Writes vocabularies and goldens."""
    here = Path(__file__).parent
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    stories = (here / "goldens" / "perplexity.txt").read_text(encoding="utf-8")
    out = here / "vocabularies"
    out.mkdir(exist_ok=True)
    tokens, merges = train_bpe(stories, 2600)
    lines = [" ".join(pair) for pair in merges]

    # Each text of the corpus with the ways in which it is encoded, and which of them is whose.
    encodings: list[list[list[int]]] = [[] for _ in strings()]
    whose: dict[str, list[int]] = {}
    names: dict[str, list[int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for first, others in PRES.items():
            for name in (first, *others):
                path = Path(folder) / f"{name}.gguf"
                write_bpe(path, name, tokens, lines, False)
                vocab = Vocabulary(path)
                names[name] = vocab.encode("It's ABC'S  1234567 é\n /x".encode(), True)
                if name != first:
                    continue
                whose[name] = []
                for text, ways in zip(strings(), encodings):
                    way = vocab.encode(text)
                    if way not in ways:
                        ways.append(way)
                    whose[name].append(ways.index(way))

    write_bpe(out / "bpe.gguf", "gpt-2", tokens, lines, False)
    write_odd(out / "odd.gguf", tokens, merges)
    write_spm(out / "spm.gguf", stories, "SentencePiece", True)
    write_spm(out / "spm-bare.gguf", stories, "like phi-3, which strips", False)
    made = {
        "made_by": "test_models/vocabularies.py",
        "llama_cpp_python": importlib.metadata.version("llama-cpp-python"),
        "tokenizers": importlib.metadata.version("tokenizers"),
        "sentencepiece": importlib.metadata.version("sentencepiece"),
        "strings_hex": [text.hex() for text in strings()],
        "encodings": encodings, "pre_tokenizers": whose, "names": names,
        "vocabularies": {path.stem: Vocabulary(path).golden()
                         for path in sorted(out.glob("*.gguf"))},
    }
    text = json.dumps(made, ensure_ascii=False, indent=1)
    text = re.sub(r"\[[\s\d,]*\]", lambda m: re.sub(r"\s+", "", m[0]), text)
    (here / "goldens" / "vocabularies.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
