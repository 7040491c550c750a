"""Writes what chat templates give: goldens/chat.json, and a model to chat with: chat/model.gguf.

The templates in chat/ are written for this project. They give what the templates of well-known
models give, by other programs, which use what those use of Jinja.
"""

import argparse
import ctypes
import hashlib
import importlib.metadata
import json
import tempfile
from pathlib import Path

import gguf
import jinja2
import jinja2.ext
import jinja2.sandbox
import llama_cpp as ll
import numpy as np

import architectures
from goldens import compact
from reference import SETTINGS, Reference, quantise

SYSTEM = {"role": "system", "content": "Answer in one word."}
TURNS = [("What is the capital of France?", "It is Paris."), ("And of Italy?", "Rome, of course!"),
         ("1 + 1 = 3; is it?", "")]
# What stands for the date.
DATE = "02 Jan 2006"

# What each template's model calls its first and its last token, and its tokens for begin and end.
TOKENS = {"chatml": ("<s>", "<|im_end|>"), "chatml-no-prompt": ("<s>", "<|im_end|>"),
          "deepseek-r1": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
          "gemma": ("<bos>", "<eos>"), "gemma3": ("<bos>", "<eos>"),
          "llama3": ("<|begin_of_text|>", "<|eot_id|>"),
          "llama3.1": ("<|begin_of_text|>", "<|eot_id|>"),
          "phi4": ("<|endoftext|>", "<|im_end|>"),
          "qwen2.5": ("", "<|im_end|>"), "qwen3": ("", "<|im_end|>"),
          "smollm2": ("<|im_start|>", "<|im_end|>")}

# llama.cpp's names for templates that the engine has.
BUILT_IN = ["chatml", "llama2", "llama2-sys", "llama2-sys-bos", "llama2-sys-strip", "llama3",
            "mistral-v1", "mistral-v3", "mistral-v3-tekken", "mistral-v7", "mistral-v7-tekken",
            "gemma", "phi3", "phi4", "falcon3", "zephyr", "monarch", "openchat", "vicuna",
            "vicuna-orca", "deepseek", "deepseek2", "deepseek3", "megrez", "smolvlm"]

# The chats with the model: what is said, and the most tokens of an answer.
CHATS = [("", ["abcab cab", "a", "Fox!"]), ("ab b", ["Hm? abc", "c", "cab"])]
N_ANSWER = 13
MIN_GAP = 0.02


def conversations() -> list[list[dict]]:
    """One, two and three turns, each ending with a question, without and with a system message."""
    made = []
    for first in ([], [SYSTEM]):
        for n in range(1, len(TURNS) + 1):
            messages = list(first)
            for question, answer in TURNS[:n]:
                messages += [{"role": "user", "content": question},
                             {"role": "assistant", "content": answer}]
            made.append(messages[:-1])
    return made


def refuse(message: str):
    """What templates call when they do not take a conversation."""
    raise jinja2.TemplateError(message)


def render(text: str, messages: list[dict], bos: str, eos: str) -> str | None:
    """What Jinja makes of a template; nothing if that refuses the messages."""
    world = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols])
    world.globals.update(raise_exception=refuse, strftime_now=lambda _format: DATE)
    try:
        return world.from_string(text).render(messages=messages, add_generation_prompt=True,
                                              bos_token=bos, eos_token=eos, tools=None)
    except jinja2.TemplateError:
        return None


def built_in(template: str, messages: list[dict]) -> str | None:
    """What llama.cpp makes of a template, by its name or by what it recognises in its text."""
    chat = (ll.llama_chat_message * len(messages))()
    for entry, message in zip(chat, messages):
        entry.role, entry.content = message["role"].encode(), message["content"].encode()
    out = ctypes.create_string_buffer(4096)
    n = ll.llama_chat_apply_template(template.encode(), chat, len(chat), True, out, len(out))
    return out.raw[:n].decode() if n >= 0 else None


def encode(vocabulary: Reference, text: str) -> list[int]:
    """A text's tokens, begun as the vocabulary wants it unless the text brings that along."""
    tokens = vocabulary.tokenize(text, False, True)
    if vocabulary.add_bos and tokens[:1] != [vocabulary.bos]:
        return vocabulary.tokenize(text, True, True)
    return tokens


def write_model(path: Path, seed: int) -> None:
    """A model of random weights with a template."""
    architectures.VOCABULARY = architectures.VOCABULARY[:267] + [
        ("<|im_start|>", 0.0, 3), ("<|im_end|>", 0.0, 3)]
    m = architectures.Model(path, "llama", seed)
    m.file.add_chat_template((Path(__file__).parent / "chat" / "chatml.jinja").read_text())
    m.file.add_eos_token_id(len(architectures.VOCABULARY) - 1)
    m.rms()
    m.file.add_rope_dimension_count(m.head_size)
    m.embeddings(output=True)
    m.layers()
    m.close()


