"""Independent jobs at once, in processes of their own: half of the machine idles when one process has small batches."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def each(work: Callable[[T], R], items: Sequence[T], jobs: int) -> Iterator[R]:
    """Results in the order of the items.

    Args:
        work: What is done with each; where there are several jobs, it and what it returns are pickled.
        items: All of them.
        jobs: Processes; 1 is this one.
    """
    if jobs == 1:
        yield from map(work, items)
        return
    threads = max(1, len(os.sched_getaffinity(0)) // jobs)
    with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=quieten, initargs=(threads,)) as crew:
        yield from crew.map(work, items)


def quieten(threads: int) -> None:
    """Let this process compute with so many threads, and speak of errors only."""
    import torch
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(threads)
