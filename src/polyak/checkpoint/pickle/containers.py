"""Containers that a pickle fills, and the values in them that are not needed."""

from __future__ import annotations

from typing import Any, cast


class Opaque:
    """A value that is not needed: every operation on it is ignored."""

    __slots__ = ()

    def build(self, args: tuple[Any, ...]) -> object:
        return self


def count_items(items: Any, depth: int) -> int:
    """Number of items of containers and, to a depth, of those in them: a call may copy them, or look at each."""
    inner = items.values() if isinstance(items, dict) else cast("list[Any]", items)
    containers = [item for item in cast("list[Any]", inner) if isinstance(item, dict | list | tuple)] if depth else []
    return len(items) + sum(count_items(item, depth - 1) for item in containers)


def as_list(target: Any) -> list[Any]:
    """A list that items are added to; those of an opaque value are dropped."""
    if isinstance(target, Opaque):
        return []
    if type(target) is not list:
        raise TypeError(f"items are added to a {type(target).__name__}")
    return cast("list[Any]", target)


def set_items(target: Any, items: list[Any]) -> None:
    """Set keys and values, one after the other, in a mapping."""
    if len(items) % 2:
        raise ValueError("a key has no value")
    if isinstance(target, Opaque):
        return
    if type(target) is not dict:
        raise TypeError(f"items are set in a {type(target).__name__}")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if type(key) is str or type(key) is int:  # other keys name no tensor, and can take arbitrarily long to hash
            target[key] = value
