"""Adapters of one base whose modules have the names of two versions of a library."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import takewhile

from ._opened import Adapter

# Modules around a language model, which versions of transformers and wrappers of torch add, remove or exchange.
_AROUND = frozenset({"model", "base_model", "language_model", "text_model", "transformer", "module", "_orig_mod"})

_Shapes = Mapping[str, tuple[int, ...]]


def meet(adapters: Sequence[Adapter]) -> Iterator[str]:
    """Rename the modules of adapters whose names differ from the first's in their beginning alone.

    The same module may be called `model.layers.0.mlp`, `model.language_model.layers.0.mlp` or
    `language_model.model.layers.0.mlp`. Yields a note on each adapter that is renamed, or has no module of the first.
    """
    first, *others = adapters
    for adapter in others:
        names, wanted = _shapes(adapter), _shapes(first)
        if pairs := _renaming(names, wanted):
            adapter.rename(pairs)
            old, new = next(iter(pairs.items()))
            yield f"{adapter.name}: its modules are renamed as in {first.name} ({old!r} is {new!r})"
        elif names.keys().isdisjoint(wanted):
            yield f"{adapter.name}: none of its modules is in {first.name}"


def _shapes(adapter: Adapter) -> _Shapes:
    modules = {name: module.shape for name, module in adapter.modules.items()}
    return modules | {name: spec.shape for name, spec in adapter.whole.items()}


def _renaming(names: _Shapes, wanted: _Shapes) -> dict[str, str]:
    """New names of those that the other adapter lacks, if one exchange of beginnings explains all; otherwise none."""
    own = {name: shape for name, shape in names.items() if name not in wanted}
    other = {name: shape for name, shape in wanted.items() if name not in names}
    if not own or not other:
        return {}
    old, new = _exchange(_beginning(own), _beginning(other))
    differing = (Counter(old) - Counter(new)) + (Counter(new) - Counter(old))
    if not differing.keys() <= _AROUND:
        return {}
    before, after = ("".join(f"{part}." for part in parts) for parts in (old, new))
    pairs = {name: after + name.removeprefix(before) for name in own}
    met = {pairs[name]: shape for name, shape in own.items()}
    explains_all = met.items() <= other.items() or other.items() <= met.items()
    return pairs if explains_all and met.keys().isdisjoint(names) else {}


def _beginning(names: Iterable[str]) -> list[str]:
    """The modules around all of the names, up to the first number."""
    paths = [name.split(".")[:-1] for name in names]
    shared = takewhile(lambda parts: len(set(parts)) == 1 and not parts[0].isdigit(), zip(*paths, strict=False))
    return [parts[0] for parts in shared]


def _exchange(old: list[str], new: list[str]) -> tuple[list[str], list[str]]:
    """Two beginnings without the modules with which both end."""
    while old and new and old[-1] == new[-1]:
        old, new = old[:-1], new[:-1]
    return old, new
