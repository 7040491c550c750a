#!/usr/bin/env python3
"""Holds conversations with a server by the `ollama` Python package.

    ci/ollama_client.py BASE_URL     such as http://127.0.0.1:8080

The disk of the server has two models: the loaded one, whose chat template has a place for tools, and one without such
a template. The package is in the virtual environment that `ci/environment.py clients` makes. API_KEY in the
environment is the server's key. The end is the line `ollama: N passed, N failed`.
"""

import asyncio
import json
import datetime
import importlib.metadata

from client_tests import KEY, Failed, base_url, expect, run

BASE = base_url(__doc__)

import httpx  # noqa: E402
import ollama  # noqa: E402

HEADERS = {"Authorization": f"Bearer {KEY}"}
STORY = [{"role": "system", "content": "You tell stories."}, {"role": "user", "content": "Tell me a story."}]
# The model may end its answer at once; the server's own option `ignore_eos` keeps it talking.
GREEDY = {"temperature": 0, "num_predict": 12, "ignore_eos": True}
TASKS = 4


def fails(ask, status, word):
    try:
        ask()
    except ollama.ResponseError as error:
        expect(error.status_code == status, f"status {error.status_code}, not {status}: {error.error}")
        expect(isinstance(error.error, str) and word in error.error, f"{word!r} is not in {error.error!r}")
    else:
        raise Failed(f"no error {status}")


def is_found(client):
    answer = httpx.get(BASE)
    expect(answer.text == "Ollama is running", f"{answer.text[:60]!r}")
    expect(httpx.head(BASE).status_code == 200, "HEAD /")
    page = httpx.get(BASE, headers={"Accept": "text/html"})
    expect("<html" in page.text.lower() or "<!doctype" in page.text.lower(), f"{page.text[:60]!r}")
    version = httpx.get(f"{BASE}/api/version", headers=HEADERS).json()["version"]
    expect(len([int(part) for part in version.split(".")]) == 3, f"{version}")


def lists_models(client):
    # The digest of a model that is not loaded is not known.
    [model] = [model for model in client.list().models if model.digest]
    expect(model.model.endswith(":latest") and model.size > 100000 and len(model.digest) == 64, f"{model}")
    now = datetime.datetime.now(datetime.timezone.utc)
    expect(abs((now - model.modified_at).total_seconds()) < 3600, f"{model.modified_at}, now {now}")
    expect(model.details.format == "gguf" and model.details.parameter_size, f"{model}")
    return model.model


def lists_loaded_models(client, model):
    [loaded] = client.ps().models
    expect(loaded.model == model and loaded.context_length > 0 and loaded.size_vram == 0, f"{loaded}")
    expect(loaded.expires_at.year > 2300, f"{loaded}")


def shows(client, model):
    for name in (model, model.removesuffix(":latest")):
        shown = client.show(name)
        family = shown.modelinfo["general.architecture"]
        expect(shown.details.family == family and shown.modelinfo[f"{family}.context_length"] > 0, f"{shown}")
        expect(shown.capabilities == ["completion", "tools"] and "temperature" in shown.parameters, f"{shown}")
        expect(shown.modelfile.startswith("FROM "), f"{shown}")


def chats(client, model):
    answer = client.chat(model, STORY, options=GREEDY)
    expect(answer.model == model and answer.message.role == "assistant" and answer.message.content, f"{answer}")
    expect(answer.done and answer.done_reason == "length" and answer.eval_count == 12, f"{answer}")
    expect(answer.prompt_eval_count > 4, f"{answer}")
    parts = answer.load_duration + answer.prompt_eval_duration + answer.eval_duration
    expect(answer.total_duration >= parts > 0, f"{answer}")
    created = datetime.datetime.fromisoformat(answer.created_at.replace("Z", "+00:00"))
    now = datetime.datetime.now(datetime.timezone.utc)
    expect(abs((now - created).total_seconds()) < 3600, f"{created}, now {now}")
    return answer.message.content


def streams(client, model):
    whole = chats(client, model)
    *chunks, last = client.chat(model, STORY, options=GREEDY, stream=True, think=False, keep_alive="5m")
    parts = [chunk.message.content for chunk in chunks]
    expect(len(parts) > 6 and "".join(parts) == whole, f"streamed {parts}, whole {whole!r}")
    expect(not any(chunk.done for chunk in chunks), f"{chunks}")
    expect(last.done and last.message.content == "" and last.eval_count == 12, f"{last}")


