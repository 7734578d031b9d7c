"""The command line.  One file a command; whatever is heavy is imported when a command runs."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from ..errors import PolyakError

if TYPE_CHECKING:
    from ._app import app as app

_PATIENCE = 50_000  # objects made before Python looks for cycles: imports make many and leave none


def commands() -> list[str]:
    """The names of all commands."""
    return [found.name for found in iter_modules(__path__) if not found.name.startswith("_")]


def main() -> None:
    """Run the command line; errors of ours are one message and an exit code, never a traceback."""
    gc.set_threshold(_PATIENCE)
    try:
        _with(_asked(sys.argv[1:]))()
    except PolyakError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _asked(arguments: Sequence[str]) -> Sequence[str]:
    """The command that is called; all, if none is or there is none of that name: help and errors speak of all."""
    known = commands()
    return list(arguments[:1]) if arguments and arguments[0] in known else known


def _with(names: Sequence[str]) -> Any:
    """The application with some commands; each that it has is made ready whatever is called, which takes time."""
    for name in names:
        import_module(f"{__name__}.{name}")
    return import_module(f"{__name__}._app").app


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _with(commands())
