"""Settings read from a function's signature: the signature is the declaration."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from ..errors import DeclarationError
from .setting import In, PerModel, Setting


def settings_of(owner: str, fn: Callable[..., Any]) -> dict[str, Setting]:
    """The settings of a function, by name: its keyword-only parameters.

    Args:
        owner: What messages call the declaration, such as "learner 'greedy_soup'".
        fn: The function.

    Raises:
        DeclarationError: a parameter is not annotated with a type that a setting may have.
    """
    hints = get_type_hints(fn, include_extras=True)
    return {
        parameter.name: _setting(owner, parameter, hints.get(parameter.name))
        for parameter in inspect.signature(fn).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    }


def annotation_mark(hint: Any) -> Any:
    """The first piece of metadata of `Annotated[type, mark]`; None for other annotations."""
    return get_args(hint)[1] if get_origin(hint) is Annotated else None


def check_docstring(owner: str, fn: Callable[..., Any]) -> None:
    """Refuse a declaration without a docstring, which catalogues show.

    Raises:
        DeclarationError: there is none.
    """
    if not inspect.getdoc(fn):
        raise DeclarationError(f"{owner} has no docstring: say in one what it computes.")


def summary_of(fn: Callable[..., Any]) -> str:
    """The first line of the docstring."""
    return (inspect.getdoc(fn) or "").partition("\n")[0]


def _setting(owner: str, parameter: inspect.Parameter, hint: Any) -> Setting:
    mark = annotation_mark(hint)
    bare = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    if isinstance(mark, PerModel):
        return Setting(parameter.name, float, mark.default, per_model=True, range=mark.range)
    if get_origin(bare) is Literal:
        return Setting(parameter.name, get_args(bare), parameter.default)
    if bare in (float, int, bool, str):
        return Setting(parameter.name, bare, parameter.default, range=mark if isinstance(mark, In) else None)
    raise DeclarationError(
        f"{owner}: annotate the setting {parameter.name!r} as float, int, bool, Pattern, Literal[...] or "
        "Annotated[Array, PerModel(...)]."
    )
