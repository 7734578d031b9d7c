"""Views of checkpoints: with other names, or fewer tensors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from ..errors import CheckpointError
from ..reading import compiled
from ._api import Bytes, Checkpoint, TensorSpec


class _View(Checkpoint):
    """Some tensors of `inner` under other names.

    If a tensor is left out and its aliases are not, the first alias takes its place and the others are tied to it.
    """

    def __init__(self, inner: Checkpoint, names: Mapping[str, str]) -> None:
        self._inner = self.inner = inner
        self.label, self.metadata, self.folder, self.stamps = inner.label, inner.metadata, inner.folder, inner.stamps
        self.held_nbytes = inner.held_nbytes
        self._names: dict[str, str] = {}
        specs: dict[str, TensorSpec] = {}
        ties: dict[str, str] = {}
        holder: dict[str, str] = {stored: new for new, stored in names.items() if stored in inner.specs}
        for new, old in names.items():
            stored = inner.ties.get(old, old)
            first = holder.setdefault(stored, new)
            if first != new:
                ties[new] = first
                continue
            specs[new] = replace(inner.specs[stored], name=new)
            self._names[new] = stored
        self.specs, self.ties = specs, ties

    def read_into(self, name: str, start: int, stop: int, out: Bytes) -> None:
        self._inner.read_into(self._names[name], start, stop, out)

    def stored(self, name: str) -> tuple[Checkpoint, str]:
        """Locate one of its tensors in the inner checkpoint."""
        return self._inner, self._names[name]

    def close(self) -> None:
        self._inner.close()


def beneath(checkpoint: Checkpoint, name: str) -> tuple[Checkpoint, str]:
    """Locate a tensor of a renaming view: the checkpoint beneath, and its name there."""
    while isinstance(checkpoint, _View):
        checkpoint, name = checkpoint.stored(name)
    return checkpoint, name


def picked(inner: Checkpoint, names: Mapping[str, str]) -> Checkpoint:
    """Selected tensors under new names; a tensor may have several names, which are then tied.

    Args:
        inner: The checkpoint to select from.
        names: New name to old name.

    Raises:
        CheckpointError: an old name does not exist.
    """
    for old in names.values():
        inner.spec(old)
    return _View(inner, names)


def renamed(inner: Checkpoint, names: Mapping[str, str] | Callable[[str], str]) -> Checkpoint:
    """The same tensors under other names.

    Args:
        inner: The checkpoint to rename.
        names: Old name to new name; names that a mapping does not list stay. Or a function of the old name.

    Raises:
        CheckpointError: a name to change does not exist, or two tensors would get the same name.
    """
    if not callable(names):
        for old in names:
            inner.spec(old)
    chosen: dict[str, str] = {}
    for old in [*inner.specs, *inner.ties]:
        new = names(old) if callable(names) else names.get(old, old)
        if new in chosen:
            raise CheckpointError(f"{inner.label}: {chosen[new]!r} and {old!r} would both be called {new!r}.")
        chosen[new] = old
    return _View(inner, chosen)


def subset(inner: Checkpoint, keep: Iterable[str] | str | re.Pattern[str]) -> Checkpoint:
    """Some of the tensors: those named, or those whose name a regular expression finds (`re.search`).

    Raises:
        CheckpointError: a name does not exist.
        SettingError: `keep` is not a regular expression.
    """
    if isinstance(keep, str | re.Pattern):
        pattern = compiled(keep) if isinstance(keep, str) else keep
        names = [name for name in [*inner.specs, *inner.ties] if pattern.search(name)]
    else:
        names = list(keep)
    for name in names:
        inner.spec(name)
    return _View(inner, {name: name for name in names})


def stripped(inner: Checkpoint, prefix: str) -> Checkpoint:
    """The same tensors without a leading `prefix` (such as `module.`) in the names that have it.

    Raises:
        CheckpointError: no name begins with it, or a tensor of the shorter name exists already.
    """
    names = [*inner.specs, *inner.ties]
    if not any(name.startswith(prefix) for name in names):
        few = ", ".join(map(repr, names[:5])) or "there are no tensors"
        raise CheckpointError(f"{inner.label}: no tensor's name begins with {prefix!r}; names are such as {few}.")
    return renamed(inner, lambda name: name.removeprefix(prefix))
