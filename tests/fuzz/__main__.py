"""A campaign against everything that reads what strangers write.

    python -m tests.fuzz [SECONDS] [--seed N] [--only NAME ...]

Each kind of file of `targets.py` is mutated, byte by byte or by its structure, and read as a command would read it, up
to the merge.  The campaign ends with status 1, and keeps the input, if one raises anything but a PolyakError, takes
longer than `SLOWEST_SECONDS` of CPU time, or if the process grows beyond `LARGEST_KIB`.
"""

from __future__ import annotations

import argparse
import faulthandler
import random
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path

from polyak.errors import PolyakError

from .mutations import mutated, mutated_json
from .targets import Target, made

SLOWEST_SECONDS, HANGING_SECONDS = 5.0, 120
LARGEST_KIB = 2 << 20


def check(name: str, target: Target, data: bytes, folder: Path) -> bool:
    """Tell whether an input is accepted; keep it and end if it breaks a promise."""
    path = folder / target.file
    path.write_bytes(data)
    Path("fuzz-current").write_bytes(data)  # what is left if the process is killed
    faulthandler.dump_traceback_later(HANGING_SECONDS, exit=True)
    began = time.process_time()
    try:
        target.read(path)
        accepted = True
    except PolyakError as error:
        accepted = False
        if not str(error):
            raise
    finally:
        path.write_bytes(target.seeds[0])
    seconds = time.process_time() - began
    if seconds > SLOWEST_SECONDS or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > LARGEST_KIB:
        raise RuntimeError(f"{name} took {seconds:.1f} s of CPU time or too much memory")
    return accepted


def campaign(seconds: float, seed: int, only: list[str], folder: Path) -> None:
    targets = {name: target for name, target in made(folder).items() if not only or name in only}
    runs, accepted = dict.fromkeys(targets, 0), dict.fromkeys(targets, 0)
    for name, target in targets.items():
        if not any(check(name, target, data, folder) for data in target.seeds):
            sys.exit(f"{name}: none of the examples is valid")
    # Of its own for each kind: a longer campaign of the same seed has the inputs of a shorter one, and more.
    chances = {name: random.Random(f"{seed} {name}") for name in targets}
    end, spent = time.monotonic() + seconds, dict.fromkeys(targets, 0.0)
    while time.monotonic() < end:
        name = min(spent, key=lambda each: spent[each])  # equal time for each kind, so that quick ones run more often
        target, chance, began = targets[name], chances[name], time.monotonic()
        by_structure = target.is_json and chance.random() < 0.7
        data = mutated_json(chance.choice(target.seeds), chance) if by_structure else mutated(target.seeds, chance)
        try:
            accepted[name] += check(name, target, data, folder)
        except BaseException:
            print(f"{name}: the input in fuzz-current broke a promise: {data[:2000]!r}", file=sys.stderr)
            raise
        runs[name] += 1
        spent[name] += time.monotonic() - began
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"{sum(runs.values())} inputs in {seconds:g} s (seed {seed}), {rss} MiB at most; accepted:")
    print(", ".join(f"{name} {accepted[name]} of {runs[name]}" for name in targets))
    Path("fuzz-current").unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description="Fuzz everything that reads what strangers write.")
    parser.add_argument("seconds", nargs="?", type=float, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=[])
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        campaign(options.seconds, options.seed, options.only, Path(folder))


if __name__ == "__main__":
    main()
