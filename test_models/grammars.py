"""Writes what llama-server generates under grammars and JSON schemas: goldens/grammars.json.

    grammars.py COMMAND...     the command that starts llama-server, such as `llama-server`

Servers that round differently are asked by `/completion`, greedily. Where their answers differ,
another prompt is taken: the best tokens are too close there. The grammars that the server makes of
schemas are not kept: only the tokens count.
"""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).parent
MODELS = ["tiny", "tiny-gpt2"]
# The flags of each server, by its port. The answers of the first one are kept.
SERVERS = {
    18087: ["-fa", "off"],
    18088: ["-fa", "on"],
    18089: ["-fa", "on", "-ctk", "q8_0", "-ctv", "q8_0"],
    18090: ["-fa", "off", "-ctk", "f32", "-ctv", "f32"],
}
N = 40
PROMPTS = [
    "Once upon a time", "Question: What do bees make?\nAnswer:", "Lily said", "The capital of France is",
    "One day, Tom saw", "Hello!", "The cat and the dog", "She had a red", "Then the sun", "In the garden there was",
]

GRAMMARS = {
    "literal": r'root ::= " there was a little girl."',
    "choice": r'root ::= " yes" | " no" | " maybe"',
    "digits": r"root ::= [0-9]+",
    "list": r'root ::= "[" [0-9]+ ("," [0-9]+)* "]"',
    "bounded": r'root ::= ([a-z]{3,5} " "){2,4} "."',
    "exactly": r'root ::= "a"{3} [b-d]{2} "!"',
    "at-most": r"root ::= [a-z]{0,7}",
    "at-least": r'root ::= [a-z]{5,} "."',
    "nested": r'root ::= ("(" ([a-z]+ | root) ")")+',
    "recursion": r'root ::= "x" | "(" root "+" root ")"',
    "right": 'root ::= (item root)?\nitem ::= [a-z]+ ", "',
    "negated": r'root ::= [^aeiou]+ "."',
    "any": r'root ::= "{" .{4,12} "}"',
    "escapes": r'root ::= "\x41\u0042\U00000043\t\\\"\n" [\]\[\-\\]+',
    "dash": r'root ::= [a\-z0-9-]{4} " "',
    "unicode": r'root ::= "é" [à-ü]{3} "€" [一-龥]{2} "😀"',
    "not-ascii": r"root ::= [^\x00-\x7f]{2}",
    "not-some": r'root ::= [^é]{6} "."',
    "comments": '# a comment\nroot ::= one two # of a line\n\none ::= "1" # "2"\ntwo ::= (\n  # within\n  "2" |\n  "3"\n)',
    "optional": r'root ::= " the"? " big"? " red"? " " ("cat" | "dog") "s"?',
    "empty": r'root ::= "" | "zzzzzz"',
    "ambiguous": r'root ::= ("a" | "aa" | [a-c])+ "!"',
    "stars": r'root ::= ([a-c]* " ")* "."',
    "arithmetic": 'root ::= (expression "=" number "\\n")+\nexpression ::= term ([-+*/] term)*\nterm ::= number | "(" expression ")"\nnumber ::= [0-9]{1,3}',
    "sentence": 'root ::= " " noun " " verb " " noun "."\nnoun ::= "Tom" | "Lily" | "the cat"\nverb ::= "sees" | "likes" | "follows"',
    "json": 'root ::= object\nvalue ::= object | array | string | number | "true" | "false" | "null"\nobject ::= "{" ws (string ":" ws value ("," ws string ":" ws value)*)? "}"\narray ::= "[" ws (value ("," ws value)*)? "]"\nstring ::= "\\"" [^"\\\\\\x00-\\x1F]* "\\"" ws\nnumber ::= "-"? [0-9]+ ws\nws ::= [ \\t\\n]{0,2}',
    "redefined": 'root ::= "a"\nroot ::= "b" tail\ntail ::= "c"',
    "token": "root ::= <[300]> <[301]> [a-z]+ <[302]>",
    "other-token": 'root ::= !<[300]> !<[13]>{3} "."',
    "time": 'root ::= " " [0-2] [0-9] ":" [0-5] [0-9] (" AM" | " PM")?',
}

