"""Keys of recipes that can be read independently: each is declared once, at the dataclass field that holds it.

Reading, writing and the JSON schema derive from the declaration. Keys that depend on one another (method, models,
settings, rules, slices, modules) are read in `native` and written in `writing`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, field, fields
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeAlias, cast

from ..errors import RecipeError
from ..reading import Place, Table, each, integer, is_list, is_mapping, is_small, mapping, number, one_of, text

DEEPEST = 64  # nesting depth of `provenance`
Scope: TypeAlias = Literal["merge", "recipe", "shared"]


class Key(NamedTuple):
    """Reader and writer of a field.

    Attributes:
        read: Converts data, at its place in the file, to the value of the field.
        write: Converts the value to data that `read` accepts.
        scope: `merge`: slices and modules have their own; `recipe`: only the outermost recipe has it; `shared`: the
            outermost recipe has it, and slices and modules inherit it.
    """

    read: Callable[[object, Place], Any]
    write: Callable[[Any], Any]
    scope: Scope


def plain(value: object) -> Any:
    """Copy data to plain Python; NumPy numbers become Python numbers.

    Raises:
        RecipeError: it is something that a recipe file cannot hold, such as NaN.
    """
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real) and math.isfinite(value):
        return float(value)
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [plain(inner) for inner in cast("Sequence[Any]", value)]
    raise RecipeError(f"a recipe cannot hold {value!r}, only text, finite numbers, true, false, lists and mappings.")


def file_key(
    read: Callable[[object, Place], Any],
    default: Any = None,
    *,
    write: Callable[[Any], Any] = plain,
    scope: Scope = "recipe",
) -> Any:
    """Declare a dataclass field as an optional key of recipe files."""
    metadata = {"key": Key(read, write, scope)}
    if isinstance(default, Mapping):
        return field(default_factory=lambda: cast("Mapping[str, Any]", default), metadata=metadata)
    return field(default=default, metadata=metadata)


def declared(cls: type, *scopes: Scope) -> dict[str, Field[Any]]:
    """The fields of a dataclass that are declared as keys, of the given scopes (default: all)."""
    keys = {key.name: key for key in fields(cls) if "key" in key.metadata}
    return {name: key for name, key in keys.items() if not scopes or key.metadata["key"].scope in scopes}


def read_keys(cls: type, table: Table, *scopes: Scope) -> dict[str, Any]:
    """Read the declared keys of a dataclass from a table.

    Raises:
        RecipeError: a value is of the wrong kind.
    """
    return {
        name: table.take(name, key.metadata["key"].read, _default(key)) for name, key in declared(cls, *scopes).items()
    }


def write_keys(value: Any) -> dict[str, Any]:
    """Write the declared keys of a dataclass that differ from their defaults, as data."""
    keys = {name: key for name, key in declared(type(value)).items() if getattr(value, name) != _default(key)}
    return {name: key.metadata["key"].write(getattr(value, name)) for name, key in keys.items()}


def _default(key: Field[Any]) -> Any:
    return key.default_factory() if callable(key.default_factory) else key.default


def layer_range(value: object, place: Place) -> tuple[int, int]:
    """Read a half-open range of one or more layers."""
    bounds = source_layers(value, place)
    if bounds[0] == bounds[1]:
        raise place.expected("[first, stop), with first below stop", value)
    return bounds


def source_layers(value: object, place: Place) -> tuple[int, int]:
    """Read a half-open range of layers of a model; an empty one takes only tensors outside the layers."""
    bounds = each(integer)(value, place) if is_list(value) else ()
    if len(bounds) != 2 or bounds[0] > bounds[1]:
        raise place.expected("[first, stop), with first at most stop", value)
    return bounds[0], bounds[1]


def dtype_name(value: object, place: Place) -> str:
    """Read the name of a dtype in which a result can be written."""
    from ..checkpoint import DTYPE_NAMES

    return one_of(list(DTYPE_NAMES))(value, place)


def positive(value: object, place: Place) -> int:
    """Read an integer of at least 1."""
    if (count := integer(value, place)) < 1:
        raise place.expected("at least 1", value)
    return count


def share(value: object, place: Place) -> float:
    """Read a number in (0, 1]."""
    if not 0 < (fraction := number(value, place)) <= 1:
        raise place.expected("above 0 and at most 1", value)
    return fraction


def plain_mapping(value: object, place: Place) -> Mapping[str, Any]:
    """Read any plain data, as a copy, so that later changes to the original do not reach the recipe."""
    return MappingProxyType(cast("dict[str, Any]", _copy(mapping(value, place), place, DEEPEST)))


def _copy(value: object, place: Place, depth: int) -> object:
    if depth == 0:
        raise place.error(f"is nested more than {DEEPEST} levels deep")
    if is_mapping(value):
        items = mapping(value, place).items()
        return {text(name, place): _copy(inner, place / name, depth - 1) for name, inner in items}
    if is_list(value):
        return [_copy(inner, place[i], depth - 1) for i, inner in enumerate(value)]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return value if isinstance(value, int) and is_small(value) else number(value, place)
    return value if value == "" else text(value, place)
