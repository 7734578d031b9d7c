"""Evaluate a step for a range of its entries: call the method's twin or definition on loaded tiles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, cast

import numpy as np

from ..kernels.combine import add
from ..kernels.philox import Stream, stream
from ..methods import Law, Method, Role, _apply
from ..methods._passes import Array, call, moved, parameters
from ..planning import Step
from .sources import Loaded, Sources, Tap, Tile, Workspace


def is_elementwise(step: Step) -> bool:
    """Whether ranges of entries can be merged apart; other methods get one whole tensor at a time."""
    return step.method is None or Law.ELEMENTWISE in step.method.laws


@dataclass
class Prepared:
    """A step with what its tiles share: settings as arrays, and the answers of its first passes."""

    step: Step
    seed: int
    answers: dict[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        method = self.step.method
        per_model = [n for n, s in method.settings.items() if s.per_model] if method else []
        self.flat: dict[str, Any] = {
            name: np.array(value, np.float32) if name in per_model else value
            for name, value in self.step.settings.items()
        }
        self.columns = {name: v[:, None] if name in per_model else v for name, v in self.flat.items()}
        self.models = tuple(read.model for read in self.step.reads)
        self.stream = stream(self.seed, self.models, self.step.out.name) if method and method.is_random else None

    @property
    def method(self) -> Method:
        assert self.step.method is not None
        return self.step.method

    @property
    def elementwise(self) -> bool:
        return is_elementwise(self.step)

    def answers_for(self, start: int, stop: int) -> dict[str, Any]:
        """The first passes' answers as entries [start, stop) see them."""
        return {name: moved(answer, start, stop) for name, answer in self.answers.items()}

    def chance(self, start: int) -> Stream | None:
        return Stream(self.stream.keys, start) if self.stream else None


_STACKS = frozenset({Role.TENSORS, Role.DELTAS, Role.BASE})


@cache
def wanted(method: Method, functions: tuple[Callable[..., Any], ...] = ()) -> frozenset[Role]:
    """The spaces in which a method, and the functions of its first passes, want their inputs."""
    names = {name for fn in functions for name in parameters(fn)}
    by_name = {"tensors": Role.TENSORS, "deltas": Role.DELTAS, "base": Role.BASE}
    roles = {role for role in method.inputs.values() if isinstance(role, Role)}
    return frozenset(roles & _STACKS) | {role for name, role in by_name.items() if name in names}


def sources_of(prepared: Prepared, stop: int, space: Workspace, tap: Tap | None = None) -> Sources:
    """The sources of a step up to entry `stop`, in the spaces that its method asks for."""
    return Sources(prepared.step, stop, space, wanted(prepared.method), tap)


def evaluate(
    prepared: Prepared,
    start: int,
    stop: int,
    space: Workspace,
    sources: Sources | None = None,
    look: Callable[[Loaded], None] | None = None,
) -> Tile:
    """The merged entries [start, stop) in float32: (n,). They live in `space` until the next call.

    Args:
        prepared: The step.
        start: First entry.
        stop: One past the last entry.
        space: Buffers.
        sources: The step's sources, when more of them will be asked for.
        look: Shown what is loaded, before the method may overwrite it.
    """
    method = prepared.method
    loaded = (sources or sources_of(prepared, stop, space)).load(start, stop)
    if look is not None:
        look(loaded)
    out = space.floats("out", stop - start)
    if not prepared.elementwise:
        out[:] = _whole(prepared, loaded).reshape(-1)
        return out
    supply = inputs(prepared, loaded, start, stop)
    if method.twin is not None:
        call(method.twin, {**supply, **prepared.flat, "out": out})
        if method.returns is Role.DELTA:
            add(out, loaded.base)
        return out
    if Role.CHANCE in method.inputs.values():
        supply |= _drawn(prepared, start, stop)
    stack = loaded.tensors if loaded.tensors is not None else loaded.deltas
    result = call(method.fn, {**supply, **prepared.columns})
    out[:] = _apply.finish(method, result, loaded.base, cast("Array", stack))
    return out


def _whole(prepared: Prepared, loaded: Loaded) -> Any:
    """Merge a whole tensor by a definition that is not elementwise."""
    step, shape = prepared.step, prepared.step.out.shape or (1,)
    tensors = loaded.tensors if loaded.tensors is not None else cast("Tile", loaded.deltas) + cast("Tile", loaded.base)
    chance = prepared.stream.numbers(step.out.numel).reshape(-1, *shape) if prepared.stream else None
    base = None if loaded.base is None else loaded.base.reshape(shape)
    return _apply.evaluate(prepared.method, tensors.reshape(-1, *shape), base, chance, step.settings)


def inputs(prepared: Prepared, loaded: Loaded, start: int, stop: int) -> dict[str, Any]:
    """The method's positional arguments by name, for the entries [start, stop)."""
    supply = prepared.answers_for(start, stop)
    for name, role in prepared.method.inputs.items():
        match role:
            case Role.TENSORS:
                supply[name] = loaded.tensors
            case Role.DELTAS:
                supply[name] = loaded.deltas
            case Role.BASE:
                supply[name] = loaded.base
            case Role.CHANCE:
                supply[name] = prepared.chance(start)
            case _:
                pass
    return supply


def _drawn(prepared: Prepared, start: int, stop: int) -> dict[str, Any]:
    """Random numbers as an array, for definitions: twins draw their own from the stream."""
    chance = prepared.chance(start)
    assert chance is not None
    names = [name for name, role in prepared.method.inputs.items() if role is Role.CHANCE]
    return {name: chance.numbers(stop - start) for name in names}


def twin_supply(prepared: Prepared, loaded: Loaded, start: int, stop: int) -> dict[str, Any]:
    """Everything that a fused function of a first pass may name, in the forms of twins."""
    known = {"tensors": loaded.tensors, "deltas": loaded.deltas, "base": loaded.base}
    return known | inputs(prepared, loaded, start, stop) | prepared.flat


def definition_supply(prepared: Prepared, loaded: Loaded, start: int, stop: int) -> dict[str, Any]:
    """Everything that a function of a first pass may name, as arrays of definitions."""
    supply = {"tensors": loaded.tensors, "deltas": loaded.deltas, "base": loaded.base}
    supply |= inputs(prepared, loaded, start, stop) | prepared.columns
    return supply | (_drawn(prepared, start, stop) if prepared.stream else {})
