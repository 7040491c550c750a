#!/usr/bin/env python3
"""Holds conversations with a server by the `openai` Python package.

    ci/openai_client.py BASE_URL     such as http://127.0.0.1:8080

The package is in the virtual environment that `ci/environment.py clients` makes. API_KEY in the environment is the
server's key. The end is the line `openai: N passed, N failed`.
"""

import asyncio
import enum
import json
from typing import Literal

from client_tests import KEY, Failed, base_url, expect, run

BASE = base_url(__doc__) + "/v1"

import openai  # noqa: E402
import pydantic  # noqa: E402

TASKS = 16
# The package repeats a request whose connection breaks. Here a break is a failure.
OPTIONS = {"base_url": BASE, "max_retries": 0, "timeout": 120}
# Many connections at once are another matter. QEMU's user network listens with room for one connection, and a Linux
# that answers the others by SYN cookies resets those whose request comes in two parts. The guest sees none of that.
MANY_OPTIONS = OPTIONS | {"max_retries": 4}
STORY = [{"role": "system", "content": "You tell stories."}, {"role": "user", "content": "Tell me a story."}]
# The model may end its answer at once; llama-server's `ignore_eos` keeps it talking.
GREEDY = {"temperature": 0, "extra_body": {"ignore_eos": True}}


def lists_models(client):
    models = client.models.list().data
    expect(len(models) == 1, f"models: {models}")
    expect(models[0].object == "model" and models[0].id, f"{models[0]}")
    return models[0].id


def chats(client, model):
    answer = client.chat.completions.create(model=model, messages=STORY, max_tokens=12, **GREEDY)
    choice = answer.choices[0]
    expect(answer.object == "chat.completion" and answer.model == model, f"{answer}")
    expect(choice.message.role == "assistant" and choice.message.content, f"{choice}")
    expect(choice.finish_reason == "length", f"{choice}")
    usage = answer.usage
    expect(usage.completion_tokens == 12 and usage.prompt_tokens > 4, f"{usage}")
    expect(usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, f"{usage}")
    return choice.message.content


def streams(client, model):
    whole = chats(client, model)
    stream = client.chat.completions.create(
        model=model, messages=STORY, max_tokens=12, stream=True, stream_options={"include_usage": True}, **GREEDY
    )
    chunks = list(stream)
    expect(chunks[0].choices[0].delta.role == "assistant", f"{chunks[0]}")
    parts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    expect(len(parts) > 6, f"parts: {parts}")
    expect("".join(parts) == whole, f"streamed {parts}, whole {whole!r}")
    reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    expect(reasons[-1] == "length" and not any(reasons[:-1]), f"{reasons}")
    expect(not chunks[-1].choices and chunks[-1].usage.completion_tokens == 12, f"{chunks[-1]}")


def streams_without_usage(client, model):
    with client.chat.completions.create(model=model, messages=STORY, max_tokens=3, stream=True, **GREEDY) as stream:
        chunks = list(stream)
    expect(all(chunk.usage is None and chunk.choices for chunk in chunks), f"{chunks}")


def stops_at_words(client, model):
    whole = chats(client, model)
    word = whole.split()[2]
    answer = client.chat.completions.create(model=model, messages=STORY, max_tokens=12, stop=[word], **GREEDY)
    expect(answer.choices[0].finish_reason == "stop", f"{answer}")
    expect(answer.choices[0].message.content == whole[: whole.index(word)], f"{answer} up to {word!r} of {whole!r}")


def completes(client, model):
    answer = client.completions.create(model=model, prompt="Once upon a time", max_tokens=7, **GREEDY)
    expect(answer.object == "text_completion" and answer.usage.completion_tokens == 7, f"{answer}")
    expect(answer.choices[0].text and answer.choices[0].finish_reason == "length", f"{answer}")
    stream = client.completions.create(model=model, prompt="Once upon a time", max_tokens=7, stream=True, **GREEDY)
    text = "".join(chunk.choices[0].text for chunk in stream if chunk.choices)
    expect(text == answer.choices[0].text, f"streamed {text!r}, whole {answer}")


