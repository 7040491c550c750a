"""Writes what chat templates give for conversations with tools: goldens/tools.json.

The templates in tools/ are written for this project. They give what the templates of well-known
families give, by other programs and with other sentences.
"""

import importlib.metadata
import json
from pathlib import Path

import jinja2
import jinja2.ext
import jinja2.sandbox

# What stands for the date.
DATE = "02 Jan 2006"

# What each template's model calls its first and its last token.
TOKENS = {"llama3.1": ("<|begin_of_text|>", "<|eot_id|>"), "qwen": ("", "<|im_end|>"),
          "hermes": ("<|begin_of_text|>", "<|im_end|>")}

# Texts of JSON as clients send them: with other blanks, escapes and orders than Python's.
WEATHER = r"""{"type":"function","function":{"name":"get_weather","description":"The weather \"now\",\nin <any> place: \u00e9\ud83d\ude42","parameters":{"type":"object",
 "properties":{"place":{"type":"string","description":" A place "},"days":{"type":"integer","description":"Days & nights","minimum":1,"maximum":1.5}},"required":["place"],"additionalProperties":false}}}"""
TIME = """{ "function": {"parameters": {"properties": {}, "type": "object"}, "name": "time",
 "description": "It's time", "strict": true}, "type": "function" }"""
LISTS = """{"type":"function","function":{"name":"sum-up","description":"","parameters":
 {"type":"object","properties":{"list":{"type":"array","items":{"type":"number"},"description":"L"},"map":{"type":"object","additionalProperties":{"type":"boolean"},"description":"M"},"any":{"type":["string","integer"],"description":"A"}}},"return":{"type":"number","description":"The sum"}}}"""

SYSTEM = {"role": "system", "content": "Answer in one word."}
ASK = {"role": "user", "content": "How is the weather in Paris, and what time is it?"}
AGAIN = {"role": "user", "content": "And tomorrow?"}
ANSWER = {"role": "assistant", "content": "Sunny, <noon>."}


def call(number: int, name: str, arguments: str) -> dict:
    """A call of the assistant, as OpenAI's clients send it back."""
    return {"id": f"callid{number:03}", "type": "function",
            "function": {"name": name, "arguments": arguments}}


def calls(*made: dict, content: str | None = None) -> dict:
    """A message of the assistant with calls."""
    return {"role": "assistant", "content": content, "tool_calls": list(made)}


def result(number: int, content: str) -> dict:
    """The result of a call."""
    return {"role": "tool", "tool_call_id": f"callid{number:03}", "content": content}


PARIS = call(1, "get_weather", r'{"place":"Paris \u00e9\n\"","days":2}')
NOW = call(2, "time", "{}")
ONE = [ASK, calls(PARIS), result(1, '{"sky": "blue"}')]

CONVERSATIONS = [
    [ASK],
    [ASK, ANSWER, AGAIN],
    ONE,
    [*ONE, ANSWER, AGAIN],
    [ASK, calls(PARIS, NOW), result(1, "blue \"sky\"\n"), result(2, "12")],
    [ASK, calls(PARIS, NOW, content="Let me look."), result(1, "blue"), result(2, "12"), ANSWER,
     AGAIN, calls(call(3, "get_weather", '{ "place" : "Rome", "days": [] }')), result(3, "grey")],
    [*ONE, calls(NOW), result(2, "12"), ANSWER],
]
TOOLS = [[], [WEATHER], [WEATHER, TIME, LISTS]]


def refuse(message: str):
    """What templates call when they do not take a conversation."""
    raise jinja2.TemplateError(message)


def render(text: str, messages: list[dict], tools: list[str], bos: str, eos: str) -> str | None:
    """What Jinja makes of a template; nothing if that refuses the messages."""
    world = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols])
    world.globals.update(raise_exception=refuse)
    # As in transformers.
    world.filters["tojson"] = lambda value, indent=None: json.dumps(
        value, ensure_ascii=False, indent=indent)
    # Servers give templates the arguments as objects, and no text as an empty one.
    messages = json.loads(json.dumps(messages))
    for message in messages:
        message["content"] = message["content"] or ""
        for made in message.get("tool_calls", []):
            made["function"]["arguments"] = json.loads(made["function"]["arguments"])
    try:
        return world.from_string(text).render(
            messages=messages, tools=[json.loads(tool) for tool in tools] or None,
            add_generation_prompt=messages[-1]["role"] != "assistant", bos_token=bos,
            eos_token=eos, date_string=DATE)
    except (jinja2.TemplateError, TypeError):
        return None


def main() -> None:
    """Writes the goldens."""
    here = Path(__file__).parent
    cases = [{"system": system, "messages": [*([SYSTEM] if system else []), *conversation],
              "tools": tools}
             for system in (False, True) for conversation in CONVERSATIONS for tools in TOOLS]
    templates = {}
    for file in sorted((here / "tools").glob("*.jinja")):
        bos, eos = TOKENS.get(file.stem, ("<s>", "</s>"))
        text = file.read_text(encoding="utf-8")
        templates[file.stem] = {"bos": bos, "eos": eos, "texts": [
            render(text, case["messages"], case["tools"], bos, eos) for case in cases]}
    made = {"made_by": "test_models/tools.py", "jinja2": importlib.metadata.version("jinja2"),
            "cases": cases, "templates": templates}
    path = here / "goldens" / "tools.json"
    path.write_text(json.dumps(made, ensure_ascii=False, separators=(",", ":")) + "\n",
                    encoding="utf-8")


if __name__ == "__main__":
    main()