SCHEMAS = {
    "string": {"type": "string"},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "null": {"type": "null"},
    "any": {"type": "object", "properties": {"a": {}}, "required": ["a"]},
    "empty": {},
    "object": {"type": "object"},
    "array": {"type": "array"},
    "person": {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["name", "age"],
    },
    "optional": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "boolean"}, "c": {"type": "null"}},
        "required": ["b"],
    },
    "all-optional": {
        "type": "object",
        "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}, "z": {"type": "integer"}},
    },
    "additional": {
        "type": "object",
        "properties": {"id": {"type": "integer"}},
        "additionalProperties": {"type": "integer"},
        "required": ["id"],
    },
    "open": {"type": "object", "properties": {"ab": {"type": "null"}, "ac": {"type": "null"}}, "additionalProperties": True},
    "enum": {"enum": ["red", "green", 3, None, {"a": [1, True]}]},
    "const": {"const": "fi\u00e9 \"x\"\n"},
    "any-of": {"anyOf": [{"type": "integer", "minimum": 10, "maximum": 20}, {"type": "null"}]},
    "one-of": {"oneOf": [{"type": "boolean"}, {"type": "string", "maxLength": 4}]},
    "types": {"type": ["null", "integer"]},
    "all-of": {
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "integer"}}},
            {"type": "object", "properties": {"b": {"type": "boolean"}}},
        ]
    },
    "items": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 4},
    "at-least-items": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 3},
    "tuple": {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "boolean"}, {"type": "string"}]},
    "lengths": {"type": "string", "minLength": 3, "maxLength": 6},
    "bounds": {"type": "object", "properties": {"n": {"type": "integer", "minimum": -7, "maximum": 1234}}, "required": ["n"]},
    "lower-bound": {"type": "integer", "minimum": 42},
    "upper-bound": {"type": "integer", "exclusiveMaximum": 100},
    "formats": {
        "type": "object",
        "properties": {
            "day": {"type": "string", "format": "date"},
            "time": {"type": "string", "format": "time"},
            "id": {"type": "string", "format": "uuid"},
        },
        "required": ["day", "time", "id"],
    },
    "pattern": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}(a|bc)?$"},
    "references": {
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "value": {"type": "integer"},
                    "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                },
                "required": ["value", "next"],
            }
        },
        "$ref": "#/$defs/node",
    },
    "nested": {
        "type": "object",
        "properties": {
            "title": {"type": "string", "maxLength": 12},
            "steps": {
                "type": "array",
                "maxItems": 2,
                "items": {
                    "type": "object",
                    "properties": {"n": {"type": "integer"}, "done": {"type": "boolean"}},
                    "required": ["n", "done"],
                },
            },
        },
        "required": ["title", "steps"],
        "additionalProperties": False,
    },
}


def get(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as response:
        return json.load(response)


def ask(port, body):
    request = urllib.request.Request(f"http://127.0.0.1:{port}/completion", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=300) as response:
        return json.load(response)


def run(number, kind, name, of):
    """An answer, with its prompt and its grammar or schema."""
    for i in range(len(PROMPTS)):
        prompt = PROMPTS[(number + i) % len(PROMPTS)]
        body = {"prompt": prompt, "n_predict": N, "temperature": 0, "return_tokens": True, kind: of}
        answers = (ask(port, body) for port in SERVERS)
        first = next(answers)
        if all(other["tokens"] == first["tokens"] for other in answers):
            return {
                "name": name, "prompt": prompt, kind: of, "tokens": first["tokens"], "text": first["content"],
                "stop": first["stop_type"],
            }
    sys.exit(f"{name}: no prompt whose answer does not depend on the rounding")


def runs():
    """The answers of a model."""
    kinds = [("grammar", GRAMMARS), ("json_schema", SCHEMAS)]
    cases = [(kind, name, of) for kind, all_of in kinds for name, of in all_of.items()]
    for number, case in enumerate(cases):
        answer = run(number, *case)
        print(answer["name"], repr(answer["text"]), answer["stop"], file=sys.stderr, flush=True)
        yield answer


def start(command, model, port, flags):
    arguments = ["-m", HERE / f"{model}.gguf", "--port", str(port), "-np", "1", "-t", "1", "-c", "512", "--no-webui"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([*command, *arguments, *flags], **quiet)


def wait_for(port):
    for _ in range(240):
        try:
            return get(port, "/health")
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.5)
    sys.exit("the server does not start")


def main(command):
    models = {}
    for model in MODELS:
        servers = [start(command, model, *of) for of in SERVERS.items()]
        try:
            for port in SERVERS:
                wait_for(port)
            build = get(next(iter(SERVERS)), "/props")["build_info"]
            models[model] = list(runs())
        finally:
            for server in servers:
                server.terminate()
                server.wait()
    # Each answer is a line.
    lines = [
        f'  "{model}": [\n' + ",\n".join("   " + json.dumps(run, ensure_ascii=False) for run in answers) + "\n  ]"
        for model, answers in models.items()
    ]
    head = f' "made_by": "test_models/grammars.py",\n "llama_server": "{build}",\n "n_predict": {N},\n'
    text = "{\n" + head + ' "models": {\n' + ",\n".join(lines) + "\n }\n}\n"
    (HERE / "goldens/grammars.json").write_text(text)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1:])
