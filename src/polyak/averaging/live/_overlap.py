"""Updates on another thread, which end before an optimizer changes the weights again."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._averages import Averages


class Overlap:
    """One thread that works while the next forward and backward passes run.

    Every optimizer of torch waits for it before a step, by a hook that goes away with the averages.

    Args of the constructor:
        averages: Those that are updated; the hook calls their `wait`.
    """

    def __init__(self, averages: Averages) -> None:
        from torch.optim.optimizer import register_optimizer_step_pre_hook

        self._thread = ThreadPoolExecutor(1, thread_name_prefix="polyak-updates")
        self._running: Future[int | None] | None = None
        alive = weakref.ref(averages)

        def wait(*_: Any) -> None:
            if (present := alive()) is not None:
                present.wait()

        hook = register_optimizer_step_pre_hook(wait)
        weakref.finalize(averages, hook.remove)

    @property
    def is_running(self) -> bool:
        """True between `start` and `result`."""
        return self._running is not None

    def start(self, work: Callable[[], int | None]) -> None:
        """Begin some work, on the stream of the accelerator that this thread uses."""
        self._running = self._thread.submit(_on_this_stream(work))

    def result(self) -> int | None:
        """Wait for the work, and return what it returned."""
        running, self._running = self._running, None
        return running.result() if running is not None else None


def _on_this_stream(work: Callable[[], int | None]) -> Callable[[], int | None]:
    """The same work; kernels that it launches come after those that this thread has launched."""
    import torch

    stream: Any = torch.cuda.current_stream() if torch.cuda.is_available() else None

    def run() -> int | None:
        with torch.no_grad(), torch.cuda.stream(stream):  # None changes nothing
            return work()

    return run
