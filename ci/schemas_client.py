#!/usr/bin/env python3
"""Asks a server for answers to random JSON schemas, and validates them by the `jsonschema` Python package.

    ci/schemas_client.py [-n N] BASE_URL     such as http://127.0.0.1:8080

The package is in the virtual environment that `ci/environment.py clients` makes. An answer that the number
of tokens cuts is asked for again, with a bias to shorter texts. The end is a line with the numbers of answers.
"""

import argparse
import json
import random
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import jsonschema

CLIENTS = 8
MAX_TOKENS = 400
# Answers to a schema, of which one must be whole.
TRIES = 8
NAMES = ["a", "name", "is ready", "é", '"quoted"', "x-y_z"]


def schema(dice, depth):
    """A random schema of the keywords that hold answers to them."""
    kinds = 10 if depth == 0 else 15
    kind = dice.randrange(kinds)
    if kind == 0:
        return {"type": "boolean"}
    if kind == 1:
        return {"type": ["null", "integer"]}
    if kind == 2:
        low = dice.randint(-1000, 1000)
        return {"type": "integer", "minimum": low, "maximum": low + dice.randint(0, 700)}
    if kind == 3:
        return {"type": "integer", "exclusiveMinimum": dice.randint(-50, 50)}
    if kind == 4:
        return {"type": "number"}
    if kind == 5:
        return {"type": "string", "minLength": dice.randint(0, 2), "maxLength": dice.randint(2, 9)}
    if kind == 6:
        return {"enum": dice.sample(["red", 7, None, True, {"a": [1, "é"]}, 2.5], dice.randint(1, 4))}
    if kind == 7:
        return {"const": dice.choice(["on", 0, [None], {"k": "v"}])}
    if kind == 8:
        return {"type": "string", "format": dice.choice(["date", "time", "date-time", "uuid"])}
    if kind == 9:
        return {"type": "string", "pattern": dice.choice(["^[a-c]{1,3}x$", "^(yes|no)\\.$", "\\d", "^.{2,5}$", "^[^a-z]\\w?$"])}
    if kind == 10:
        return {dice.choice(["anyOf", "oneOf"]): [{"type": "null"}, {"type": "object", **members(dice, depth - 1)}]}
    if kind == 11:
        least = dice.randint(0, 2)
        return {"type": "array", "items": schema(dice, depth - 1), "minItems": least, "maxItems": least + dice.randint(0, 2)}
    if kind == 12:
        return {"type": "array", "prefixItems": [schema(dice, depth - 1) for _ in range(dice.randint(1, 3))], "items": False}
    return {"type": "object", **members(dice, depth - 1)}


def members(dice, depth):
    names = dice.sample(NAMES, dice.randint(1, 4))
    whole = {"properties": {name: schema(dice, depth) for name in names}}
    whole["required"] = [name for name in names if dice.random() < 0.5]
    additional = dice.choice([None, False, {"type": "integer"}])
    # An object without the keyword has no others here.
    whole["additionalProperties"] = False if additional is None else additional
    return whole


def answer(base, sent, seed, n_cut):
    """An answer to a schema, or None if the number of tokens cuts the answer, as it did `n_cut` times before."""
    body = {"prompt": "Once upon a time", "json_schema": sent, "n_predict": MAX_TOKENS, "temperature": 1.0, "seed": seed}
    # A text ends sooner each time, and has a digit where its pattern needs one.
    body["logit_bias"] = [['"', 3 * n_cut], ["7", 2 * n_cut]]
    request = urllib.request.Request(f"{base}/completion", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=600) as response:
        said = json.load(response)
    return None if said["stop_type"] == "limit" else said["content"]


def ask(base, number):
    """The schema of this number, its first whole answer, and the number of answers before that."""
    of = schema(random.Random(number), 3)
    # Where the answer is a list with an order, the server takes `items` before `prefixItems`.
    sent = json.loads(json.dumps(of), object_hook=lambda it: {k: v for k, v in it.items() if not (k == "items" and v is False)})
    for n_cut in range(TRIES):
        text = answer(base, sent, number, n_cut)
        if text is not None:
            return of, text, n_cut
    return of, None, TRIES


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("-n", type=int, default=100)
    arguments.add_argument("base")
    options = arguments.parse_args()
    validated = cut = wrong = 0
    with ThreadPoolExecutor(CLIENTS) as pool:
        for of, text, n_cut in pool.map(lambda number: ask(options.base.rstrip("/"), number), range(options.n)):
            cut += n_cut
            try:
                if text is None:
                    raise ValueError(f"{n_cut} answers are cut")
                jsonschema.validate(json.loads(text), of, cls=jsonschema.Draft202012Validator)
                validated += 1
            except (ValueError, jsonschema.ValidationError) as error:
                wrong += 1
                print(f"FAILED  {json.dumps(of)}\n{text}\n{error}")
    print(f"schemas: {validated} answers validated, {wrong} wrong; {cut} were cut and asked for again")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
