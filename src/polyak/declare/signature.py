"""Settings read from a function's signature: the signature is the declaration."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from ..errors import DeclarationError
from .setting import In, PerModel, Setting


def settings_of(owner: str, fn: Callable[..., Any], *, positional: bool = False) -> dict[str, Setting]:
    """The settings of a function, by name: its keyword-only parameters.

    Args:
        owner: Name of the declaration in messages, such as "learner 'greedy_soup'".
        fn: The function.
        positional: Parameters that may also be given by position are settings too.

    Raises:
        DeclarationError: a parameter is not annotated with a type that a setting may have.
    """
    return {
        parameter.name: _setting(owner, parameter, hint)
        for parameter, hint in keyword_parameters(owner, fn, positional=positional).items()
    }


def keyword_parameters(owner: str, fn: Callable[..., Any], *, positional: bool = False) -> dict[inspect.Parameter, Any]:
    """The keyword-only parameters of a function with their annotations, evaluated.

    Annotations of other parameters are not evaluated: they may use names that only type checkers import.

    Raises:
        DeclarationError: an annotation cannot be evaluated.
    """
    kinds = {inspect.Parameter.KEYWORD_ONLY} | ({inspect.Parameter.POSITIONAL_OR_KEYWORD} if positional else set())
    parameters = [parameter for parameter in inspect.signature(fn).parameters.values() if parameter.kind in kinds]

    def probe() -> None: ...

    probe.__annotations__ = {
        parameter.name: parameter.annotation for parameter in parameters if parameter.annotation is not parameter.empty
    }
    try:
        hints = get_type_hints(probe, globalns=getattr(fn, "__globals__", {}), include_extras=True)
    except NameError as error:
        raise DeclarationError(
            f"{owner}: an annotation cannot be evaluated ({error}). Import what it names outside of TYPE_CHECKING."
        ) from error
    return {parameter: hints.get(parameter.name) for parameter in parameters}


def annotation_mark(hint: Any) -> Any:
    """The first piece of metadata of `Annotated[type, mark]`; None for other annotations."""
    return get_args(hint)[1] if get_origin(hint) is Annotated else None


def check_docstring(owner: str, fn: Callable[..., Any]) -> None:
    """Refuse a declaration without a docstring, which catalogues show.

    Raises:
        DeclarationError: there is none.
    """
    if not inspect.getdoc(fn):
        raise DeclarationError(f"{owner} has no docstring: add one that describes what it computes.")


def summary_of(fn: Callable[..., Any]) -> str:
    """The first line of the docstring."""
    return (inspect.getdoc(fn) or "").partition("\n")[0]


def argument_help(fn: Callable[..., Any]) -> dict[str, str]:
    """The descriptions of a function's parameters, from the section `Args:` of its docstring."""
    _, _, section = (inspect.getdoc(fn) or "").partition("\nArgs:\n")
    descriptions, name = dict[str, str](), ""
    for line in section.splitlines():
        if line and not line.startswith(" "):
            break  # the next section
        if head := re.match(r" {4}(\w+): (.*)", line):
            name, descriptions[head[1]] = head[1], head[2]
        elif name and line.strip():
            descriptions[name] += f" {line.strip()}"
    return descriptions


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
