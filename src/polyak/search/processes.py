"""A search by several processes of this machine."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any

from .. import recipe as recipes
from ..errors import PolyakError, SettingError
from .job import Search
from .results import Tried, as_tried
from .studies import counted

if TYPE_CHECKING:
    from optuna.study import Study

Work = Callable[[Search, int, float | None, int], None]  # job, share of the candidates, end, number of the process
PAUSE = 0.2  # seconds between two polls of the study


def work_together(
    request: Search, trials: int, ends: float | None, jobs: int, study: Study, progress: Callable[[Tried], None] | None,
    work: Work,
) -> None:  # fmt: skip
    """Divide the candidates among processes, which call `work`, and wait for all of them.

    Raises:
        SettingError: the tasks are not given as a function, which other processes need to build them.
        PolyakError: a process ended before its share was done.
    """
    if not callable(request.tasks):
        raise SettingError("several jobs need `tasks` as a function that builds them, since each process has its own.")
    shares = [trials // jobs + (i < trials % jobs) for i in range(jobs)]
    seconds = None if ends is None else ends - time.monotonic()
    workers = _processes(request, [share for share in shares if share > 0], seconds, work)
    for worker in workers:
        worker.start()
    try:
        _watch(workers, study, progress)
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()
    if any(worker.exitcode for worker in workers):
        codes = ", ".join(str(worker.exitcode) for worker in workers)
        raise PolyakError(f"a process of the search ended early (exit codes {codes}); the study is kept: run again.")


def _processes(request: Search, shares: Sequence[int], seconds: float | None, work: Work) -> list[BaseProcess]:
    """One process per share of the candidates, not started yet."""
    context = multiprocessing.get_context("spawn")  # the threads of torch and of the kernels do not survive a fork
    # The recipe goes as text: its read-only mappings cannot be sent.
    sent = recipes.dump(request.recipe), str(request.recipe.folder)
    rest = {field.name: getattr(request, field.name) for field in fields(request) if field.name != "recipe"}
    return [
        context.Process(target=_work, args=(work, sent, rest, share, seconds, i), daemon=True)
        for i, share in enumerate(shares)
    ]


def _watch(workers: Sequence[BaseProcess], study: Study, progress: Callable[[Tried], None] | None) -> None:
    told: set[int] = {trial.number for trial in counted(study)}
    while True:
        alive = any(worker.is_alive() for worker in workers)
        for trial in counted(study):
            if trial.number not in told:
                told.add(trial.number)
                if progress is not None:
                    progress(as_tried(trial))
        if not alive:
            return
        time.sleep(PAUSE)


def _work(
    work: Work, sent: tuple[str, str], rest: Mapping[str, Any], share: int, seconds: float | None, i: int
) -> None:
    import sys

    try:
        request = Search(recipes.loads(*sent), **rest)
        work(request, share, None if seconds is None else time.monotonic() + seconds, i)
    except PolyakError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