def talk(model: Reference, system: str, messages: list[str]) -> tuple[list[dict], float]:
    """A chat in which everything said stays in the cache, and the least lead of a best logit."""
    model.clear()
    turns, position, least = [], 0, np.inf
    for i, message in enumerate(messages):
        text = f"<|im_start|>user\n{message}<|im_end|>\n<|im_start|>assistant\n"
        if i > 0:
            text = f"<|im_end|>\n{text}"
        elif system:
            text = f"<|im_start|>system\n{system}<|im_end|>\n{text}"
        # What was generated last is not in the cache yet.
        prompt = model.tokenize(text, i == 0, True)
        if turns and turns[-1]["stop"] == "max_tokens":
            prompt.insert(0, turns[-1]["tokens"][-1])
        logits = model.decode(prompt, position)[0]
        position += len(prompt)
        tokens, stop = [], "max_tokens"
        while True:
            second, first = np.sort(logits)[-2:]
            least = min(least, float(first - second))
            token = int(logits.argmax())
            if ll.llama_vocab_is_eog(model.vocab, token):
                stop = "end_of_sequence"
                break
            tokens.append(token)
            if len(tokens) == N_ANSWER:
                break
            logits = model.decode([token], position)[0]
            position += 1
        turns.append({"message": message, "prompt_tokens": prompt, "tokens": tokens, "stop": stop})
    return turns, least


def find_model(n_seeds: int) -> tuple[int, bytes, list[dict], float]:
    """A model whose answers end in both ways, and do not hang on rounding."""
    with tempfile.TemporaryDirectory() as folder:
        source, file = Path(folder) / "f32.gguf", Path(folder) / "model.gguf"
        for seed in range(n_seeds):
            write_model(source, seed)
            quantise(source, file, ll.LLAMA_FTYPE_MOSTLY_F16)
            model = Reference(file)
            chats = [talk(model, *chat) for chat in CHATS]
            model.close()
            # An answer that the model ends is followed by another one.
            ends = {turn["stop"] for turns, _ in chats for turn in turns[:-1]}
            least = min(gap for _, gap in chats)
            is_long = all(turn["tokens"] for turns, _ in chats for turn in turns)
            if len(ends) == 2 and is_long and least >= MIN_GAP:
                chats = [{"system": system, "turns": turns}
                         for (system, _), (turns, _) in zip(CHATS, chats)]
                return seed, file.read_bytes(), chats, least
    raise SystemExit("no seed will do")


def main() -> None:
    """Writes the goldens and the model."""
    here = Path(__file__).parent
    arg = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arg.add_argument("--seeds", type=int, default=5000, help="seeds to try at most")
    args = arg.parse_args()

    vocabularies = {name: Reference(here / "vocabularies" / f"{name}.gguf", vocab_only=True)
                    for name in ("bpe", "spm")}

    def golden(texts: list[str | None]) -> dict:
        """Texts and their tokens."""
        tokens = {name: [text and encode(vocabulary, text) for text in texts]
                  for name, vocabulary in vocabularies.items()}
        return {"texts": texts, "tokens": tokens}

    templates = {}
    for file in sorted((here / "chat").glob("*.jinja")):
        bos, eos = TOKENS.get(file.stem, ("<s>", "</s>"))
        text = file.read_text(encoding="utf-8")
        templates[file.stem] = {
            "bos": bos, "eos": eos, "recognised": [built_in(text, c) for c in conversations()],
            **golden([render(text, c, bos, eos) for c in conversations()])}
    names = {name: golden([built_in(name, c) for c in conversations()]) for name in BUILT_IN}

    seed, data, chats, least = find_model(args.seeds)
    (here / "chat" / "model.gguf").write_bytes(data)
    made = {"made_by": "test_models/chat.py", "date": DATE,
            "llama_cpp_python": importlib.metadata.version("llama-cpp-python"),
            "jinja2": importlib.metadata.version("jinja2"),
            "conversations": conversations(), "templates": templates, "built_in": names,
            "model": {"sha256": hashlib.sha256(data).hexdigest(), "seed": seed,
                      "min_gap": round(least, 5), "n_answer": N_ANSWER,
                      "settings": SETTINGS | {"parse_special": True}, "chats": chats}}
    goldens = here / "goldens" / "chat.json"
    goldens.write_text(compact(json.dumps(made, ensure_ascii=False, indent=1)) + "\n",
                       encoding="utf-8")
    print(f"seed {seed}, {len(data)} bytes, least lead {least}")


if __name__ == "__main__":
    main()
