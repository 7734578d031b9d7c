"""Batches for the steps of learners."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ..errors import TaskError

if TYPE_CHECKING:
    from ..tasks import Batch, Task


def drawn(tasks: Sequence[Task], split: str, *, batch_size: int, seed: int) -> Iterator[list[list[Batch]]]:
    """Yield one batch per task, without end; each epoch has its own order.

    Raises:
        TaskError: a task has no such split, or it is empty.
    """
    streams = [_endless(task, split, batch_size, seed) for task in tasks]
    while True:
        yield [[next(stream)] for stream in streams]


def fixed(tasks: Sequence[Task], split: str, *, examples: int | None, batch_size: int, seed: int) -> list[list[Batch]]:
    """A fixed random choice of examples per task, in batches.

    Raises:
        TaskError: a task has no such split, or it is empty.
    """
    per_task = [list(t.batches(split, limit=examples, batch_size=batch_size, seed=seed)) for t in tasks]
    for task, batches in zip(tasks, per_task, strict=True):
        if not batches:
            raise TaskError(f"task {task.name!r}: the split {split!r} has no examples.")
    return per_task


def _endless(task: Task, split: str, batch_size: int, seed: int) -> Iterator[Batch]:
    epoch = 0
    while True:
        empty = True
        for batch in task.batches(split, batch_size=batch_size, seed=seed + epoch):
            empty = False
            yield batch
        if empty:
            raise TaskError(f"task {task.name!r}: the split {split!r} has no examples.")
        epoch += 1
