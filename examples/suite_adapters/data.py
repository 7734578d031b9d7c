"""Grade-school problems with worked answers (GSM8K), read from a folder of the user's.

There are `lm/gsm8k.train.jsonl.gz` and `lm/gsm8k.test.jsonl.gz` in the folder that `POLYAK_DATA` names (default:
`../shared/data`): one object `{"question": ..., "answer": ...}` a line.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

FOLDER = Path(os.environ.get("POLYAK_DATA", Path(__file__).parents[3] / "shared" / "data")) / "lm"
LENGTH = 128  # tokens of a problem with its answer: longer ones are left out, none is cut
COUNTS = {"validation": 48, "test": 200, "training": 1_200}
_FILES = {"validation": "train", "test": "test", "training": "train"}

Row = dict[str, str]


def missing() -> str:
    """What is wanted and not there; nothing if all is."""
    absent = [path for path in map(_path, ("train", "test")) if not path.is_file()]
    if not absent:
        return ""
    return f"there is no {absent[0]}. Set POLYAK_DATA to a folder with lm/gsm8k.train.jsonl.gz and .test.jsonl.gz."


def split(tokens: Callable[[Row], int]) -> dict[str, list[Row]]:
    """The first short problems of each file: of the training file, those for validation come first.

    Args:
        tokens: How many tokens a problem and its answer have.
    """
    short = {file: _short(file, tokens) for file in ("train", "test")}
    return {part: list(islice(short[file], COUNTS[part])) for part, file in _FILES.items()}


def _short(file: str, tokens: Callable[[Row], int]) -> Iterator[Row]:
    with gzip.open(_path(file), "rt", encoding="utf-8") as lines:
        for line in lines:
            one = json.loads(line)
            row = {"prompt": f"Question: {one['question']}\nAnswer:", "answer": f" {one['answer']}"}
            if tokens(row) <= LENGTH:
                yield row


def _path(file: str) -> Path:
    return FOLDER / f"gsm8k.{file}.jsonl.gz"
