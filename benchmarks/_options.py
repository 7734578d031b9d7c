"""Options of the benchmarks that merge models of one shape, each several times."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from _bench import HERE

SHAPES = ("500M", "60M", "3B", "tiny")


def parser_for(script: str, description: str | None, *, runs: int | None, shape: str) -> argparse.ArgumentParser:
    """A parser with the options that these scripts share.

    Args:
        script: The name of the script.
        description: Its docstring.
        runs: Default number of counted runs; None if it depends on other options.
        shape: Default shape of the models.
    """
    parser = argparse.ArgumentParser(prog=script, description=description, allow_abbrev=False)
    default = "" if runs is None else f" (default: {runs})"
    parser.add_argument("--runs", type=int, default=runs, help=f"counted runs of each row{default}")
    parser.add_argument("--only", metavar="PATTERN", default="", help="only rows that match this regular expression")
    parser.add_argument("--shape", default=shape, help=f"of the models: {', '.join(SHAPES)} (default: {shape})")
    parser.add_argument("--work", type=Path, default=HERE / ".work", help="folder of inputs and outputs")
    return parser


def parsed(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """The options; ends the process if the number of runs is not at least 1."""
    options = parser.parse_args(arguments)
    if options.runs is not None and options.runs < 1:
        parser.error(f"--runs must be at least 1; got {options.runs}")
    return options
