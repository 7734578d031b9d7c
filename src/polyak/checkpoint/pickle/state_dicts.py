"""Search for the state dict in an unpickled object."""

from __future__ import annotations

from typing import Any, cast

from ...errors import CheckpointError, Remedy, UnsupportedFormat, suggestion
from .stand_ins import StridedTensor, Unreadable

_DEEPEST = 8

Tensor = StridedTensor | Unreadable
_Mapping = dict[Any, Any]
_Path = tuple[Any, Any]  # the path above (None at the top) and a key: joined, long keys would be copied at every level


def find_state_dict(saved: Any, key: str | None, where: str) -> dict[str, Tensor]:
    """The tensors of a mapping, without its counters, strings and nested mappings.

    Args:
        saved: The unpickled object.
        key: The dotted path of the mapping; "" is the outermost; None looks for the only one.
        where: Name of the file in messages.

    Raises:
        CheckpointError: no mapping holds tensors, or several do.
        UnsupportedFormat: it is the state of an optimizer.
    """
    if not isinstance(saved, dict):
        kind = "a tensor" if isinstance(saved, Tensor) else f"a {type(saved).__name__}"
        raise CheckpointError(f"{where} holds {kind}; expected a state dict: a mapping of names to tensors.")
    outermost = cast(_Mapping, saved)
    tensors = _tensors_in(_only_holder(outermost, where) if key is None else _follow(outermost, key, where))
    if not tensors:
        raise CheckpointError(f"{where} holds no tensors at key {key!r:.80}. Those that do: {_listed(outermost)}.")
    for name in tensors:
        if type(name) is not str:
            raise CheckpointError(f"{where}: tensors are named by strings; got {name!r:.80}.")
    return tensors


def _only_holder(outermost: _Mapping, where: str) -> _Mapping:
    holders = _holders(outermost)
    if not holders and any(_is_optimizer(value) for value in (outermost, *outermost.values())):
        raise UnsupportedFormat(
            f"{where} holds the state of an optimizer and no model. Name the file of the model that was saved with it."
        )
    if not holders:
        raise CheckpointError(f"{where} holds no state dict: no mapping in it holds tensors.")
    if len(holders) > 1:
        raise CheckpointError(
            f"{where} holds tensors in {len(holders)} places: {_listed(outermost)}.", remedies=[Remedy.KEY]
        )
    return holders[0][1]


def _listed(outermost: _Mapping) -> str:
    return ", ".join(_shown(path) for path, _ in _holders(outermost)[:12])


def _shown(path: _Path | None) -> str:
    """A path as it is written for `key:`, each part cut to a readable length."""
    parts: list[str] = []
    while path is not None:
        path, key = path
        parts.append(f"{key!s:.80}")
    return repr(".".join(reversed(parts)))


def _holders(root: _Mapping) -> list[tuple[_Path | None, _Mapping]]:
    """The mappings that hold tensors directly: the outermost, and those of the shallowest level below it."""
    if _is_optimizer(root):
        return []
    outermost: list[tuple[_Path | None, _Mapping]] = [(None, root)] if _tensors_in(root) else []
    level: list[tuple[_Path | None, _Mapping]] = [(None, root)]
    seen = {id(root)}
    for _ in range(_DEEPEST):
        below: list[tuple[_Path | None, _Mapping]] = []
        for path, mapping in level:
            for key, value in mapping.items():
                if isinstance(value, dict) and id(cast(object, value)) not in seen:
                    seen.add(id(cast(object, value)))
                    if _is_optimizer(cast(object, value)):
                        continue
                    below.append(((path, key), cast(_Mapping, value)))
        holders = [(path, mapping) for path, mapping in below if _tensors_in(mapping)]
        if holders or outermost:
            return outermost + holders
        level = below
    return []


def _is_optimizer(value: object) -> bool:
    """Test for the state dict of an optimizer, whose moments are no weights."""
    return isinstance(value, dict) and {"state", "param_groups"} <= value.keys()


def _tensors_in(mapping: _Mapping) -> dict[Any, Tensor]:
    return {name: value for name, value in mapping.items() if isinstance(value, Tensor)}


def _follow(mapping: _Mapping, key: str, where: str) -> _Mapping:
    if not key:
        return mapping
    parts = key.split(".")
    for taken in range(len(parts), 0, -1):  # a key of the mapping may have dots itself
        inner = mapping.get(".".join(parts[:taken]))
        if isinstance(inner, dict):
            return _follow(cast(_Mapping, inner), ".".join(parts[taken:]), where)
    names = [f"{name!s:.80}" for name, value in mapping.items() if isinstance(value, dict)]
    raise CheckpointError(f"{where} holds no mapping at key {key!r:.80}. {suggestion(parts[0], names[:200])}")
