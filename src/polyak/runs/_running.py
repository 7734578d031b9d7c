"""Carry a run out: stage after stage, whatever is not done yet."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from ..display import JsonLines
from ..errors import PolyakError
from ..events import Advanced, Finished, Notice, Started, UnitFinished, UnitStarted, Watcher, ignore, tee
from ..storage import write_whole, writing
from ._desk import Desk
from ._executor import Call, Emit, Executor, Outcome, UnitFailed
from ._folder import LOG, UNITS, RunFolder
from ._local import LocalProcesses
from ._units import About, Results, Stage, Unit, check_stages

REPORT = "report.html"
_LOG_EVERY = 10.0  # seconds between two lines of the log on the progress of units


def run(
    stages: Sequence[Stage],
    out: str | Path,
    *,
    about: About,
    resume: bool = False,
    executor: Executor | None = None,
    watcher: Watcher = ignore,
    unit: str = "steps",
    report: Callable[[Results, Mapping[str, str]], str] | None = None,
) -> Results:
    """Carry out a run, or what is left of it.

    Args:
        stages: The stages, in order.
        out: The folder of the run.
        about: Its identity.
        resume: Continue a run that is there; without one, begin.
        executor: Does the units (default: `LocalProcesses(1)`).
        watcher: Receives events.
        unit: Unit of the units' `steps`.
        report: Makes the HTML page from the results, and from the errors of units that failed.

    Returns:
        The results of all units that are done; those that failed are missing.

    Raises:
        OutputExists: something is in the folder, and `resume` is not given.
        OutputBusy: another process is running there.
        CannotResume: the run there is another one.
        PolyakError: a unit that may not fail did, or every unit of a stage.
    """
    check_stages(stages)
    with RunFolder.opened(out, about, resume=resume) as folder, writing(folder.out):
        with (folder.out / LOG).open("a", encoding="utf-8") as log, executor or LocalProcesses() as workers:
            watch = tee(watcher, JsonLines(log, _LOG_EVERY, dated=True))
            watch(Started("running", sum(each.steps for stage in stages for each in stage.units), unit))
            try:
                _Running(folder, workers, watch, log).all(stages)
            finally:
                watch(Finished("running"))
        folder.gather_metrics([each.name for stage in stages for each in stage.units])
        if report is not None:
            write_whole(folder.out / REPORT, report(folder.results, folder.failed))
        return dict(folder.results)


class _Running:
    def __init__(self, folder: RunFolder, executor: Executor, watch: Watcher, log: TextIO) -> None:
        self._folder, self._executor, self._watch, self._log = folder, executor, watch, log

    def all(self, stages: Sequence[Stage]) -> None:
        for note in self._folder.notes:
            self._watch(Notice(f"note: {note}."))
        units = [unit for stage in stages for unit in stage.units]
        done = [unit for unit in units if unit.name in self._folder.results or unit.name in self._folder.failed]
        if done:
            self._watch(Notice(f"{len(done)} of {len(units)} units were done before."))
            self._watch(Advanced(sum(unit.steps for unit in done)))
        for i, stage in enumerate(stages):
            self._stage(stage, {unit.name for earlier in stages[:i] for unit in earlier.units})

    def _stage(self, stage: Stage, earlier: Collection[str]) -> None:
        known = {*self._folder.results, *self._folder.failed}
        units = {unit.name: unit for unit in stage.units if unit.name not in known}
        calls = [self._call(unit, earlier) for unit in units.values()]
        for outcome in self._executor.map(calls, self._watch) if calls else ():
            self._settle(units[outcome.name], outcome, stage)
        failed = [unit.name for unit in stage.units if unit.name in self._folder.failed]
        if failed and len(stage.units) - len(failed) < (stage.needs or 0):
            raise UnitFailed(f"too few units are left: {failed[0]} failed ({self._folder.failed[failed[0]]})")
        self._folder.remove(stage.removes)

    def _call(self, unit: Unit, earlier: Collection[str]) -> Call:
        """The unit with what it may know: a unit that is done again must not see what came later."""
        own = self._folder.unfinished(unit.name, keep=unit.continues)
        results, failed = (
            {name: value for name, value in known.items() if name in earlier}
            for known in (self._folder.results, self._folder.failed)
        )
        return Call(unit.name, _do, (unit, own, self._folder.out / UNITS, results, failed))

    def _settle(self, unit: Unit, outcome: Outcome, stage: Stage) -> None:
        error = outcome.error
        if error is None:
            self._folder.finish(unit.name, outcome.value, outcome.seconds)
            metrics = outcome.value.get(unit.shown, {})
            self._watch(UnitFinished(unit.name, "done", outcome.seconds, metrics))
            return
        self._watch(UnitFinished(unit.name, "failed", outcome.seconds, error=str(error)))
        self._log.write(outcome.detail and f"{json.dumps({'traceback': outcome.detail})}\n")
        if stage.needs is None or not isinstance(error, UnitFailed):
            raise _named(unit.name, error)
        self._folder.fail(unit.name, str(error))


def _named(unit: str, error: PolyakError) -> PolyakError:
    """The error with the name of its unit in front, of the same kind where that can be made."""
    try:
        return type(error)(f"{unit}: {error}")
    except TypeError:
        return PolyakError(f"{unit}: {error}")


def _do(emit: Emit, unit: Unit, folder: Path, units: Path, results: Results, failed: Mapping[str, str]) -> Any:
    emit(UnitStarted(unit.name, unit.steps))
    with writing(folder):
        return dict(unit.work(Desk(unit.name, folder, units, results, failed, emit), unit.task))
