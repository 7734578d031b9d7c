"""The command line.  One file per command; whatever is heavy is imported when a command runs."""

from __future__ import annotations

import gc
import io
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, TextIO, cast

from ..display import printable
from ..errors import PolyakError

if TYPE_CHECKING:
    from ._app import app as app

_GC_THRESHOLD = 200_000  # objects made before Python looks for cycles: a small merge makes 70,000 and leaves none
_USAGE, _INTERRUPTED = 2, 130


def commands() -> list[str]:
    """The names of all commands."""
    return [module.name for module in iter_modules(__path__) if not module.name.startswith("_")]


def main() -> None:
    """Run the command line: every error is one message (or one JSON object, under `--json`) and an exit code."""
    gc.set_threshold(_GC_THRESHOLD)
    _open_closed_streams()
    _accept_any_text()
    if not sys.warnoptions:
        warnings.showwarning = partial(_show_warning, sys.argv[1:])
    sys.exit(_run(sys.argv[1:]))


def _open_closed_streams() -> None:
    """Send a closed standard stream to nowhere: the first file that is opened would take its place, and its output."""
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(fd)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != fd:
                os.dup2(nowhere, fd)
                os.close(nowhere)
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: PTH123, SIM115


class _Printable:
    """Standard output as a terminal may be given it: names in strangers' files cannot send it commands."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(printable(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _show_warning(
    arguments: Sequence[str], message: Warning | str, category: type[Warning], filename: str, *_: object
) -> None:
    """Print warnings of the user's own modules on one line; those of libraries are for people who program with them.

    torch blames its caller for some of its own, and marks them.  Python's option -W (or PYTHONWARNINGS) shows all.
    """
    text = " ".join(str(message).split())
    parts = Path(filename).parts
    is_library = "Triggered internally" in text or "site-packages" in parts or "dist-packages" in parts
    if is_library or issubclass(category, (DeprecationWarning, FutureWarning)) or {"-q", "--quiet"} & {*arguments}:
        return
    if "--json" in arguments:
        import json

        print(json.dumps({"event": "warning", "kind": category.__name__, "message": text}), file=sys.stderr)
    else:
        print(f"warning: {text}", file=sys.stderr)


def _accept_any_text() -> None:
    """Read standard input as UTF-8, and escape what standard output cannot encode, such as odd file names."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
        if sys.stdout.isatty():
            sys.stdout = cast("TextIO", _Printable(sys.stdout))


def _run(arguments: Sequence[str]) -> int:
    try:
        code = _call(arguments)
        if sys.stdout is not None:  # it may be closed
            sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output, such as `head`, has enough
        _discard_output()
        return 1
    except OSError as error:
        reason = f"{error.filename or 'standard output'}: {error.strerror}." if error.strerror else str(error)
        code = _fail(type(error).__name__, reason, 1, arguments)
        _discard_output()
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "start new thread" not in str(error):
            raise
        remedy = "Allow more, or use fewer --workers and, where the command has it, --memory."
        code = _fail(
            "MemoryError", f"the system gives no more memory or threads ({error!s:.100}). {remedy}", 1, arguments
        )
    return code


def _discard_output() -> None:
    """Send what is still buffered to nowhere: Python would try to write it again as it exits."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for output in (1, 2):
        os.dup2(nowhere, output)


def _call(arguments: Sequence[str]) -> int:
    application = _with(_needed(arguments))
    import typer

    usage_error: type[Exception] = typer.BadParameter.__bases__[0]  # click's, wherever this typer keeps it
    try:
        code = application(prog_name="polyak", standalone_mode=False) or 0
    except PolyakError as error:
        return _fail(type(error).__name__, str(error), error.exit_code, arguments)
    except usage_error as error:
        return _explain_usage(error, arguments)
    except typer.Abort:
        code = _INTERRUPTED
    return code if code != _INTERRUPTED else _fail("Interrupted", "interrupted.", code, arguments)


def _explain_usage(error: Any, arguments: Sequence[str]) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error.format_message(), file=sys.stderr)
        return _USAGE
    if error.ctx is not None and "--json" not in arguments:
        print(error.ctx.get_usage(), file=sys.stderr)
    return _fail("UsageError", error.format_message(), _USAGE, arguments)


def _fail(kind: str, message: str, exit_code: int, arguments: Sequence[str]) -> int:
    """Print an error as text or, where the command was asked for JSON, as one object on a line of its own."""
    if "--json" in arguments:
        import json

        error = {"event": "error", "kind": kind, "message": message, "exit_code": exit_code}
        text = json.dumps(error)
    else:
        text = printable(message if exit_code == _INTERRUPTED else f"error: {message}")
    with suppress(OSError):  # a full or closed standard error: the exit code tells
        print(text, file=sys.stderr, flush=True)
    return exit_code


def _needed(arguments: Sequence[str]) -> Sequence[str]:
    """The command that is called; none to tell the version; else all of them, since help and errors list them."""
    if arguments and arguments[0] == "--version":
        return ()
    names = commands()
    return list(arguments[:1]) if arguments and arguments[0] in names else names


def _with(names: Sequence[str]) -> Any:
    """The application with some commands; importing every one of them takes time."""
    for name in names:
        import_module(f"{__name__}.{name}")
    return import_module(f"{__name__}._app").app


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _with(commands())
