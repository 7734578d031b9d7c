"""Keys of a file read from a function's signature: each keyword-only parameter is a key, its annotation the reader."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from ..errors import DeclarationError
from ..reading import Read, Table, boolean, each, integer, number, one_of, text
from .setting import REQUIRED
from .signature import keyword_parameters

_SCALARS: Mapping[Any, tuple[Read[Any], str]] = {
    str: (text, "text"),
    int: (integer, "integer"),
    float: (number, "number"),
    bool: (boolean, "true or false"),
}


@dataclass(frozen=True)
class Key:
    """A key that a file may have.

    Attributes:
        name: The key.
        read: Converts a value, at its place in the file, to the function's argument.
        values: A description of the values that it may have.
        default: The value if the file has no such key; `REQUIRED` if the key is required.
    """

    name: str
    read: Read[Any]
    values: str
    default: Any


def keys_of(owner: str, fn: Callable[..., Any]) -> dict[str, Key]:
    """The keys that a function takes, by name.

    Annotations are str, int, float, bool, Literal[...], tuple[T, ...], any of these `| None`, and
    `Annotated[T, reader]`, where `reader` takes the value and its `polyak.reading.Place`.

    Args:
        owner: Name of the declaration in messages, such as "task kind 'retrieval'".
        fn: The function.

    Raises:
        DeclarationError: a parameter has another annotation.
    """
    keys = dict[str, Key]()
    for parameter, hint in keyword_parameters(owner, fn).items():
        reader = _reader(hint)
        if reader is None:
            raise DeclarationError(
                f"{owner}: annotate the key {parameter.name!r} as str, int, float, bool, Literal[...], "
                "tuple[..., ...], one of these | None, or Annotated[..., reader]."
            )
        keys[parameter.name] = Key(parameter.name, *reader, parameter.default)
    return keys


def read_keys(keys: Mapping[str, Key], table: Table) -> dict[str, Any]:
    """The values of keys in a table; defaults where it lacks them.

    Raises:
        RecipeError: a required key is missing, or a value is of the wrong kind.
    """
    return {
        name: table.take(name, key.read) if key.default is REQUIRED else table.take(name, key.read, key.default)
        for name, key in keys.items()
    }


def _reader(hint: Any) -> tuple[Read[Any], str] | None:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        inner = _reader(arguments[0])
        return arguments[1], inner[1] if inner else "text"
    if origin is Literal:
        return one_of(arguments), ", ".join(f"`{word}`" for word in arguments)
    if origin in (Union, UnionType):
        kinds = [kind for kind in arguments if kind is not NoneType]
        return _reader(kinds[0]) if len(kinds) == 1 else None
    if origin is tuple:
        inner = _reader(arguments[0])
        return None if inner is None else (each(inner[0]), f"list of {inner[1]}")
    return _SCALARS.get(hint)