def gives_many_choices(client, model):
    answer = client.chat.completions.create(
        model=model, messages=STORY, max_tokens=6, n=3, temperature=1.5, seed=7, extra_body={"ignore_eos": True}
    )
    texts = [choice.message.content for choice in answer.choices]
    expect([choice.index for choice in answer.choices] == [0, 1, 2], f"{answer}")
    expect(len(set(texts)) > 1, f"the choices are all {texts[0]!r}")


def gives_logprobs(client, model):
    answer = client.chat.completions.create(
        model=model, messages=STORY, max_tokens=5, logprobs=True, top_logprobs=3, **GREEDY
    )
    tokens = answer.choices[0].logprobs.content
    expect(len(tokens) == 5, f"{tokens}")
    expect("".join(token.token for token in tokens) == answer.choices[0].message.content, f"{answer}")
    for token in tokens:
        best = token.top_logprobs
        expect(len(best) == 3 and best[0].logprob >= best[1].logprob >= best[2].logprob, f"{token}")
        # The greedy sampler takes the best one.
        expect(best[0].token == token.token and best[0].logprob == token.logprob <= 0, f"{token}")
    old = client.completions.create(model=model, prompt="Once upon a time", max_tokens=4, logprobs=2, **GREEDY)
    expect(old.choices[0].logprobs is not None, f"{old}")


class Color(enum.Enum):
    RED = "red"
    GREEN = "green"


class Cat(pydantic.BaseModel):
    name: str = pydantic.Field(max_length=8)
    color: Color
    lives: int = pydantic.Field(ge=1, le=9)
    is_hungry: bool
    friends: list["Cat"] = pydantic.Field(max_length=1)


# The model's blanks between the parts of an answer take tokens too.
PARSED = {"max_tokens": 240, "temperature": 0.7, "seed": 3}


def parses_a_pydantic_model(client, model):
    answer = client.chat.completions.parse(model=model, messages=STORY, response_format=Cat, **PARSED)
    cat = answer.choices[0].message.parsed
    expect(answer.choices[0].finish_reason == "stop" and isinstance(cat, Cat), f"{answer}")
    expect(1 <= cat.lives <= 9 and len(cat.name) <= 8 and len(cat.friends) <= 1, f"{cat}")
    with client.chat.completions.stream(model=model, messages=STORY, response_format=Cat, **PARSED) as stream:
        streamed = stream.get_final_completion()
    expect(streamed.choices[0].message.parsed == cat, f"streamed {streamed}, whole {cat}")


def answers_in_json(client, model):
    answer = client.chat.completions.create(
        model=model, messages=STORY, response_format={"type": "json_object"}, max_tokens=80, temperature=1.5, seed=2
    )
    choice = answer.choices[0]
    if choice.finish_reason == "stop":
        expect(isinstance(json.loads(choice.message.content), dict), f"{answer}")
    else:
        expect(choice.message.content.startswith("{"), f"{answer}")


def keeps_to_a_grammar(client, model):
    body = {"grammar": 'root ::= " yes" | " no"'}
    answer = client.chat.completions.create(model=model, messages=STORY, extra_body=body)
    expect(answer.choices[0].message.content in (" yes", " no"), f"{answer}")
    for wrong in [{"grammar": "root ::= ("}, {"json_schema": {"type": "cat"}}, body | {"json_schema": {}}]:
        try:
            client.chat.completions.create(model=model, messages=STORY, extra_body=wrong)
        except openai.BadRequestError:
            continue
        raise Failed(f"{wrong} is accepted")


class Pet(pydantic.BaseModel):
    kind: Literal["cat", "dog"]
    lives: int = pydantic.Field(ge=1, le=9)


