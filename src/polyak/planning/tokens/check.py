"""Comparison of tokenizers, for recipes without `vocabulary:`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...checkpoint import TOKENIZER_FILE, Stamp, inside
from ...errors import CheckpointError, Door, Mismatch, Remedy, worded
from ..compatibility import Opened
from ..steps import Step
from .embedding_tables import tables_of

if TYPE_CHECKING:
    from ...checkpoint import Tokenizer

_SHOWN = 3


def compare(models: Sequence[Opened], steps: Sequence[Step], door: Door = "recipe") -> list[str]:
    """Compare the tokenizers of models whose embedding tables are merged.

    Args:
        models: All models of the merge.
        steps: The steps of the merge.
        door: The kind of file or command that the notes are read at.

    Returns:
        Notes on differences that may be intended.

    Raises:
        Mismatch: a token has different rows in two models.
    """
    first: tuple[Opened, Tokenizer] | None = None
    seen: set[str] = set()
    notes: list[str] = []
    for model in _meeting(models, steps):
        path = _file(model)
        if path is None or (stamp := Stamp.of_contents(path).header) in seen:
            continue
        seen.add(stamp)
        from ...checkpoint import read_tokenizer

        try:
            tokenizer = read_tokenizer(model.checkpoint.folder, model.name)
        except CheckpointError as error:
            notes.append(f"the tokens of {model.name} were not compared: {error}")
            continue
        notes += _differences(*first, model, tokenizer, door) if first else []
        first = first or (model, tokenizer)
    return notes


def _meeting(models: Sequence[Opened], steps: Sequence[Step]) -> list[Opened]:
    """The models from which a step reads an embedding table."""
    taken = {(read.model, read.spec.name) for step in steps for read in step.every_read}
    return [model for model in models if any((model.name, table) in taken for table in tables_of(model)[1])]


def _file(model: Opened) -> Path | None:
    folder = model.checkpoint.folder
    return inside(folder, TOKENIZER_FILE) if folder is not None and (folder / TOKENIZER_FILE).is_file() else None


def _differences(
    first: Opened, first_tokenizer: Tokenizer, other: Opened, other_tokenizer: Tokenizer, door: Door
) -> list[str]:
    tokens, other_tokens = first_tokenizer.tokens, other_tokenizer.tokens
    moved = [token for token, row in other_tokens.items() if tokens.get(token, row) != row]
    if moved:
        shown = ", ".join(f"{token!r} is {tokens[token]} and {other_tokens[token]}" for token in moved[:_SHOWN])
        raise Mismatch(
            f"{len(moved)} tokens have another row in {other.name} than in {first.name} ({shown}), so their embeddings "
            "do not belong together.",
            remedies=[Remedy.ORDER_TOKENS],
        )
    more, less = len(other_tokens.keys() - tokens.keys()), len(tokens.keys() - other_tokens.keys())
    if not more and not less:
        return []
    return [
        f"{other.name} has {more} tokens that {first.name} lacks, and lacks {less}; their rows are merged by number. "
        + worded([Remedy.OWN_ROWS], door)
    ]
