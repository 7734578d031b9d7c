"""Rows of an embedding that an adapter trained (`trainable_token_indices`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

from ...errors import CheckpointError
from .._api import TensorSpec
from .._floats import Floats
from .._peft import matches_module
from . import adapter_kind
from ._change import AdaptedModule, Change, Once


class _Rows(Change):
    """Replaces rows, for any scale; PEFT trains them in the embedding and in a head that is tied to it."""

    keeps_ties = True

    def __init__(self, module: AdaptedModule, target: TensorSpec, rows: Sequence[int]) -> None:
        spec = module.spec("trainable_tokens_delta")
        if len(target.shape) != 2 or spec.shape != (len(rows), target.shape[1]):
            raise CheckpointError(
                f"{module.settings.path}: {spec.name!r} is {list(spec.shape)}, for the {len(rows)} rows that the "
                f"configuration names of {target.name!r} {list(target.shape)}."
            )
        self._columns, self._at = target.shape[1], dict(zip(rows, range(len(rows)), strict=True))
        self.nbytes = 4 * spec.numel
        self._trained = Once(lambda: module.floats("trainable_tokens_delta"))

    def apply(self, values: Floats, start: int) -> None:
        stop = start + values.size
        for row, at in self._at.items():
            first, last = max(row * self._columns, start), min((row + 1) * self._columns, stop)
            if first < last:
                own = self._trained()[at]
                values[first - start : last - start] = own[first - row * self._columns :][: last - first]


@adapter_kind("trained_tokens", "trainable_tokens_delta", peft_types=("LORA", "TRAINABLE_TOKENS"))
def trained_tokens(modules: Sequence[AdaptedModule]) -> Iterator[tuple[str, Change]]:
    """The rows of an embedding that belong to some tokens, replaced."""
    for module in modules:
        target = module.target()
        yield target.name, _Rows(module, target, _rows(module, target))


def _rows(module: AdaptedModule, target: TensorSpec) -> list[int]:
    config = module.settings.config
    named: Any = config.get("trainable_token_indices") or config.get("token_indices") or []
    if isinstance(named, dict):
        by_module = cast("dict[str, Any]", named)
        own = [rows for key, rows in by_module.items() if matches_module([key], module.name, module.settings.path)]
        named = own[0] if own else []
    rows = cast("list[Any]", named) if isinstance(named, list) else []
    if not rows or any(type(row) is not int or not 0 <= row < target.shape[0] for row in rows):
        raise CheckpointError(
            f"{module.settings.path}: trainable_token_indices must list rows of {target.name!r}, which has "
            f"{target.shape[0]}; got {named!r:.80}."
        )
    if len(set(rows)) != len(rows):
        raise CheckpointError(f"{module.settings.path}: trainable_token_indices names a row of {target.name!r} twice.")
    return rows