def generates(client, model):
    options = ollama.Options(temperature=0, num_predict=7, num_ctx=131072, seed=1, stop=["no such text"])
    answer = client.generate(model, "Once upon a time", options=options, raw=True)
    expect(answer.response and answer.done_reason in ("length", "stop"), f"{answer}")
    stream = client.generate(model, "Once upon a time", options=options, raw=True, stream=True)
    text = "".join(chunk.response for chunk in stream)
    expect(text == answer.response, f"streamed {text!r}, whole {answer}")
    answer = client.generate(model, "Tell me a story.", system="You tell stories.", options=GREEDY, keep_alive=300)
    expect(answer.response == chats(client, model), f"{answer}")


def stops_at_words(client, model):
    whole = chats(client, model)
    word = whole.split()[2]
    answer = client.chat(model, STORY, options=GREEDY | {"stop": [word]})
    expect(answer.done_reason == "stop", f"{answer}")
    expect(answer.message.content == whole[: whole.index(word)], f"{answer} up to {word!r} of {whole!r}")


def gives_logprobs(client, model):
    answer = client.chat(model, STORY, options=GREEDY, logprobs=True, top_logprobs=3)
    tokens = answer.logprobs
    expect(len(tokens) == 12 and "".join(token.token for token in tokens) == answer.message.content, f"{answer}")
    for token in tokens:
        best = token.top_logprobs
        expect(len(best) == 3 and best[0].logprob >= best[1].logprob >= best[2].logprob, f"{token}")
        expect(best[0].token == token.token and best[0].logprob == token.logprob <= 0, f"{token}")


def answers_in_a_format(client, model):
    schema = {
        "type": "object",
        "properties": {"color": {"enum": ["red", "green"]}, "lives": {"type": "integer", "minimum": 1, "maximum": 9}},
        "required": ["color", "lives"],
    }
    options = {"num_predict": 120, "temperature": 0.7, "seed": 5}
    whole = client.chat(model, STORY, format=schema, options=options).message.content
    cat = json.loads(whole)
    expect(set(cat) == {"color", "lives"} and cat["color"] in ("red", "green") and 1 <= cat["lives"] <= 9, whole)
    parts = [part.response for part in client.generate(model, "A cat", format="json", options=options, stream=True)]
    expect("".join(parts).startswith("{"), f"{parts}")
    fails(lambda: client.chat(model, STORY, format={"type": "cat"}), 400, "format.type")


def tokens(text):
    return httpx.post(f"{BASE}/tokenize", headers=HEADERS, json={"content": text}).json()["tokens"]


def calling():
    """Options under which the model begins a call.

    ollama's API has no word for that. So each token of the mark is likelier than the next one, until it was written.
    """
    mark, [end] = tokens("<tool_call>"), tokens("</s>")
    expect(len(set(mark)) == len(mark) < 10, f"{mark}")
    biases = [[token, 900 - 100 * i] for i, token in enumerate(mark)]
    once = {"presence_penalty": 1000, "repeat_last_n": len(mark)}
    return {"temperature": 0, "num_predict": 150, "logit_bias": [*biases, [end, 50]], **once}


def add_pet(is_cat: bool):
    """
    Add a pet.

    Args:
        is_cat: Whether it is a cat
    """


# The package leaves out most keywords of a property, such as `minimum`.
PET = {
    "type": "object",
    "properties": {"kind": {"enum": ["cat", "dog"]}, "lives": {"enum": [7, 9]}},
    "required": ["kind", "lives"],
}
PET_TOOL = {"type": "function", "function": {"name": "add_pet", "description": "Add a pet.", "parameters": PET}}


def calls_tools(client, model):
    options = calling()
    answer = client.chat(model, STORY, tools=[PET_TOOL], options=options)
    [call] = answer.message.tool_calls
    arguments = call.function.arguments
    expect(answer.done_reason == "stop" and answer.message.content == "", f"{answer}")
    expect(call.function.name == "add_pet" and set(arguments) == {"kind", "lives"}, f"{call}")
    expect(arguments["kind"] in ("cat", "dog") and arguments["lives"] in (7, 9), f"{call}")
    *chunks, last = client.chat(model, STORY, tools=[PET_TOOL], options=options, stream=True)
    calls = [call for chunk in chunks for call in chunk.message.tool_calls or []]
    expect(calls == [call] and not any(chunk.message.content for chunk in chunks), f"{chunks}, whole {call}")
    expect(last.done and last.done_reason == "stop" and not last.message.tool_calls, f"{last}")
    # The conversation goes on with the result.
    for result in ({"content": "The pet is there.", "tool_name": "add_pet"}, {"content": ""}):
        messages = [*STORY, answer.message, {"role": "tool", **result}]
        after = client.chat(model, messages, tools=[PET_TOOL], options=GREEDY)
        expect(after.message.content and after.prompt_eval_count > answer.prompt_eval_count, f"{after}")
    # Python functions are tools too.
    [call] = client.chat(model, STORY, tools=[add_pet], options=options).message.tool_calls
    expect(call.function.name == "add_pet" and isinstance(call.function.arguments["is_cat"], bool), f"{call}")


