"""Vocabulary of the merged model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...recipe import Vocabulary
from ..compatibility import Opened
from ..open_models import OpenedModels

if TYPE_CHECKING:
    from ...checkpoint import Tokenizer


@dataclass(frozen=True)
class OutputVocabulary:
    """Vocabulary of the merged model.

    Attributes:
        donor: The model whose tokenizer files are copied.
        tokenizer: The tokenizer to write instead, if it differs from the donor's.
        sizes: Number of rows of the donor's tables before and after alignment.
        kept: Tables that are copied from the base or first model instead of merged.
        notes: Remarks for the user.
    """

    donor: Opened
    tokenizer: Tokenizer | None = None
    sizes: tuple[int, int] = (0, 0)
    kept: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


def align(vocabulary: Vocabulary | None, opened_models: OpenedModels, donor: Opened) -> OutputVocabulary:
    """Replace each opened model by a view with aligned embedding rows.

    Args:
        vocabulary: The `vocabulary` of the recipe; None if all models must have the same tokens.
        opened_models: All opened models of the merge.
        donor: The model whose config and tokenizer the result takes.

    Raises:
        Mismatch: the tokenizers are incompatible.
        RecipeError: the recipe takes a token's row from a model that does not have it.
        CheckpointError: a tokenizer is missing or damaged.
    """
    if vocabulary is None:
        return OutputVocabulary(donor)
    from .alignment import aligned

    return aligned(vocabulary, opened_models, donor)
