"""Run a measurement over batches, with a state from which it can be resumed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..checkpoint import SafetensorsFile
from ..errors import CannotResume, CheckpointError, OutputExists
from ..storage import locked
from ._measurement import Measurement, refuse_to_overwrite, write
from ._statistic import Statistic

SECONDS = 30.0  # of work that an interruption may lose
_KEY, _PLAIN = "polyak.key", "polyak.state"


def measure(
    statistic: Statistic, batches: Iterable[Any], *, advance: Callable[[int], None] = lambda n: None
) -> Measurement:
    """Observe batches and finish.

    Args:
        statistic: The measurement to run.
        batches: Any iterable.
        advance: Called after each batch with the number of examples observed so far.

    Raises:
        TaskError: there are no examples, or the module fails on some.
        NotFinite: outputs, inputs or gradients are not finite.
    """
    for batch in batches:
        statistic.observe(batch)
        advance(statistic.examples)
    return statistic.finish()


def measure_to(
    path: str | Path,
    statistic: Statistic,
    batches: Callable[[], Iterable[Any]],
    *,
    data: str = "",
    resume: bool = False,
    force: bool = False,
    seconds: float = SECONDS,
    advance: Callable[[int], None] = lambda n: None,
) -> Measurement:
    """Measure into a file; the state is saved next to it until the measurement is done, so that it can be resumed.

    A resumed measurement gives the same bytes as an uninterrupted one.

    Args:
        path: The file; it appears whole or not at all.
        statistic: The measurement to run.
        batches: Returns the batches, in the same order each time.
        data: Digest of the examples, which must be equal to resume.
        resume: Resume an unfinished measurement.
        force: Replace an existing file, and discard an unfinished measurement.
        seconds: Interval at which the state is saved.
        advance: Called after each batch with the number of examples observed so far.

    Raises:
        OutputExists: there is a file and not `force`, or an unfinished measurement and neither `resume` nor `force`.
        OutputBusy: another measurement is writing the file.
        CannotResume: the unfinished measurement is of other weights, data or settings, or damaged.
        TaskError, NotFinite: as for `measure`.
    """
    path = Path(path)
    refuse_to_overwrite(path, force=force)
    key = json.dumps([statistic.kind, _model(statistic), data, statistic.facts], sort_keys=True)
    state = path.with_name(f".{path.name}.state")
    with locked(path, f"another measurement is writing {path} now. Wait for it, or choose another path."):
        done = _restore(state, statistic, key, resume=resume, force=force)
        try:
            _observe_rest(statistic, batches(), done, advance, lambda: _keep(state, statistic, key), seconds)
        except BaseException:
            if statistic.examples > done:
                _keep(state, statistic, key)
            raise
        measurement = statistic.finish()
        measurement.save(path, force=force)
        state.unlink(missing_ok=True)
    return measurement


def _observe_rest(
    statistic: Statistic,
    batches: Iterable[Any],
    done: int,
    advance: Callable[[int], None],
    keep: Callable[[], None],
    seconds: float,
) -> None:
    """Observe the batches after the first `done` examples; batches are equal each time, and so are float sums."""
    passed, kept = 0, time.monotonic()
    for batch in batches:
        if passed < done:
            passed += statistic.count(batch)
            continue
        statistic.observe(batch)
        advance(statistic.examples)
        if time.monotonic() - kept >= seconds:
            keep()
            kept = time.monotonic()


def _model(statistic: Statistic) -> str:
    return statistic.model_digest(statistic.measurable())


def _keep(state: Path, statistic: Statistic, key: str) -> None:
    arrays, plain = statistic.state()
    write(state, arrays, {_KEY: key, _PLAIN: json.dumps(plain)})


def _restore(state: Path, statistic: Statistic, key: str, *, resume: bool, force: bool) -> int:
    """Restore a saved state; returns its number of examples, 0 without one."""
    if not state.exists() or force:
        state.unlink(missing_ok=True)
        return 0
    if not resume:
        raise OutputExists(
            f"there is an unfinished measurement at {state}. Continue with --resume, or start over with --force."
        )
    try:
        with SafetensorsFile(state) as file:
            if file.metadata.get(_KEY) != key:
                raise CannotResume(
                    f"the unfinished measurement at {state} is of other weights, data or "
                    "settings. Start over with --force."
                )
            statistic.restore({name: file.read(name) for name in file.specs}, json.loads(file.metadata[_PLAIN]))
    except (CheckpointError, KeyError, ValueError) as error:
        raise CannotResume(
            f"the unfinished measurement at {state} is damaged ({error}). Start over with --force."
        ) from error
    return statistic.examples
