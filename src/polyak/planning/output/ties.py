"""Ties of the result: what its config says of its head and its embedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...checkpoint import HEAD, Checkpoint, TensorSpec, declared, ties_embeddings, with_ties
from ...methods import Role
from .._plan import nested_merge
from ..compatibility import Opened
from ..slices import Parts
from ..steps import Step

_COMPARED = 2**20  # entries that are compared at a time; tensors that differ do so among the first


def with_result_ties(
    config: Mapping[str, Any], donor: Opened, divided: Parts, written: Sequence[Step]
) -> tuple[Mapping[str, Any], list[str]]:
    """The config with the ties of the result, and notes on tensors that are tied in some models or in all.

    Args:
        config: The config of the result.
        donor: The model that it comes from.
        divided: The parts of the merge.
        written: The steps of the result's own tensors.
    """
    notes, untied = list[str](), False
    for step in written:
        whole = divided.parts[step.part].whole
        if tying := [model.name for model in whole if model.ties(step.out.name)]:
            untied = True
            notes.append(
                f"{step.out.name!r} is tied to the embedding in {', '.join(tying)} but not in all models: the result "
                "stores it."
            )
    if apart := _parted(donor, divided, written):
        untied = True
        notes.append(f"{apart!r} differs from the embedding that config.json ties it to: the result is untied.")
    if tied := _tied_in_all(divided):
        notes.append(f"tied in every model, and tied in the result: {', '.join(tied)}.")
    if config and untied:
        return with_ties(config, tied=False), notes
    return (with_ties(config, tied=True) if config and _loses_its_head(donor, divided, written) else config), notes


def _tied_in_all(divided: Parts) -> list[str]:
    tied = {name for part in divided.parts for name in part.tied}
    for part in divided.parts:
        everyone = [*([part.base] if part.base else []), *part.models]
        names = {name for model in everyone for name in model.checkpoint.ties}
        tied |= {name for name in names if all(model.ties(name) for model in everyone)}
    return sorted(tied)


def _parted(donor: Opened, divided: Parts, written: Sequence[Step]) -> str | None:
    """A tensor of the result that differs from the one that the donor's config ties it to, or None."""
    steps = {step.out.name: step for step in written}
    for alias, holder in declared(steps, donor.config).items():
        if alias in steps and HEAD.search(alias) and _differ(steps[alias], steps[holder], divided):
            return alias
    return None


def _differ(step: Step, other: Step, divided: Parts) -> bool:
    """True unless two tensors are the same in every model, and merged alike without random numbers."""
    is_random = step.method is not None and Role.UNIFORM in step.method.inputs.values()
    if step.part != other.part or is_random or step.method is not other.method or step.settings != other.settings:
        return True
    pairs: list[tuple[Checkpoint, TensorSpec, TensorSpec]] = []
    for model in divided.parts[step.part].whole:
        first, second = model.find(step.out.name), model.find(other.out.name)
        if first is None or second is None or first.name == second.name:
            continue
        if nested_merge(model.checkpoint) is not None or (first.dtype, first.shape) != (second.dtype, second.shape):
            return True
        pairs.append((model.checkpoint, first, second))
    return _contents_differ(pairs)


def _contents_differ(pairs: Sequence[tuple[Checkpoint, TensorSpec, TensorSpec]]) -> bool:
    """Compare the two tensors of each pair; the beginnings of all pairs come first, since most tensors differ there."""
    for start in range(0, max((first.numel for _, first, _ in pairs), default=0), _COMPARED):
        for checkpoint, first, second in pairs:
            stop = min(start + _COMPARED, first.numel)
            if start < stop and not _are_equal(checkpoint, first, second, start, stop):
                return True
    return False


def _are_equal(checkpoint: Checkpoint, first: TensorSpec, second: TensorSpec, start: int, stop: int) -> bool:
    return np.array_equal(*(_bytes(checkpoint, spec, start, stop) for spec in (first, second)))


def _bytes(checkpoint: Checkpoint, spec: TensorSpec, start: int, stop: int) -> Any:
    out = np.empty((stop - start) * spec.dtype.itemsize, np.uint8)
    checkpoint.read_into(spec.name, start, stop, out)
    return out


def _loses_its_head(donor: Opened, divided: Parts, written: Sequence[Step]) -> bool:
    """Test whether the donor has its own head while that of the result is tied."""
    last = divided.parts[-1].whole[0]
    tied = not any(HEAD.search(step.out.name) for step in written) and ties_embeddings(last.config)
    return tied and not ties_embeddings(donor.config)
