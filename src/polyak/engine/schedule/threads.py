"""Run groups of tasks on threads.

Workers take tasks from the earliest group that has some, and open the next group only when none has: so they
stay busy across the barriers between a group's stages, few groups are open at once, and the disk is read in order.
"""

from __future__ import annotations

import gc
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager

from ...linalg import one_thread
from ..step.buffers import Buffers
from .stages import Group, Task


class _Open:
    """A group under way."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.tasks: deque[Task] = deque()
        self.running = 1  # whoever fetches the first stage


class Scheduler:
    """Runs groups until all are finished, one fails, or it is told to stop.

    Args:
        groups: The groups to run, in order.
        workers: Threads.
        advance: Told how many bytes each task has read.
        buffers: Makes the buffers of a thread.
    """

    def __init__(
        self,
        groups: Iterable[Group],
        workers: int,
        advance: Callable[[int], None] = lambda nbytes: None,
        buffers: Callable[[], Buffers] = Buffers,
    ) -> None:
        self._advance, self._buffers = advance, buffers
        self._waiting = deque(groups)
        self._open: list[_Open] = []
        self._workers = workers
        self._changed = threading.Condition()
        self._failure: BaseException | None = None
        self._stopped = False

    def run(self, tick: Callable[[], None] = lambda: None) -> None:
        """Run everything; the calling thread only watches, so that it can be interrupted.

        Args:
            tick: Called a few times a second.

        Raises:
            BaseException: the first one that a task raised.
        """
        with _no_collections(), one_thread():  # the workers are threads already
            self._run(tick)

    def _run(self, tick: Callable[[], None]) -> None:
        threads = [threading.Thread(target=self._work, name=f"polyak-{i}", daemon=True) for i in range(self._workers)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(0.1)
                    tick()
        except BaseException:
            self._stop(None)
            for thread in threads:
                thread.join()
            raise
        if self._failure is not None:
            raise self._failure

    def _stop(self, failure: BaseException | None) -> None:
        with self._changed:
            self._stopped = True
            self._failure = self._failure or failure
            self._changed.notify_all()

    def _work(self) -> None:
        buffers = self._buffers()
        try:
            while (job := self._next()) is not None:
                entry, task = job
                if task is not None:
                    task(buffers)
                    self._advance(buffers.taken())
                self._finished(entry)
        except BaseException as error:
            self._stop(error)

    def _next(self) -> tuple[_Open, Task | None] | None:
        with self._changed:
            while not self._stopped:
                for entry in self._open:
                    if entry.tasks:
                        entry.running += 1
                        return entry, entry.tasks.popleft()
                if self._waiting and len(self._open) < self._workers + 2:
                    entry = _Open(self._waiting.popleft())
                    self._open.append(entry)
                    return entry, None
                if not self._open:
                    return None
                self._changed.wait()
        return None

    def _finished(self, entry: _Open) -> None:
        """Count a task as done; the last of a stage fetches the next stage, outside the lock."""
        with self._changed:
            if entry.tasks or entry.running > 1:
                entry.running -= 1
                return
        tasks = entry.group.next_stage()
        with self._changed:
            entry.tasks.extend(tasks)
            entry.running -= 1
            if not tasks:
                self._open.remove(entry)
            self._changed.notify_all()


@contextmanager
def _no_collections() -> Generator[None]:
    """Spare the workers Python's collector of cycles: they make none, and it walks every object there is."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
