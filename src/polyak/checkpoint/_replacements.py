"""Tensors that an adapter keeps whole, and the tensors of the base whose place they take."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from ..errors import CheckpointError
from ._api import Checkpoint, TensorSpec
from ._finder import Finder
from ._peft import AdapterSettings, empty_message

# Tensors with one row per token, by the ends of their names: a resized vocabulary gives them other rows.
_PER_TOKEN = re.compile(
    r"(?:^|\.)(?:embed_tokens|tok_embeddings|word_embeddings|wte|shared|embed_in|embed_out|lm_head|decoder)\.weight$"
    r"|(?:^|\.)(?:lm_head|decoder|predictions)\.bias$"
)


def replacements(
    base: Checkpoint, tensors: Checkpoint, settings: AdapterSettings, replaced: Mapping[str, str], finder: Finder
) -> Iterator[tuple[str, str]]:
    """Pairs of a tensor of the base, and the adapter's tensor that replaces it.

    Args:
        base: The base.
        tensors: The adapter's tensors.
        settings: Its configuration.
        replaced: The adapter's name of a tensor of the base, to the stored name of its replacement.
        finder: Finds names in the base.

    Raises:
        CheckpointError: one has another shape, other than more or fewer rows of a vocabulary.
    """
    pairs: dict[str, str] = {}
    for name, replacement in replaced.items():
        module = name.rpartition(".")[0]
        # The head of a task is often missing from the base.
        if finder.lacks(name) and any(module == m or module.endswith(f".{m}") for m in settings.modules_to_save):
            pairs[name] = replacement
            continue
        target = finder.find(name)
        _check_shape(base, target, tensors.spec(replacement), settings)
        pairs[target] = replacement
    _check_vocabulary(base, tensors, pairs, settings)
    yield from pairs.items()


def _check_shape(base: Checkpoint, target: str, own: TensorSpec, settings: AdapterSettings) -> None:
    shape = base.spec(target).shape
    if not own.numel:
        raise CheckpointError(empty_message(own, str(settings.path)))
    if own.shape == shape or (
        own.shape[1:] == shape[1:] and len(shape) == len(own.shape) and _PER_TOKEN.search(target)
    ):
        return
    raise CheckpointError(
        f"{settings.path}: {own.name!r} is {list(own.shape)} and replaces {target!r}, which is {list(shape)} in "
        f"{base.label}. Name the base that this adapter was trained on."
    )


def _check_vocabulary(
    base: Checkpoint, tensors: Checkpoint, pairs: Mapping[str, str], settings: AdapterSettings
) -> None:
    """Refuse an adapter that resizes one of the tensors per token and leaves another as it is."""
    old = {target: base.spec(target).shape for target in pairs if target in base.specs or target in base.ties}
    resized = {target: shape[0] for target, shape in old.items() if tensors.spec(pairs[target]).shape != shape}
    if not resized:
        return
    first = next(iter(resized))
    rows, before = tensors.spec(pairs[first]).shape[0], resized[first]
    for name in [*base.specs, *base.ties]:
        own = tensors.spec(pairs[name]).shape if name in pairs else base.spec(name).shape
        if _PER_TOKEN.search(name) and base.spec(name).shape[0] == before and own[0] != rows:
            raise CheckpointError(
                f"{settings.path}: the adapter gives {first!r} {rows} rows instead of {before}, while {name!r} has "
                f"{own[0]}. Save it with both in modules_to_save, or resize the base before (resize_token_embeddings)."
            )
