"""Renamings that may make the names of two models meet."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

# Names that LayerNorm's parameters have in old checkpoints.
_OLD = ((re.compile(r"LayerNorm\.gamma$"), "LayerNorm.weight"), (re.compile(r"LayerNorm\.beta$"), "LayerNorm.bias"))


class Renaming(NamedTuple):
    """A single change of all names.

    Attributes:
        remedy: Its description, which is the key of a recipe if there is one for it.
        apply: New name from old name.
    """

    remedy: str
    apply: Callable[[str], str]


def renamings(names: Collection[str], wanted: Collection[str]) -> Iterator[Renaming]:
    """Renamings that may lead from some names to others: prefixes, wrappers of torch, and names of old versions."""
    for prefix in _prefixes(names):
        yield Renaming(f"strip_prefix: {prefix}", lambda name, p=prefix: name.removeprefix(p))
    for prefix in _prefixes(wanted):
        yield Renaming(f"add_prefix: {prefix}", lambda name, p=prefix: p + name)
    for remedy, canonical in _CANONICAL.items():
        stored = {canonical(name): name for name in wanted}
        yield Renaming(remedy, lambda name, c=canonical, s=stored: s.get(c(name), name))


def proposal(names: Collection[str], wanted: Collection[str]) -> str | None:
    """The renaming by a key of recipes with which most names meet, as a remedy; None if none helps."""
    target = set(wanted)
    best = (max(len(target & set(names)), len(names) // 2), "")
    for renaming in renamings(names, wanted):
        met = sum(renaming.apply(name) in target for name in names)
        if met > best[0] and ":" in renaming.remedy:
            best = met, f"{met} of its {len(names)} names match with `{renaming.remedy}`"
    return best[1] or None


def _modern(name: str) -> str:
    for pattern, new in _OLD:
        name = pattern.sub(new, name)
    return name


def _prefixes(names: Collection[str]) -> list[str]:
    """Beginnings of most names that end in a dot, at most three parts long."""
    counts: dict[str, int] = {}
    for name in names:
        parts = name.split(".")
        for i in range(1, min(len(parts), 4)):
            prefix = ".".join(parts[:i]) + "."
            counts[prefix] = counts.get(prefix, 0) + 1
    return [prefix for prefix, count in counts.items() if 2 * count > len(names)]


def _uncompiled(name: str) -> str:
    return name.replace("_orig_mod.", "")


# Names that are the same tensor if these functions of them are equal.
_CANONICAL: dict[str, Callable[[str], str]] = {
    "torch.compile adds `_orig_mod.`": _uncompiled,
    "LayerNorm.gamma and beta are weight and bias": _modern,
}
