"""The state of an averager: counters and copies, as a dictionary or as a file, restored bit for bit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ...checkpoint import SafetensorsFile
from ...errors import CannotResume, CheckpointError
from ...modules import read_tensor, write_tensors
from ._kept import COUNTERS, Kept
from ._sharded import rank

if TYPE_CHECKING:
    from torch import Tensor

    from ._averages import Averages
    from ._best import Tracker

_KEY, _FORMAT = "polyak.averager", 1
_OF_THE_BEST = ("score", "step", "updates")


def state_of(averages: Averages) -> dict[str, Any]:
    """Everything but the weights of the model: plain data, and under `tensors` the copies themselves, not clones."""
    averages.settle()
    tensors = {
        f"{name}/{slot}/{tensor}": copy
        for name, kept in averages.kept.items()
        for slot, copies in kept.copies.items()
        for tensor, copy in zip(averages.selection.shapes, copies, strict=True)
    }
    best = {
        f"{key}/0/{tensor}": copy
        for key, tracker in averages.trackers.items()
        for tensor, copy in zip(averages.selection.shapes, tracker.tensors, strict=False)  # none before a metric
    }
    return {**_header(averages), "tensors": tensors | best}


def restore(averages: Averages, state: Mapping[str, Any]) -> None:
    """Put a state back; nothing has changed if it does not fit.

    Raises:
        CannotResume: it is that of other averages, options, or another model.
    """
    _refuse_another(averages, state)
    weights = averages.selection.tensors()
    tensors: Mapping[str, Tensor] = state["tensors"]
    restored = {name: _restored(averages, name, kept, tensors, weights) for name, kept in averages.kept.items()}
    best = {key: _restored(averages, key, each.kept, tensors, weights) for key, each in averages.trackers.items()}
    averages.forget()
    for name, kept in averages.kept.items():
        kept.copies = restored[name]
        for counter in COUNTERS:
            setattr(kept, counter, state["averages"][name][counter])
    for key, tracker in averages.trackers.items():
        tracker.tensors = best[key].get(0, [])
        for counter in _OF_THE_BEST:
            setattr(tracker, counter, state["best"][key][counter])
    averages.steps, averages.skipped = state["steps"], state["skipped"]


def write_state(averages: Averages, path: Path) -> None:
    """Write the state as safetensors, atomically; copies that are the same in all processes are written by the first.

    Raises:
        OutputError: the file cannot be written.
    """
    state = state_of(averages)
    tensors = state.pop("tensors")
    if writes(averages):
        write_tensors(path_of(averages, path), tensors, {_KEY: json.dumps(state)})


def read_state(averages: Averages, path: Path) -> None:
    """Put the state in a file back.

    Raises:
        CheckpointError: there is no such file, or it is damaged.
        CannotResume: it is that of other averages, options, or another model.
    """
    with SafetensorsFile(path_of(averages, path)) as file:
        state = _read_header(file)
        _refuse_another(averages, state)
        restore(averages, {**state, "tensors": {name: read_tensor(file, name) for name in file.specs}})


def writes(averages: Averages) -> bool:
    """True if this process writes state files: each one if the parameters are sharded, otherwise the first."""
    return averages.selection.is_sharded or rank()[0] == 0


def path_of(averages: Averages, path: Path) -> Path:
    """The file of this process: NAME-0-of-2.safetensors where the parameters are sharded."""
    number, count = rank()
    return path.with_stem(f"{path.stem}-{number}-of-{count}") if averages.selection.is_sharded else path


def read_facts(file: SafetensorsFile) -> dict[str, Any]:
    """The counters and settings in a state file.

    Raises:
        CheckpointError: it is not one.
    """
    return _read_header(file)


def _header(averages: Averages) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "every": averages.every,
        "start": averages.start,
        "steps": averages.steps,
        "skipped": averages.skipped,
        "averages": {name: _facts(kept) for name, kept in averages.kept.items()},
        "best": {key: _best(tracker) for key, tracker in averages.trackers.items()},
        "shapes": {name: list(shape) for name, shape in averages.selection.shapes.items()},
    }


def _facts(kept: Kept) -> dict[str, Any]:
    counters = {counter: getattr(kept, counter) for counter in COUNTERS}
    return {"kind": kept.average.kind, "settings": dict(kept.average.settings), **counters}


def _best(tracker: Tracker) -> dict[str, Any]:
    counters = {counter: getattr(tracker, counter) for counter in _OF_THE_BEST}
    return {"average": tracker.best.average, "metric": tracker.best.metric, "is_higher": tracker.is_higher, **counters}


def _read_header(file: SafetensorsFile) -> dict[str, Any]:
    try:
        state: Any = json.loads(file.metadata[_KEY])
    except (KeyError, ValueError):
        raise CheckpointError(f"{file.label} is not a state of an averager: its metadata lack {_KEY!r}.") from None
    if not isinstance(state, dict) or cast("dict[str, Any]", state).get("format") != _FORMAT:
        raise CheckpointError(f"{file.label} holds a state of an averager in an unknown format.")
    return cast("dict[str, Any]", state)


def _refuse_another(averages: Averages, state: Mapping[str, Any]) -> None:
    own = _header(averages)
    missing = [key for key in own if key not in state]
    if missing:
        raise CannotResume(f"this is not a state of an averager: it lacks {', '.join(missing)}.")
    for key in ("format", "every", "start"):
        _compare(f"`{key}`", state[key], own[key])
    _compare("the names of the averages", sorted(state["averages"]), sorted(own["averages"]))
    for name, facts in own["averages"].items():
        for key in ("kind", "settings"):
            _compare(f"the {key} of the average {name!r}", state["averages"][name][key], facts[key])
    _compare("the names of the best averages", sorted(state["best"]), sorted(own["best"]))
    for name, facts in own["best"].items():
        for key in ("average", "metric", "is_higher"):
            _compare(f"the {key} of {name!r}", state["best"][name][key], facts[key])
    _compare("the number of averaged tensors", len(state["shapes"]), len(own["shapes"]))
    for name, shape in own["shapes"].items():
        _compare(f"the shape of {name!r}", state["shapes"].get(name), shape)


def _compare(what: str, saved: Any, own: Any) -> None:
    if saved != own:
        raise CannotResume(
            f"this state belongs to another averager: {what} differs, {saved!r} in the state and {own!r} here. Make "
            "the Averager as it was when the state was saved, or start without it."
        )


def _restored(
    averages: Averages, name: str, kept: Kept, tensors: Mapping[str, Tensor], weights: list[Tensor]
) -> dict[int, list[Tensor]]:
    prefix = f"{name}/"
    slots = sorted({int(key.removeprefix(prefix).split("/")[0]) for key in tensors if key.startswith(prefix)})
    copies = dict[int, Any]()
    for slot in slots:
        copies[slot] = []
        for tensor, weight in zip(averages.selection.shapes, weights, strict=True):
            saved = tensors.get(f"{prefix}{slot}/{tensor}")
            if saved is None:
                raise CannotResume(f"the state lacks copy {slot} of {tensor!r} of the average {name!r}.")
            where = f"{tensor!r} of the average {name!r}"
            _compare(f"the dtype of {where}", str(saved.dtype), str(kept.dtype_of(weight)))
            _compare(f"the local shape of {where}", list(saved.shape), list(weight.shape))
            copies[slot].append(saved.detach().to(kept.device_of(weight), copy=True))
    return copies
