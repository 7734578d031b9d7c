"""The command line.  One file a command; whatever is heavy is imported when a command runs."""

from __future__ import annotations

import sys
from importlib import import_module
from pkgutil import iter_modules

import typer

from ..errors import PolyakError

app = typer.Typer(
    name="polyak",
    help="Turn many sets of neural-network weights into one better model.",
    epilog="Exit codes: 0 done; 2 usage; 3 recipe; 4 input; 5 output; 6 verification; 7 task; 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def polyak() -> None:
    """Turn many sets of neural-network weights into one better model."""


for _found in iter_modules(__path__):
    if not _found.name.startswith("_"):
        import_module(f"{__name__}.{_found.name}")


def main() -> None:
    """Run the command line; errors of ours are one message and an exit code, never a traceback."""
    try:
        app()
    except PolyakError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