def refuses_tools(client, model):
    fails(lambda: client.chat(model, STORY, tools=[PET_TOOL], format="json"), 400, "tools")
    [other] = [other.model for other in client.list().models if other.model != model]
    expect(client.show(other).capabilities == ["completion"], "without tools")
    fails(lambda: client.chat(other, STORY, tools=[PET_TOOL]), 400, "tools need a chat template")
    fails(lambda: list(client.chat(other, STORY, tools=[PET_TOOL], stream=True)), 400, "tools need a chat template")
    expect(client.generate(other, keep_alive=0).done_reason == "unload", "generate")


def unloads(client, model):
    expect(client.generate(model, keep_alive=0).done_reason == "unload", "generate")
    expect(client.ps().models == [], "it is unloaded")
    expect(client.generate(model).done_reason == "load" and client.ps().models, "it is loaded again")


def loads(client, model):
    expect(client.generate(model).done_reason == "load", "generate")
    expect(client.chat(model, keep_alive=-1).done_reason == "load", "chat")
    expect(client.pull(model).status == "success", "pull")
    expect([part.status for part in client.pull(model, stream=True)][-1] == "success", "pull, streamed")


def gives_errors(client, model):
    fails(lambda: client.chat("none", STORY), 404, "model 'none' not found")
    fails(lambda: list(client.chat("none", STORY, stream=True)), 404, "model 'none' not found")
    fails(lambda: client.show("none"), 404, "not found")
    fails(lambda: client.pull("none"), 404, "pulls none")
    fails(lambda: client.generate(model, "word " * 20000), 400, "context size")
    fails(lambda: client.generate(model, "a", suffix="b"), 400, "suffix")
    fails(lambda: client.chat(model, STORY, think=True), 400, "does not support thinking")
    fails(lambda: client.embed(model, "a"), 501, "embeddings")
    fails(lambda: client.embeddings(model, "a"), 501, "embeddings")
    fails(lambda: client.push(model), 501, "registry")
    fails(lambda: client.create("new", from_=model), 501, "disk")
    fails(lambda: client.copy(model, "new"), 501, "disk")
    fails(lambda: client.delete(model), 501, "disk")
    fails(lambda: client._request_raw("GET", "/api/nothing"), 404, "Not Found")
    fails(lambda: client._request_raw("GET", "/api/chat"), 405, "POST")


def refuses_a_wrong_key(model):
    wrong = ollama.Client(BASE, headers={"Authorization": "Bearer wrong"})
    fails(wrong.list, 401, "Key")
    fails(lambda: wrong.chat(model, STORY), 401, "Key")


def answers_many_at_once(client, model):
    """Tasks get the answers that each gets alone."""

    def request(i):
        options = {"num_predict": 3 + i, "temperature": 0.9, "seed": i, "ignore_eos": True}
        return {"model": model, "messages": [{"role": "user", "content": f"Tell story {i}."}], "options": options}

    async def all_at_once():
        many = ollama.AsyncClient(BASE, headers=HEADERS)

        async def ask(i):
            stream = await many.chat(stream=True, **request(i))
            return "".join([chunk.message.content async for chunk in stream])

        return await asyncio.gather(*(ask(i) for i in range(TASKS)))

    alone = [client.chat(**request(i)).message.content for i in range(TASKS)]
    together = asyncio.run(all_at_once())
    expect(all(alone) and together == alone, f"{together}, alone {alone}")


def main():
    client = ollama.Client(BASE, headers=HEADERS)
    model = lists_models(client)
    tests = [
        lists_loaded_models, shows, chats, streams, generates, stops_at_words, gives_logprobs, answers_in_a_format,
        calls_tools, refuses_tools, loads, unloads, gives_errors,
        answers_many_at_once,
    ]
    calls = [(is_found, client), (lists_models, client), *((test, client, model) for test in tests)]
    if KEY != "none":
        calls.append((refuses_a_wrong_key, model))
    run(f"ollama {importlib.metadata.version('ollama')}", calls)


if __name__ == "__main__":
    main()
