"""How close to copying files is a merge?  README.md beside this file says how that is measured."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import _facts
import _rows
from _bench import HERE, Bench
from _machine import machine
from _mergekit import Mergekit, measure
from _options import parsed, parser_for
from _process import Failed
from _results import Line, Results, mergekit_file, refresh

SHAPE = "500M"
SMALL = "60M"
QUIET = 0.5  # load average from which times are of no use
PATHS = ("--work", "--results")


def main() -> None:
    options = _options(sys.argv[1:])
    options.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.work, prefix="run-") as scratch:
        try:
            failed = _measure(options, Path(scratch))
        except Failed as error:
            sys.exit(f"error: {error}")
    if failed:
        sys.exit(f"{failed} could not be measured")


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = parser_for("merge_speed.py", __doc__, runs=None, shape=SHAPE)
    parser.add_argument("--quick", action="store_true", help="60M, 3 runs")
    parser.add_argument("--large", action="store_true", help="also 3B end to end: 32 GB of disk")
    parser.add_argument("--environment", action="store_true", help="also the size of an installation")
    parser.add_argument("--mergekit", type=Path, metavar="PYTHON_BIN", help="measure that interpreter's mergekit")
    parser.add_argument("--results", type=Path, help="file of results (default: results.json here, if 500M)")
    options = parsed(parser, arguments)
    if options.quick:
        options.shape = SMALL
    options.runs = options.runs or (3 if options.quick else 5)
    # Other shapes must not stand in for the one that the pages show.
    options.results = options.results or (HERE if options.shape == SHAPE else options.work) / "results.json"
    return options


def _measure(options: argparse.Namespace, scratch: Path) -> int:
    small = options.shape if options.shape == "tiny" else SMALL
    bench = Bench(options.work.resolve(), scratch.resolve(), options.runs, options.shape, small, options.large)
    bench.family(bench.shape)
    here, wanted = machine(options.work), re.compile(options.only, re.IGNORECASE).search
    print(", ".join(f"{name}: {value}" for name, value in here.items()), flush=True)
    if os.getloadavg()[0] > QUIET:
        print(f"warning: other work is running (load average {os.getloadavg()[0]:.2g})", file=sys.stderr)
    if options.mergekit:
        theirs = (work for work in _rows.theirs(bench) if wanted(work[0]))
        failed = measure(Mergekit(options.mergekit), bench, mergekit_file(options.results), here, theirs)
        refresh(options.results)
        return failed
    results = Results(options.results, here, afresh=not options.only)
    results.ran(_command(sys.argv[1:]))
    return results.measure(line for line in _lines(bench, options) if wanted(line.name))


def _lines(bench: Bench, options: argparse.Namespace) -> list[Line]:
    found = [*_rows.lines(bench), *_facts.lines(bench)]
    return [*found, *_facts.environment_lines(bench)] if options.environment else found


def _command(arguments: Sequence[str]) -> str:
    """What was called, without the paths of this machine."""
    kept = ["python", "benchmarks/merge_speed.py"]
    words = iter(arguments)
    for word in words:
        if word in PATHS:
            next(words)
        elif not word.startswith(tuple(f"{name}=" for name in PATHS)):
            kept.append(shlex.quote(word))
    return " ".join(kept)


if __name__ == "__main__":
    main()
