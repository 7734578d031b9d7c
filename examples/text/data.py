"""Short English texts with labels, read from a folder of the user's.

For each task there are `text/<task>.train.jsonl.gz` and `text/<task>.test.jsonl.gz` in the folder that `POLYAK_DATA`
names (default: `../shared/data`): one object `{"text": ..., "label": ...}` a line, labels counted from 0.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path

FOLDER = Path(os.environ.get("POLYAK_DATA", Path(__file__).parents[3] / "shared" / "data")) / "text"
PARTS = {
    "training": ("train", slice(0, 800)),
    "validation": ("train", slice(800, 1000)),
    "test": ("test", slice(0, 500)),
}


@dataclass(frozen=True)
class Task:
    """What one expert learns.

    Attributes:
        words: In words, for the report.
        classes: How many labels there are.
    """

    words: str
    classes: int


TASKS = {
    "trec6": Task("TREC questions, by what they ask for", 6),
    "snips": Task("Snips voice commands, by intent", 7),
    "sst2": Task("SST-2 sentences from film reviews, by sentiment", 2),
}


def missing() -> str:
    """What is wanted and not there; nothing if all is."""
    wanted = [_path(name, file) for name in TASKS for file in ("train", "test")]
    absent = [str(path) for path in wanted if not path.is_file()]
    if not absent:
        return ""
    return f"there is no {absent[0]}. Set POLYAK_DATA to a folder with text/<task>.train.jsonl.gz and .test.jsonl.gz."


@cache
def examples(name: str, part: str) -> tuple[list[str], list[int]]:
    """Texts and labels of a task, in the order of its file."""
    file, rows = PARTS[part]
    found = [json.loads(line) for line in islice(_lines(_path(name, file)), rows.start, rows.stop)]
    return [one["text"] for one in found], [one["label"] for one in found]


def _path(name: str, file: str) -> Path:
    return FOLDER / f"{name}.{file}.jsonl.gz"


def _lines(path: Path) -> Iterator[str]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from file
