"""Digests of what a fixed set of merges writes, by the polyak that is imported.

    PYTHONPATH=some/tree/src python tests/replay/replay.py OUT.json

Two trees whose JSON is the same write the same bytes.  Inputs are made here, from fixed seeds; of polyak only the
command line, `merge` and `merge_state_dicts` are used, so that the script runs against older and newer trees.
Each case maps every file that was written to its SHA-256.  In files that hold it, the temporary folder is replaced by
`<root>`; in polyak.json and README.md, polyak's version by `<version>`; and in polyak.json the digest of a recipe that
has the folder in it, by `<digest>`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"  # before NumPy is imported: BLAS sums in another order with more threads
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # where a script finds the package `tests`

import numpy as np  # noqa: E402

from tests.replay.case import Case  # noqa: E402
from tests.replay.command_cases import command_cases  # noqa: E402
from tests.replay.digests import digests_of, digests_of_tensors, together  # noqa: E402
from tests.replay.inputs import Inputs  # noqa: E402
from tests.replay.mergekit_cases import mergekit_cases  # noqa: E402
from tests.replay.method_cases import method_cases  # noqa: E402
from tests.replay.model_cases import model_cases  # noqa: E402

Digests = dict[str, dict[str, str]]
COMMITTED = Path(__file__).with_name("digests.json")


def all_cases() -> list[Case]:
    """Every case, in the order in which they run."""
    return [*method_cases(), *model_cases(), *command_cases(), *mergekit_cases()]


def replayed(
    cases: Iterable[Case], root: Path, failed: Callable[[str, Exception], None], timed: dict[str, float] | None = None
) -> Digests:
    """The digests of what each case writes; relative paths are those below `root`, an empty folder."""
    import polyak

    inputs, found, before = Inputs(root), {}, Path.cwd()
    os.chdir(root)
    try:
        for case in cases:
            began = time.perf_counter()
            try:
                found[case.name] = _digests(case, inputs, polyak.__version__)
            except Exception as error:
                failed(case.name, error)
            if timed is not None:
                timed[case.name] = time.perf_counter() - began
    finally:
        os.chdir(before)
    return found


def _digests(case: Case, inputs: Inputs, version: str) -> dict[str, str]:
    out = inputs.root / "out"
    for leftover in (out, inputs.root / ".out.polyak"):
        shutil.rmtree(leftover, ignore_errors=True)
    tensors = case.run(inputs, out)
    return digests_of(out, inputs.root, version) if tensors is None else digests_of_tensors(tensors)


def main() -> int:
    """Write the digests; 1 if a case failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path, help="the JSON file to write")
    parser.add_argument("--only", default="", help="a regular expression that names of cases must match")
    parser.add_argument(
        "--commit", action="store_true", help=f"also rewrite {COMMITTED.name}, which the tests compare with"
    )
    parser.add_argument("--slowest", type=int, default=0, help="print as many cases and their seconds")
    asked = parser.parse_args()
    import polyak

    failures: dict[str, Exception] = {}
    seconds: dict[str, float] = {}
    cases = [case for case in all_cases() if re.search(asked.only, case.name)]
    memory = (
        "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    )  # each merge syncs its files, which disks take long for
    with tempfile.TemporaryDirectory(prefix="polyak-replay-", dir=memory) as folder:
        found = replayed(cases, Path(folder).resolve(), failures.__setitem__, seconds)
    about = {"polyak": str(Path(polyak.__file__).parent), "version": polyak.__version__, "numpy": np.__version__}
    _write(asked.out, {"about": about, "failed": sorted(failures), "cases": found})
    if asked.commit and not failures and not asked.only:
        portable = {case.name: together(found[case.name]) for case in cases if case.portable}
        _write(COMMITTED, {"portable": portable, "elsewhere": [case.name for case in cases if not case.portable]})
    for name in sorted(seconds, key=lambda one: -seconds[one])[: asked.slowest]:
        print(f"{seconds[name]:6.2f} s  {name}")
    for name, error in failures.items():
        print(f"failed: {name}: {type(error).__name__}: {error}", file=sys.stderr)
    print(f"{len(found)} cases in {sum(seconds.values()):.1f} s, {len(failures)} failed: {asked.out}")
    return 1 if failures else 0


def _write(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
