"""Eight English text classifications, read from a folder of the user's and divided once, with seed 0.

For each task there are `text/<task>.train.jsonl.gz` and `text/<task>.test.jsonl.gz` in the folder that `POLYAK_DATA`
names (default: `../shared/data`): one object `{"text": ..., "label": ...}` a line, labels counted from 0.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeAlias

FOLDER = Path(os.environ.get("POLYAK_DATA", Path(__file__).parents[3] / "shared" / "data")) / "text"
TRAINING, VALIDATION = 4000, 1000  # of a training file
CLASSES = {
    "ag_news": 4,
    "banking77": 77,
    "clinc150": 150,
    "snips": 7,
    "hwu64": 64,
    "trec6": 6,
    "subj": 2,
    "sst2": 2,
}
TASKS = tuple(CLASSES)


@dataclass(frozen=True)
class Example:
    """A text and its label."""

    text: str
    label: int


Examples: TypeAlias = Sequence[Example]


def missing(tasks: Sequence[str] = TASKS) -> str:
    """What is wanted and not there; nothing if all is."""
    absent = [path for name in tasks for file in ("train", "test") if not (path := _path(name, file)).is_file()]
    if not absent:
        return ""
    return f"there is no {absent[0]}. Set POLYAK_DATA to a folder with text/<task>.train.jsonl.gz and .test.jsonl.gz."


@cache
def training(name: str) -> Examples:
    """What an expert learns from."""
    return _drawn(name)[:TRAINING]


@cache
def validation(name: str) -> Examples:
    """What nothing was trained on, from the same file."""
    return _drawn(name)[TRAINING : TRAINING + VALIDATION]


@cache
def test(name: str) -> Examples:
    """What scores are reported on."""
    return _read(name, "test")


def digest(*parts: object) -> str:
    """Hexadecimal digest of plain data and examples."""
    plain = json.dumps(parts, sort_keys=True, default=lambda one: [one.text, one.label])
    return hashlib.sha256(plain.encode()).hexdigest()


@cache
def _drawn(name: str) -> Examples:
    rows = list(_read(name, "train"))
    random.Random(0).shuffle(rows)
    return rows


def _read(name: str, file: str) -> Examples:
    with gzip.open(_path(name, file), "rt", encoding="utf-8") as lines:
        found = [json.loads(line) for line in lines]
    return [Example(one["text"], int(one["label"])) for one in found]


def _path(name: str, file: str) -> Path:
    return FOLDER / f"{name}.{file}.jsonl.gz"
