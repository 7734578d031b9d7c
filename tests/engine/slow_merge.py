"""A merge slow enough to be killed in the middle: run as a script by the tests."""

from __future__ import annotations

import signal
import sys
import time

from polyak import api
from polyak.cli import main
from polyak.engine import tuning
from polyak.engine.step import merge as merging


def slow_down(seconds: float) -> None:
    """Small pieces, each journalled at once and taking a while."""
    tuning.CHUNK = 1024
    tuning.SYNC_NBYTES = 1
    for name in ("_one", "_together"):
        setattr(merging.Merger, name, slowed(getattr(merging.Merger, name), seconds))


def slowed(merge, seconds: float):
    def slowly(*arguments):
        time.sleep(seconds)
        return merge(*arguments)

    return slowly


if __name__ == "__main__":
    assert api
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell runs behind it ignores interrupts
    slow_down(float(sys.argv.pop(1)))
    print("ready", flush=True)
    main()
