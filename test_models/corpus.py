"""Writes the training text: simple English stories and plain facts.

Every sentence comes from the templates in `stories.py` and the tables in
`facts.py`; nothing is taken from another text. The same seed gives the same
bytes. The output is one JSON string per line, one line per document.
"""

import argparse
import json
import random
from pathlib import Path

import facts
import stories


def documents(rng: random.Random, n_stories: int, n_facts: int) -> list[str]:
    """Stories and fact documents, shuffled together."""
    docs = [stories.story(rng) for _ in range(n_stories)]
    docs += [facts.document(rng) for _ in range(n_facts)]
    rng.shuffle(docs)
    return docs


def write(path: Path, docs: list[str]) -> None:
    """One JSON string per line."""
    path.write_text("".join(json.dumps(d, ensure_ascii=False) + "\n" for d in docs),
                    encoding="utf-8")


def main() -> None:
    """Writes train.jsonl, singles.jsonl and valid.jsonl."""
    arg = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arg.add_argument("--out", type=Path, default=Path(__file__).parent / "build")
    arg.add_argument("--stories", type=int, default=60000)
    arg.add_argument("--facts", type=int, default=34000)
    arg.add_argument("--singles", type=int, default=100000, help="single facts, to fill gaps")
    arg.add_argument("--seed", type=int, default=20)
    args = arg.parse_args()

    args.out.mkdir(parents=True, exist_ok=True)
    train = documents(random.Random(args.seed), args.stories, args.facts)
    seen = set(train)
    # Held-out documents are other draws of the same generator; a short fact
    # can be drawn again, and is then not held out at all.
    valid = documents(random.Random(args.seed + 1), 600, 340)
    valid = [d for d in dict.fromkeys(valid) if d not in seen]
    rng = random.Random(args.seed + 2)
    write(args.out / "train.jsonl", train)
    write(args.out / "singles.jsonl", [facts.single(rng) for _ in range(args.singles)])
    write(args.out / "valid.jsonl", valid)
    size = sum(len(d.encode()) for d in train)
    print(f"{len(train)} training documents, {size} bytes; {len(valid)} held out")


if __name__ == "__main__":
    main()
