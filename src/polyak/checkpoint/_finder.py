"""Find the tensors of a base that an adapter refers to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from ..errors import CheckpointError, UnsupportedFormat


class NotInBase(CheckpointError):
    """An adapter refers to a tensor that its base does not have."""


class Finder:
    """Finds the tensor of the base that an adapter refers to, where one of the two names has an extra prefix.

    Args:
        names: The names of the base's tensors.
        label: The adapter and its base, for errors.
        rename: The present name of a tensor that an adapter calls as an older version did (default: no change).
        unsupported: Tensors whose stored values are arranged in another way than at run time, with the reason.
    """

    def __init__(
        self,
        names: Iterable[str],
        label: str,
        rename: Callable[[str], str] = str,
        unsupported: Mapping[str, str] | None = None,
    ) -> None:
        self._names, self._label, self._rename = dict.fromkeys(names), label, rename
        self._unsupported = unsupported or {}
        self._by_suffix: dict[str, list[str]] = {}

    def lacks(self, name: str) -> bool:
        """Test whether the base has no tensor of this name."""
        return not self._candidates(name)

    def find(self, name: str) -> str:
        """The tensor of the base that an adapter calls `name`.

        Raises:
            NotInBase: there is none, or more than one.
            UnsupportedFormat: its values are stored in another arrangement.
        """
        if name in self._unsupported:
            raise UnsupportedFormat(
                f"{self._label}: {name!r} is stored in another arrangement than at run time "
                f"({self._unsupported[name]}). Merge this adapter with PEFT's merge_and_unload, and save the model."
            )
        candidates = self._candidates(name)
        if len(candidates) == 1:
            return candidates[0]
        few = ", ".join(map(repr, candidates[:5] or list(self._names)[:5]))
        problem = "could be any of" if candidates else "is not in the base, which has"
        raise NotInBase(f"{self._label}: the adapter's {name!r} {problem} {few} ... Is this the adapter's base?")

    def _candidates(self, target: str) -> list[str]:
        for name in dict.fromkeys([target, self._rename(target)]):
            if candidates := self._of_name(name):
                return candidates
        return []

    def _of_name(self, target: str) -> list[str]:
        if target in self._names:
            return [target]
        if not self._by_suffix:
            for name in self._names:
                for suffix in _suffixes(name):
                    self._by_suffix.setdefault(suffix, []).append(name)
        shorter = [suffix for suffix in _suffixes(target) if suffix in self._names and suffix.count(".")]
        return [*shorter, *self._by_suffix.get(target, [])]


def _suffixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[i:]) for i in range(1, len(parts))]
