"""Layers, found by the names of tensors: `PREFIX.0.`, `PREFIX.1.`, ... is a stack in any architecture."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

LAYER = re.compile(r"(?:^|\.)(\d+)\.")


def layer_of(name: str) -> tuple[str, int, str] | None:
    """The stack, the layer and the rest of a name: ("model.layers.", 3, "mlp.weight"); None outside the stacks."""
    match = LAYER.search(name)
    return (name[: match.start(1)], int(match[1]), name[match.end() :]) if match else None


@dataclass(frozen=True)
class Stack:
    """The layers of one stack.

    Attributes:
        prefix: The beginning of their names, up to the number.
        layers: For each layer, a mapping from the rest of each name to the whole name.
    """

    prefix: str
    layers: tuple[Mapping[str, str], ...]

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def called(self) -> str:
        return self.prefix.removesuffix(".")

    @cached_property
    def only_in_first(self) -> frozenset[str]:
        """Tensors that only the first layer has, such as the position biases of T5, which all layers use."""
        if len(self) < 2:
            return frozenset()
        return frozenset(self.layers[0]).difference(*self.layers[1:])

    def window(self, first: int, stop: int, offset: int) -> dict[str, str]:
        """Layers [first, stop), renumbered to begin at `offset`: a mapping from new names to old names."""
        names: dict[str, str] = {}
        for layer in range(first, stop):
            at = f"{self.prefix}{offset + layer - first}."
            names |= {at + rest: name for rest, name in self.layers[layer].items() if rest not in self.only_in_first}
        if offset == 0 and first < stop:
            names |= {f"{self.prefix}0.{rest}": self.layers[0][rest] for rest in sorted(self.only_in_first)}
        return names


def stacks(names: Iterable[str]) -> dict[str, Stack]:
    """The stacks among some names, by prefix; numbers that do not count up from 0 are not layers."""
    by_prefix: dict[str, dict[int, dict[str, str]]] = {}
    for name in names:
        if (parts := layer_of(name)) is not None:
            prefix, layer, rest = parts
            by_prefix.setdefault(prefix, {}).setdefault(layer, {})[rest] = name
    return {
        prefix: Stack(prefix, tuple(layers[i] for i in range(len(layers))))
        for prefix, layers in by_prefix.items()
        if prefix and set(layers) == set(range(len(layers)))
    }
