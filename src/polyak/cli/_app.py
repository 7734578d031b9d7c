"""The application to which each command adds itself."""

from __future__ import annotations

import typer

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
