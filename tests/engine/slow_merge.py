"""A merge slow enough to be killed in the middle: run as a script by the tests."""

from __future__ import annotations

import sys
import time

from polyak import api
from polyak.cli import main
from polyak.engine import files, merging, spans


def slow_down(seconds: float) -> None:
    """Small pieces, each journalled at once and taking a while."""
    spans.PIECE = 1024
    files.SYNC_NBYTES = 1
    merge = merging.Merger.__call__

    def slowly(self, span, space):
        time.sleep(seconds)
        merge(self, span, space)

    merging.Merger.__call__ = slowly


if __name__ == "__main__":
    assert api
    slow_down(float(sys.argv.pop(1)))
    print("ready", flush=True)
    main()
