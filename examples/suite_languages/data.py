"""Tasks of each language as files: parts of speech (UD English-EWT and PUD) and intents (xSID).

They are read from the folder that `POLYAK_DATA` names (default: `../shared/data`): `pos/en_ewt.*.jsonl.gz`,
`pos/LANGUAGE_pud.test.jsonl.gz` with `tokens` and `upos`, `xsid/en.*.jsonl.gz` and `xsid/LANGUAGE.test.jsonl.gz` with
`tokens` and `intent`.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ.get("POLYAK_DATA", Path(__file__).parents[3] / "shared" / "data"))
SOURCE = "en"
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Sizes:
    """How many examples are used of what.

    Attributes:
        train: Of the source.
        validation: Of the source.
        oracle: Of each target, to select checkpoints for the oracle; none of them is reported on.
        test: Of each language.
    """

    train: int = 1000
    validation: int = 200
    oracle: int = 100
    test: int = 200


@dataclass(frozen=True)
class Set:
    """A task in several languages.

    Attributes:
        name: Its name.
        languages: The target languages.
        train: File of the source's training examples.
        validation: File of its validation examples.
        test: File of a language's test examples, with `{language}`.
        keys: Other keys of the task files.
        column: Column of the labels, which are words.
    """

    name: str
    languages: tuple[str, ...]
    train: str
    validation: str
    test: str
    keys: Mapping[str, Any]
    column: str


PARTS_OF_SPEECH = Set(
    "parts-of-speech", ("de", "fr", "es", "it", "pt", "sv", "fi", "ru", "tr", "id", "hi", "ar"),
    "pos/en_ewt.train", "pos/en_ewt.dev", "pos/{language}_pud.test", {"kind": "token-tagging", "tags": "upos"}, "upos",
)  # fmt: skip
INTENTS = Set(
    "intents", ("de", "da", "nl", "it", "sr", "tr", "id", "kk", "lt", "ar", "gsw", "nap"),
    "xsid/en.train", "xsid/en.valid", "xsid/{language}.test",
    {"kind": "text-classification", "label": "intent", "pooling": "mean"}, "intent",
)  # fmt: skip
SETS = {one.name: one for one in (PARTS_OF_SPEECH, INTENTS)}


def missing(chosen: Sequence[Set]) -> str:
    """What is wanted and not there; nothing if all is."""
    for one in chosen:
        files = [one.train, one.validation, *(one.test.format(language=name) for name in (SOURCE, *one.languages))]
        for file in files:
            if not _path(file).is_file():
                return f"there is no {_path(file)}. Set POLYAK_DATA to a folder that has it."
    return ""


def texts(chosen: Sequence[Set]) -> list[list[str]]:
    """The words of every example: the encoder keeps the tokens that they need."""
    files = {
        file
        for one in chosen
        for file in (one.train, one.validation, *(one.test.format(language=n) for n in (SOURCE, *one.languages)))
    }
    return [row["tokens"] for file in sorted(files) for row in _read(file)]


def write(one: Set, sizes: Sizes, folder: Path, encoder: Path) -> None:
    """Write `LANGUAGE.json`, the task of each language, and its examples beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    train, validation = _read(one.train)[: sizes.train], _read(one.validation)[: sizes.validation]
    labels = sorted({label for row in _read(one.train) for label in _labels(row, one)})
    for language in (SOURCE, *one.languages):
        rows = _read(one.test.format(language=language))
        splits = {"validation": rows[: sizes.oracle], "test": rows[sizes.oracle :][: sizes.test]}
        if language == SOURCE:
            splits = {"train": train, "validation": validation, "test": splits["test"]}
        for split, examples in splits.items():
            lines = "".join(f"{json.dumps({**row, 'text': ' '.join(row['tokens'])})}\n" for row in examples)
            (folder / f"{language}.{split}.jsonl").write_text(lines, encoding="utf-8")
        files = {split: f"{language}.{split}.jsonl" for split in splits}
        task = {**one.keys, "splits": files, "model": str(encoder.absolute()), "labels": labels, "length": 64}
        (folder / f"{language}.json").write_text(json.dumps(task, indent=1), encoding="utf-8")


def _labels(row: Row, one: Set) -> list[str]:
    value = row[one.column]
    return [value] if isinstance(value, str) else list(value)


def _path(name: str) -> Path:
    return FOLDER / f"{name}.jsonl.gz"


def _read(name: str) -> list[Row]:
    with gzip.open(_path(name), "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]