def calls_tools(client, model):
    tools = [openai.pydantic_function_tool(Pet, name="add_pet")]
    forced = {"model": model, "messages": STORY, "tools": tools, "tool_choice": "required", **PARSED}
    answer = client.chat.completions.parse(**forced)
    choice = answer.choices[0]
    expect(choice.finish_reason == "tool_calls" and choice.message.content is None, f"{answer}")
    call = choice.message.tool_calls[0]
    expect(call.function.name == "add_pet" and isinstance(call.function.parsed_arguments, Pet), f"{call}")
    with client.chat.completions.stream(**forced) as stream:
        streamed = stream.get_final_completion().choices[0].message.tool_calls[0]
    expect(streamed.function.arguments == call.function.arguments, f"streamed {streamed}, whole {call}")
    # The conversation goes on with the result.
    called = {"name": call.function.name, "arguments": call.function.arguments}
    messages = [
        *STORY,
        {"role": "assistant", "tool_calls": [{"id": call.id, "type": "function", "function": called}]},
        {"role": "tool", "tool_call_id": call.id, "content": "The pet is there."},
    ]
    after = client.chat.completions.create(model=model, messages=messages, tools=tools, max_tokens=8, **GREEDY)
    expect(after.usage.prompt_tokens > answer.usage.prompt_tokens, f"{after}")
    named = {"type": "function", "function": {"name": "add_pet"}}
    one = client.chat.completions.create(**forced | {"tool_choice": named, "parallel_tool_calls": False})
    expect(len(one.choices[0].message.tool_calls) == 1, f"{one}")


def refuses_what_it_does_not_support(client, model):
    try:
        client.chat.completions.create(model=model, messages=STORY, max_tokens=1, modalities=["text", "audio"])
    except openai.BadRequestError as error:
        expect("modalities" in error.message, f"the error names no field: {error}")
    else:
        raise Failed("modalities are ignored")


def refuses_a_wrong_key(model):
    wrong = openai.OpenAI(api_key="wrong", **OPTIONS)
    for ask in (wrong.models.list, lambda: wrong.chat.completions.create(model=model, messages=STORY, max_tokens=1)):
        try:
            ask()
        except openai.AuthenticationError as error:
            expect(error.status_code == 401, f"{error}")
        else:
            raise Failed("a wrong key is taken")


def answers_many_at_once(client, model):
    """Tasks get the answers that each gets alone."""

    def request(i):
        return {
            "model": model,
            "messages": [{"role": "user", "content": f"Tell story {i}."}],
            "max_tokens": 3 + i,
            "temperature": 0.9,
            "seed": i,
            "extra_body": {"ignore_eos": True},
        }

    async def all_at_once():
        async with openai.AsyncOpenAI(api_key=KEY, **MANY_OPTIONS) as many:

            async def streamed(i):
                stream = await many.chat.completions.create(stream=True, **request(i))
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])

            async def whole(i):
                answer = await many.chat.completions.create(**request(i))
                return answer.choices[0].message.content

            return await asyncio.gather(*((streamed if i % 2 else whole)(i) for i in range(TASKS)))

    alone = [client.chat.completions.create(**request(i)).choices[0].message.content for i in range(TASKS)]
    together = asyncio.run(all_at_once())
    for i in range(TASKS):
        expect(alone[i] and together[i] == alone[i], f"task {i}: {together[i]!r}, alone {alone[i]!r}")


def main():
    client = openai.OpenAI(api_key=KEY, **OPTIONS)
    model = lists_models(client)
    tests = [
        chats, streams, streams_without_usage, stops_at_words, completes, gives_many_choices, gives_logprobs,
        parses_a_pydantic_model, answers_in_json, keeps_to_a_grammar, calls_tools, refuses_what_it_does_not_support,
        answers_many_at_once,
    ]
    calls = [(lists_models, client), *((test, client, model) for test in tests)]
    if KEY != "none":
        calls.append((refuses_a_wrong_key, model))
    run(f"openai {openai.__version__}", calls)


if __name__ == "__main__":
    main()
