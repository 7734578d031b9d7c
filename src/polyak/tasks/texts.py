"""Texts as the numbers of their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import TaskError
from .rows import Rows

if TYPE_CHECKING:
    from torch import Tensor


class Tokens:
    """A tokenizer that pads, and cuts at a length.

    Attributes:
        folder: Where it lies.
        length: The most tokens of an example.
    """

    def __init__(self, folder: Path, length: int) -> None:
        self.folder, self.length = folder, length

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer, loaded when it is first needed."""
        from .transformers import read_tokenizer

        return read_tokenizer(self.folder)

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> dict[str, Tensor]:
        """`input_ids`, `attention_mask` and what else the tokenizer gives, (n, positions)."""
        settings = {"padding": True, "truncation": True, "max_length": self.length, "return_tensors": "pt"}
        found = self.tokenizer(list(texts), None if pairs is None else list(pairs), **settings)
        return dict(found)

    def pad(self, sequences: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """`input_ids` and `attention_mask` of sequences of token numbers, padded on the right."""
        import torch

        longest, fill = max(map(len, sequences)), self.tokenizer.pad_token_id or 0
        ids = torch.tensor([[*one, *[fill] * (longest - len(one))] for one in sequences])
        mask = torch.tensor([[1] * len(one) + [0] * (longest - len(one)) for one in sequences])
        return {"input_ids": ids, "attention_mask": mask}


def check_texts(rows: Rows, *columns: str) -> None:
    """Refuse what is no text.

    Raises:
        TaskError: with the place of the first.
    """
    for column in columns:
        for i, value in enumerate(rows.columns[column]):
            if not isinstance(value, str):
                raise TaskError(f"{rows.place(i)}: {column!r} must be text; got {value!r:.60}.")
