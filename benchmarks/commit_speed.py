"""Is any merge slower than at an older commit?  Both sources run in turn, under the same Python, on the same files."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import method_speed
from _bench import BYTECODE, HERE, Bench, Recipe
from _options import parsed, parser_for
from _process import Failed, Run, in_turn, run

ROOT = HERE.parent
ALLOWED = 1.03  # CPU time of a merge, new per old
SHAPE = "60M"


def main() -> None:
    options = _options(sys.argv[1:])
    options.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.work, prefix="run-") as scratch:
        bench = Bench(options.work.resolve(), Path(scratch).resolve(), options.runs, options.shape, SHAPE)
        try:
            slower = _measure(bench, options)
        except Failed as error:
            sys.exit(f"error: {error}")
    if slower:
        sys.exit(f"more than {ALLOWED:g} times the CPU time: {', '.join(slower)}")


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = parser_for("commit_speed.py", __doc__, runs=5, shape=SHAPE)
    parser.add_argument("base", help="older commit, or a folder with its source")
    parser.add_argument(
        "--installed", type=Path, help="folder of the new code, such as an unpacked wheel (default: src)"
    )
    parser.add_argument("--json", type=Path, help="file that the results are added to")
    return parsed(parser, arguments)


def _measure(bench: Bench, options: argparse.Namespace) -> list[str]:
    """Names of the merges that are slower than allowed."""
    old, new = _source(options.base, bench.work), options.installed or ROOT / "src"
    matches = re.compile(options.only, re.IGNORECASE).search
    print(f"{'merge':44} CPU: old s   new s  ratio   wall: old s   new s  ratio", flush=True)
    rows: dict[str, dict[str, Any]] = {}
    for work in method_speed.works():
        if matches(work.name):
            recipe = method_speed.recipe_for(work, bench)
            before, after = in_turn([_merging(bench, recipe, source) for source in (old, new)], bench.runs)
            rows[work.name] = _row(before, after)
            print(_line(work.name, rows[work.name]), flush=True)
    if options.json:
        _add(options.json, options.base, rows)
    return [name for name, row in rows.items() if row["cpu_ratio"] > ALLOWED]


def _source(base: str, work: Path) -> Path:
    """The source folder of a commit; unpacked, with its compiled kernels, unless it is there."""
    if (Path(base) / "polyak").is_dir():
        return Path(base).resolve()
    command = ["git", "-C", str(ROOT), "rev-parse", "--verify", "--quiet", f"{base}^{{commit}}"]
    revision = subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip()
    if not revision:
        raise Failed(f"{base} is neither a commit nor a folder with a package `polyak`")
    folder = work / revision[:12]
    if not folder.is_dir():
        subprocess.run(["git", "clone", "--quiet", "--no-checkout", ROOT, folder], check=True)
        subprocess.run(["git", "-C", folder, "checkout", "--quiet", "--detach", revision], check=True)
    return folder / "src"


def _merging(bench: Bench, recipe: Recipe, source: Path) -> Callable[[], Run]:
    file, out = bench.written(recipe), bench.scratch / "out"
    command = [sys.executable, "-m", "polyak", "merge", file, out, "--quiet"]

    def work() -> Run:
        try:
            return run(command, env={**BYTECODE, "PYTHONPATH": str(source)})
        finally:
            shutil.rmtree(out, ignore_errors=True)

    return work


def _row(before: Sequence[Run], after: Sequence[Run]) -> dict[str, Any]:
    """Medians, and the median of the ratios of pairs."""
    pairs = list(zip(before, after, strict=True))
    return {
        "old_cpu_s": _rounded(median(old.cpu_seconds for old in before)),
        "new_cpu_s": _rounded(median(new.cpu_seconds for new in after)),
        "cpu_ratio": _rounded(median(new.cpu_seconds / old.cpu_seconds for old, new in pairs)),
        "old_s": _rounded(median(old.seconds for old in before)),
        "new_s": _rounded(median(new.seconds for new in after)),
        "ratio": _rounded(median(new.seconds / old.seconds for old, new in pairs)),
        "runs": len(pairs),
    }


def _line(name: str, row: dict[str, Any]) -> str:
    cpu = f"{row['old_cpu_s']:10.2f} {row['new_cpu_s']:7.2f} {row['cpu_ratio']:6.3f}"
    return f"{name:44} {cpu}   {row['old_s']:11.2f} {row['new_s']:7.2f} {row['ratio']:6.3f}"


def _add(file: Path, base: str, rows: dict[str, dict[str, Any]]) -> None:
    """Keep what the file says of merges that were not measured now."""
    old = json.loads(file.read_text()) if file.exists() else {}
    kept = old["rows"] if old.get("base") == base else {}
    file.write_text(json.dumps({"base": base, "rows": {**kept, **rows}}, indent=1) + "\n")


def _rounded(number: float) -> float:
    return float(f"{number:.4g}")


if __name__ == "__main__":
    main()
