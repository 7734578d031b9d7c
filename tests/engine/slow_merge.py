"""A merge slow enough to be killed in the middle: run as a script by the tests.

    python slow_merge.py SECONDS PIECES ARGUMENTS...

Each piece takes SECONDS, and after PIECES of them the merge stands still, so that a kill that comes late, on a busy
machine, still meets it in the middle.
"""

from __future__ import annotations

import itertools
import signal
import sys
import threading
import time

from polyak import api
from polyak.cli import main
from polyak.engine import tuning
from polyak.engine.step import merge as merging


def slow_down(seconds: float, pieces: float) -> None:
    """Small pieces, each journalled at once and taking a while."""
    tuning.CHUNK = 1024
    tuning.SYNC_NBYTES = 1
    begun = itertools.count()
    for name in ("_one", "_together"):
        setattr(merging.Merger, name, slowed(getattr(merging.Merger, name), seconds, pieces, begun))


def slowed(merge, seconds: float, pieces: float, begun: itertools.count):
    def slowly(*arguments):
        if next(begun) >= pieces:
            threading.Event().wait()
        time.sleep(seconds)
        return merge(*arguments)

    return slowly


if __name__ == "__main__":
    assert api
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell runs behind it ignores interrupts
    slow_down(float(sys.argv.pop(1)), float(sys.argv.pop(1)))
    print("ready", flush=True)
    main()
