"""Texts as token ids."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import TaskError
from ..modules import read_tokenizer
from .rows import Rows

if TYPE_CHECKING:
    from torch import Tensor


class Tokens:
    """A tokenizer that pads, and truncates to a length.

    Attributes:
        folder: Its folder.
        length: Maximum number of tokens of an example.
    """

    def __init__(self, folder: Path, length: int) -> None:
        self.folder, self.length = folder, length

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer, loaded when it is first needed."""
        return read_tokenizer(self.folder)

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> dict[str, Tensor]:
        """`input_ids`, `attention_mask` and other outputs of the tokenizer, (n, positions)."""
        settings = {"padding": True, "truncation": True, "max_length": self.length, "return_tensors": "pt"}
        encoded = self.tokenizer(list(texts), None if pairs is None else list(pairs), **settings)
        return dict(encoded)

    def encode_words(self, texts: Sequence[Sequence[str]]) -> Any:
        """As `encode`, for texts split into words; `word_ids(i)` has the word of each token.

        Raises:
            TaskError: the tokenizer does not track words.
        """
        if not self.tokenizer.is_fast:
            raise TaskError(f"the tokenizer in {self.folder} does not track words; tagging needs a tokenizer.json.")
        settings = {"padding": True, "truncation": True, "max_length": self.length, "return_tensors": "pt"}
        return self.tokenizer([list(words) for words in texts], is_split_into_words=True, **settings)

    def encode_windows(self, questions: Sequence[str], contexts: Sequence[str], overlap: int) -> tuple[Any, list[int]]:
        """As `encode`, with contexts cut into windows that fit, and the pair that each window belongs to.

        `offset_mapping` has the characters of each token; `sequence_ids(i)` is 1 at the tokens of the context.

        Raises:
            TaskError: the tokenizer does not track characters, or a question leaves no room for a context.
        """
        if not self.tokenizer.is_fast:
            raise TaskError(f"the tokenizer in {self.folder} does not track characters; answers need a tokenizer.json.")
        for question, ids in zip(
            questions, self.tokenizer(list(questions), [""] * len(questions))["input_ids"], strict=True
        ):
            if len(ids) + overlap >= self.length:
                raise TaskError(
                    f"the question {question!r:.60} has {len(ids)} tokens: with an overlap of {overlap} it leaves no "
                    f"room for its context within {self.length}. Raise `length`, or lower `overlap`."
                )
        encoded = self.tokenizer(
            list(questions), list(contexts), padding=True, truncation="only_second", max_length=self.length,
            stride=overlap, return_overflowing_tokens=True, return_offsets_mapping=True, return_tensors="pt",
        )  # fmt: skip
        return encoded, encoded.pop("overflow_to_sample_mapping").tolist()

    def numbers(self, text: str, *, begins: bool = True) -> list[int]:
        """The token ids of one text, not truncated; with the tokenizer's leading special tokens if `begins`."""
        tokens = list(self.tokenizer(text, add_special_tokens=begins)["input_ids"])
        # A closing special token must not come between a prompt and its answer.
        return tokens[:-1] if begins and len(tokens) > 1 and tokens[-1] in self._closing else tokens

    @cached_property
    def _closing(self) -> frozenset[int]:
        marks = self.tokenizer.eos_token_id, self.tokenizer.sep_token_id
        return frozenset(mark for mark in marks if mark is not None)

    def pad(self, sequences: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """`input_ids` and `attention_mask` of sequences of token ids, padded on the right."""
        import torch

        longest, fill = max(map(len, sequences)), self.tokenizer.pad_token_id or 0
        ids = torch.tensor([[*tokens, *[fill] * (longest - len(tokens))] for tokens in sequences])
        mask = torch.tensor([[1] * len(tokens) + [0] * (longest - len(tokens)) for tokens in sequences])
        return {"input_ids": ids, "attention_mask": mask}


def check_texts(rows: Rows, *columns: str) -> None:
    """Refuse values that are not text.

    Raises:
        TaskError: the message gives the row of the first.
    """
    for column in columns:
        for i, value in enumerate(rows.columns[column]):
            if not isinstance(value, str):
                raise TaskError(f"{rows.place(i)}: {column!r} must be text; got {value!r:.60}.")
