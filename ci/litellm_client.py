#!/usr/bin/env python3
"""Holds conversations with a server by litellm, by OpenAI's protocol and by ollama's.

    ci/litellm_client.py BASE_URL     such as http://127.0.0.1:8080

The package is in the virtual environment that `ci/environment.py litellm` makes. API_KEY in the environment is the
server's key. The end is the line `litellm: N passed, N failed`.
"""

import importlib.metadata
import os

from client_tests import KEY, Failed, base_url, expect, run

BASE = base_url(__doc__)
# Otherwise the package fetches its list of prices.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
# What it asks a server of ollama's about a model has no argument for the address.
os.environ["OLLAMA_API_BASE"] = BASE

import httpx  # noqa: E402
import litellm  # noqa: E402

STORY = [{"role": "system", "content": "You tell stories."}, {"role": "user", "content": "Tell me a story."}]
# By protocol: the address, and what the protocol needs. Of ollama's, the first one makes a prompt of the messages.
PROTOCOLS = {
    "openai": {"api_base": f"{BASE}/v1", "extra_body": {"ignore_eos": True}},
    "ollama": {"api_base": BASE, "ignore_eos": True},
    "ollama_chat": {"api_base": BASE, "ignore_eos": True},
}


def ask(protocol, model, **fields):
    fields = PROTOCOLS[protocol] | {"messages": STORY, "max_tokens": 12, "temperature": 0, "api_key": KEY} | fields
    return litellm.completion(model=f"{protocol}/{model}", num_retries=0, timeout=120, **fields)


def chats(protocol, model):
    answer = ask(protocol, model)
    choice = answer.choices[0]
    expect(choice.message.role == "assistant" and choice.message.content, f"{answer}")
    # By ollama's protocol, the package gives "stop" for each reason of an answer as a whole.
    expect(choice.finish_reason == ("length" if protocol == "openai" else "stop"), f"{answer}")
    expect(answer.usage.completion_tokens == 12 and answer.usage.prompt_tokens > 4, f"{answer}")
    return choice.message.content


def streams(protocol, model):
    whole = chats(protocol, model)
    chunks = list(ask(protocol, model, stream=True))
    parts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    expect(len(parts) > 6 and "".join(parts) == whole, f"streamed {parts}, whole {whole!r}")


def stops_at_words(protocol, model):
    whole = chats(protocol, model)
    word = whole.split()[2]
    answer = ask(protocol, model, stop=[word])
    expect(answer.choices[0].finish_reason == "stop", f"{answer}")
    expect(answer.choices[0].message.content.strip() == whole[: whole.index(word)].strip(), f"{answer} of {whole!r}")


def passes_errors_on(protocol, model):
    try:
        ask(protocol, model, messages=[{"role": "user", "content": "word " * 20000}])
    except Exception as error:  # noqa: BLE001 (the class depends on the protocol)
        expect("context size" in str(error), f"{error}")
    else:
        raise Failed("a prompt that does not fit is answered")


def agrees_with_itself(model):
    answers = [chats(protocol, model) for protocol in ("openai", "ollama_chat")]
    expect(answers[0] == answers[1], f"{answers}")


def knows_the_model(model):
    info = litellm.get_model_info(f"ollama/{model}", api_base=BASE)
    expect(info["max_tokens"] and info["max_tokens"] > 0, f"{info}")


def main():
    headers = {"Authorization": f"Bearer {KEY}"}
    model = httpx.get(f"{BASE}/v1/models", headers=headers).json()["data"][0]["id"]
    tests = [chats, streams, stops_at_words, passes_errors_on]
    calls = [(test, protocol, model) for protocol in PROTOCOLS for test in tests]
    calls.append((agrees_with_itself, model))
    if KEY == "none":
        # The package asks for the model without a key.
        calls.append((knows_the_model, model))
    run(f"litellm {importlib.metadata.version('litellm')}", calls)


if __name__ == "__main__":
    main()
