"""Run a measurement over batches, so that it can be interrupted and go on later."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..checkpoint import SafetensorsFile
from ..errors import CannotResume, CheckpointError, OutputExists
from ..storage import locked
from ._api import Statistic
from ._measurement import Measurement, refuse_to_overwrite, write

SECONDS = 30.0  # of work that an interruption may cost
_KEY, _PLAIN = "polyak.key", "polyak.state"


def measure(
    statistic: Statistic, batches: Iterable[Any], *, advance: Callable[[int], None] = lambda n: None
) -> Measurement:
    """Observe batches and finish.

    Args:
        statistic: What to measure.
        batches: Any iterable.
        advance: Told after each batch how many examples have been observed.

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
    """Measure into a file; what was observed is kept beside it until it is done, so that `resume` goes on from there.

    A resumed measurement gives the same bytes as one that was not interrupted.

    Args:
        path: The file; it appears whole or not at all.
        statistic: What to measure.
        batches: Returns the batches, in the same order each time.
        data: What tells these examples from others: a digest; part of what a resumption must agree with.
        resume: Go on with an unfinished measurement.
        force: Replace what is there, and throw away unfinished work.
        seconds: How often the state is kept.
        advance: Told after each batch how many examples have been observed.

    Raises:
        OutputExists: there is a file, or an unfinished measurement, and neither was allowed for.
        OutputBusy: another measurement writes there.
        CannotResume: the unfinished measurement is of other weights, other data, or measured otherwise.
        TaskError, NotFinite: as for `measure`.
    """
    path = Path(path)
    refuse_to_overwrite(path, force=force)
    key = json.dumps([statistic.kind, _model(statistic), data, statistic.facts], sort_keys=True)
    state = path.with_name(f".{path.name}.state")
    with locked(path, f"another measurement is writing {path} now. Wait for it, or choose another place."):
        done = _take_up(state, statistic, key, resume=resume, force=force)
        try:
            _observe_rest(statistic, batches(), done, advance, lambda: _keep(state, statistic, key), seconds)
        except BaseException:
            if statistic.examples > done:
                _keep(state, statistic, key)
            raise
        found = statistic.finish()
        found.save(path, force=force)
        state.unlink(missing_ok=True)
    return found


def _observe_rest(
    statistic: Statistic,
    batches: Iterable[Any],
    done: int,
    advance: Callable[[int], None],
    keep: Callable[[], None],
    seconds: float,
) -> None:
    """Pass over what was observed already; batches are cut alike each time, so sums are the same sums."""
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


def _take_up(state: Path, statistic: Statistic, key: str, *, resume: bool, force: bool) -> int:
    """Go on from a state, if that is wanted; how many examples it has."""
    if not state.exists() or force:
        state.unlink(missing_ok=True)
        return 0
    if not resume:
        raise OutputExists(
            f"an unfinished measurement lies at {state}. Go on with --resume, or start over with --force."
        )
    try:
        with SafetensorsFile(state) as file:
            if file.metadata.get(_KEY) != key:
                raise CannotResume(
                    f"the unfinished measurement at {state} is of other weights, other data, or was measured "
                    "otherwise. Start over with --force."
                )
            statistic.restore({name: file.read(name) for name in file.specs}, json.loads(file.metadata[_PLAIN]))
    except (CheckpointError, KeyError, ValueError) as error:
        raise CannotResume(
            f"the unfinished measurement at {state} is damaged ({error}). Start over with --force."
        ) from error
    return statistic.examples
