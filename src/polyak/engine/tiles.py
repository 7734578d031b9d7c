"""Evaluate a step for a range of its entries: read, widen, call the method's twin or definition."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..checkpoint._api import Bytes
from ..errors import NotFinite
from ..kernels.combine import add, subtract
from ..kernels.convert import decode
from ..kernels.philox import Stream, stream
from ..methods import Law, Method, Role
from ..methods import _apply
from ..methods._passes import Array, call, moved, parameters
from ..planning import Read, Step

Tile = NDArray[np.float32]
Tap = Callable[[int, Bytes], None]  # called with the number of a read and the bytes it delivered

TILE_NBYTES = 1_300_000  # the tiles of all models and the result share a second-level cache


def tile_length(step: Step) -> int:
    """How many entries to merge at a time: as many as the cache holds for every source, within reason."""
    return max(8 * 1024, min(64 * 1024, TILE_NBYTES // (4 * (len(step.reads) + 2)) & ~1023))


def is_elementwise(step: Step) -> bool:
    """Whether ranges of entries can be merged apart; other methods get one whole tensor at a time."""
    return step.method is None or Law.ELEMENTWISE in step.method.laws


class Workspace:
    """The buffers of one worker, grown to the largest tile that it has met.

    Attributes:
        nbytes_read: Bytes that were read through it since they were last asked for.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, Bytes] = {}
        self.nbytes_read = 0

    def taken(self) -> int:
        """Bytes read since the last call."""
        nbytes, self.nbytes_read = self.nbytes_read, 0
        return nbytes

    def bytes(self, name: str, nbytes: int) -> Bytes:
        buffer = self._buffers.get(name)
        if buffer is None or buffer.size < nbytes:
            buffer = self._buffers[name] = np.empty(nbytes, np.uint8)
        return buffer[:nbytes]

    def floats(self, name: str, *shape: int) -> Tile:
        """A C-contiguous float32 array: kernels are compiled for that layout alone."""
        return self.bytes(name, 4 * math.prod(shape)).view(np.float32).reshape(shape)


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


@dataclass
class Loaded:
    """The inputs of a method for a range of entries, in the spaces that it asks for."""

    tensors: Tile | None
    deltas: Tile | None
    base: Tile | None


def load(step: Step, start: int, stop: int, space: Workspace, want: frozenset[Role], tap: Tap | None = None) -> Loaded:
    """Read entries [start, stop) of every source as float32.

    Args:
        step: Whose sources.
        start: First entry.
        stop: One past the last entry.
        space: Buffers; the result lives in them until the next call.
        want: Which of tensors, deltas and base are needed.
        tap: Sees the bytes as they come, to hash them.

    Raises:
        NotFinite: a source holds NaN or infinity.
    """
    n, k = stop - start, len(step.reads)
    stack = space.floats("stack", k, n)
    for i, read in enumerate(step.reads):
        _read(read, start, stop, stack[i], space, i, tap)
    base = None
    if step.base is not None:
        base = space.floats("base", n)
        _read(step.base, start, stop, base, space, k, tap)
    if Role.DELTAS not in want or base is None:
        return Loaded(stack, None, base)
    tensors = None
    if Role.TENSORS in want:
        tensors = space.floats("tensors", k, n)
        tensors[:] = stack
    subtract(stack, base)
    return Loaded(tensors, stack, base)


def _read(read: Read, start: int, stop: int, out: Tile, space: Workspace, number: int, tap: Tap | None) -> None:
    dtype = read.spec.dtype
    raw = space.bytes("raw", (stop - start) * dtype.itemsize)
    read.checkpoint.read_into(read.spec.name, start, stop, raw)
    space.nbytes_read += raw.size
    if tap is not None:
        tap(number, raw)
    if not decode(raw, dtype, out):
        raise NotFinite(_what_is_not_finite(read, start, raw))


def _what_is_not_finite(read: Read, start: int, raw: Bytes) -> str:
    with np.errstate(over="ignore"):
        values = raw.view(read.spec.dtype.numpy).astype(np.float32)
    at = int(np.flatnonzero(~np.isfinite(values))[0])
    index = [int(i) for i in np.unravel_index(start + at, read.spec.shape or (1,))]
    return (
        f"{read.spec.name!r} of {read.model} ({read.checkpoint.label}) holds {float(values[at])!r} at {index}. "
        "Merging would spread it. Leave that model out, or `skip:` the tensor."
    )


_STACKS = frozenset({Role.TENSORS, Role.DELTAS, Role.BASE})


@cache
def wanted(method: Method, functions: tuple[Callable[..., Any], ...] = ()) -> frozenset[Role]:
    """The spaces in which a method, and the functions of its first passes, want their inputs."""
    names = {name for fn in functions for name in parameters(fn)}
    by_name = {"tensors": Role.TENSORS, "deltas": Role.DELTAS, "base": Role.BASE}
    roles = {role for role in method.inputs.values() if isinstance(role, Role)}
    return frozenset(roles & _STACKS) | {role for name, role in by_name.items() if name in names}


def evaluate(prepared: Prepared, start: int, stop: int, space: Workspace, tap: Tap | None = None) -> Tile:
    """The merged entries [start, stop) in float32: (n,). They live in `space` until the next call."""
    method = prepared.method
    loaded = load(prepared.step, start, stop, space, wanted(method), tap)
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


def definition_supply(prepared: Prepared, loaded: Loaded, start: int, stop: int) -> dict[str, Any]:
    """Everything that a function of a first pass may name, as arrays of definitions."""
    supply = {"tensors": loaded.tensors, "deltas": loaded.deltas, "base": loaded.base}
    supply |= inputs(prepared, loaded, start, stop) | prepared.columns
    return supply | (_drawn(prepared, start, stop) if prepared.stream else {})
