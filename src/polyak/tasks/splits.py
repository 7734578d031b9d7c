"""Splits without common examples, from one file per split or from fractions of one file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import TaskError
from ._batch import SPLITS
from .rows import Rows, read_rows


@dataclass(frozen=True)
class Part:
    """The file or folder of the examples of a split.

    Attributes:
        path: The file or folder.
        part: The part of a folder that has several.
        rows: First row, and one past the last; None takes all.
        columns: Names of columns that differ from those in the other splits.
    """

    path: Path
    part: str = ""
    rows: tuple[int, int] | None = None
    columns: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Splits:
    """The division of the examples of a task into splits.

    Attributes:
        parts: A part per split; or one for all, under the empty name.
        fractions: Fraction of each split, if there is one part for all.
        seed: Seed of the assignment of examples to splits.
    """

    parts: Mapping[str, Part]
    fractions: Mapping[str, float] = field(default_factory=dict[str, float])
    seed: int = 0

    def read(self, columns: Mapping[str, str]) -> tuple[dict[str, Rows], tuple[str, ...]]:
        """The rows of each split, and notes for the user.

        Args:
            columns: From the names of columns to those in the files.

        Raises:
            TaskError: a file cannot be read, or a split is empty.
        """
        read = {name: _read(part, columns) for name, part in self.parts.items()}
        splits = _divided(read[""], self.fractions, self.seed) if "" in read else read
        return _kept_apart({name: splits[name] for name in SPLITS if name in splits})


def _read(part: Part, columns: Mapping[str, str]) -> Rows:
    rows = read_rows(part.path, {**columns, **part.columns}, part=part.part)
    if part.rows is None:
        return rows
    start, stop = part.rows
    if not 0 <= start < stop <= len(rows):
        raise TaskError(f"{part.path} has {len(rows)} examples; `rows: [{start}, {stop}]` is not among them.")
    return rows.take(range(start, stop))


def _divided(rows: Rows, fractions: Mapping[str, float], seed: int) -> dict[str, Rows]:
    """Fractions of the distinct examples, ordered by a hash of seed and contents; duplicates stay together."""
    import xxhash

    distinct = sorted(set(rows.fingerprints), key=lambda f: xxhash.xxh3_128(seed.to_bytes(8, "little") + f).digest())
    home: dict[bytes, str] = {}
    begin = total = 0.0
    for name, fraction in fractions.items():
        total += fraction
        end = round(min(total, 1.0) * len(distinct))
        home |= dict.fromkeys(distinct[int(begin) : end], name)
        begin = end
    shares = {name: [i for i, f in enumerate(rows.fingerprints) if home.get(f) == name] for name in fractions}
    for name, chosen in shares.items():
        if not chosen:
            raise TaskError(f"{rows.label} has {len(rows)} examples, too few for the split {name!r} to have any.")
    return {name: rows.take(chosen) for name, chosen in shares.items()}


def _kept_apart(splits: dict[str, Rows]) -> tuple[dict[str, Rows], tuple[str, ...]]:
    """Drop the examples of each split that a later split has too, so that no test example is learned from."""
    later: set[bytes] = set()
    kept: dict[str, Rows] = {}
    notes: list[str] = []
    for name in reversed(splits):
        rows = splits[name]
        own = [i for i, fingerprint in enumerate(rows.fingerprints) if fingerprint not in later]
        later.update(rows.fingerprints)
        if not own:
            raise TaskError(f"every example of {name!r} ({rows.label}) is in a later split too; none is left.")
        if len(own) < len(rows):
            notes.append(
                f"{len(rows) - len(own)} of {len(rows)} examples left out of {name}: a later split has them too"
            )
        kept[name] = rows if len(own) == len(rows) else rows.take(own)
    return dict(reversed(kept.items())), tuple(notes)
