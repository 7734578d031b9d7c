"""Evaluate a step for a range of its entries: call the method's kernel or definition on loaded tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, cast

from ...kernels.weighted_sums import add
from ...methods import Array, Method, Role, Stat, as_result, call, evaluate_definition, evaluate_on_arrays, parameters
from .buffers import Buffers, Tap, Tile
from .device import back
from .inputs import Loaded, Sources, tile_length
from .prepared import PreparedStep

TileObserver = Callable[[Loaded, int, int], None]  # shown what is loaded, and from which entry to which
_STACKS = frozenset({Role.TENSORS, Role.DELTAS, Role.BASE})


@cache
def stacks_wanted(method: Method, function: Callable[..., Any] | None = None) -> frozenset[Role]:
    """The spaces in which a method, or a function of its first passes, wants its inputs."""
    if function is None:
        return frozenset(role for role in method.inputs.values() if isinstance(role, Role)) & _STACKS
    by_name = {**method.inputs, "tensors": Role.TENSORS, "deltas": Role.DELTAS, "base": Role.BASE}
    named = {by_name.get(name) for name in parameters(function)}
    return frozenset(role for role in named if isinstance(role, Role)) & _STACKS


def sources_for(prepared: PreparedStep, stop: int, buffers: Buffers, function: Callable[..., Any] | None) -> Sources:
    """The sources that a function of a first pass wants; of statistics alone, if it names nothing else."""
    method, names = prepared.method, parameters(function) if function else ()
    statistics = tuple(name for name in prepared.step.statistics if name in names)
    alone = bool(statistics) and not {"tensors", "deltas", "base"}.intersection(names) and not _roles(method, names)
    want = frozenset[Role]() if alone else stacks_wanted(method, function)
    return Sources(prepared.step, stop, buffers, want, None, statistics)


def _roles(method: Method, names: tuple[str, ...]) -> bool:
    return any(isinstance(method.inputs.get(name), Role) for name in names)


def merged_tiles(
    prepared: PreparedStep,
    start: int,
    stop: int,
    buffers: Buffers,
    tap: Tap | None = None,
    tile: int | None = None,
    observe: TileObserver | None = None,
) -> Iterator[tuple[int, Tile]]:
    """The merged entries [start, stop) in float32, a tile at a time: where one begins, and its numbers.

    What must be merged together is merged whole, even where it begins before `start` or ends behind `stop`.

    Args:
        prepared: The step.
        start: First entry.
        stop: One past the last entry.
        buffers: Buffers; a tile lives in them until the next one.
        tap: Sees the bytes read of [start, stop).
        tile: Maximum number of entries of a tile, about (default: what the cache holds).
        observe: Shown what is loaded, and for which entries, before the method may overwrite it.
    """
    step, length = prepared.step, tile_length(prepared.step, tile)
    length = -(-length // 8) * 8 if observe else length  # masks are packed by tile, eight entries per byte
    first, last = start // step.unit * step.unit, min(-(-stop // step.unit) * step.unit, step.out.numel)
    want = stacks_wanted(prepared.method)
    sources = Sources(step, last, buffers, want, tap, tuple(step.statistics), (start, stop), length)
    for begin in range(first, last, length):
        end = min(begin + length, last)
        loaded = sources.load(begin, end)
        if observe is not None:
            observe(loaded, begin, end)
        merged = evaluate(prepared, begin, end, buffers, loaded)
        yield max(begin, start), merged[max(start - begin, 0) : min(stop, end) - begin]


def evaluate(prepared: PreparedStep, start: int, stop: int, buffers: Buffers, loaded: Loaded) -> Tile:
    """The merged entries [start, stop): (n,). They live in `buffers` until the next call."""
    out = buffers.floats("out", stop - start)
    if prepared.step.is_whole:
        out[:] = _whole(prepared, loaded).reshape(-1)
    elif prepared.kernel_form is not None:
        _by_kernel(prepared, start, stop, loaded, out)
    else:
        out[:] = _by_definition(prepared, start, stop, loaded).reshape(-1)
    return out


def _by_kernel(prepared: PreparedStep, start: int, stop: int, loaded: Loaded, out: Tile) -> None:
    method, base, loaded = prepared.method, loaded.base, loaded.shaped(prepared.shape)
    if (one := prepared.kernel_call) is not None:
        one.kernel(out, loaded.deltas if loaded.tensors is None else loaded.tensors, start, *one.args)
    else:
        supply = positional(prepared, loaded, start, stop) | prepared.flat
        call(cast("Callable[..., None]", prepared.kernel_form), {**supply, "out": out})
    if method.returns is Role.DELTA and base is not None:
        add(out, base)


def _by_definition(prepared: PreparedStep, start: int, stop: int, loaded: Loaded) -> Any:
    method, loaded = prepared.method, loaded.shaped(prepared.shape)
    supply = positional(prepared, loaded, start, stop) | prepared.columns
    if prepared.stream is not None:
        supply |= _drawn(prepared, start, stop)
    stack = loaded.tensors if loaded.tensors is not None else loaded.deltas
    return as_result(method, call(method.fn, supply), loaded.base, cast("Array", stack))


def _whole(prepared: PreparedStep, loaded: Loaded) -> Any:
    """Merge a whole tensor by a definition that is not elementwise."""
    if (device := prepared.device) is None:
        return _defined(prepared, loaded, lambda array: array)
    with device:
        return back(_defined(prepared, loaded, device.put))


def _defined(prepared: PreparedStep, loaded: Loaded, put: Callable[[Any], Any]) -> Any:
    """The definition's result, where `put` brings its arrays."""
    step, method, shape = prepared.step, prepared.method, prepared.step.out.shape or (1,)
    chance = put(prepared.stream.numbers(step.out.numel).reshape(-1, *shape)) if prepared.stream else None
    base = None if loaded.base is None else put(loaded.base.reshape(shape))
    if method.passes or method.statistics:  # whose functions may ask for more than the method does
        deltas, start = cast("Tile", loaded.deltas), loaded.base
        tensors = loaded.tensors if loaded.tensors is not None else deltas if start is None else deltas + start
        inputs = {
            stat.name: put(loaded.statistics[key].reshape(-1, *(step.statistics[key][0].spec.shape or (1,))))
            for key, stat in method.statistics.items()
            if key in loaded.statistics
        }
        stack = put(tensors.reshape(-1, *shape))
        answers = prepared.answers_of_the_model
        return evaluate_definition(method, stack, base, step.out.name, chance, step.settings, inputs, answers)
    arrays: dict[Role, Any] = {Role.BASE: base, Role.NAME: step.out.name, Role.UNIFORM: chance}
    stacks = {Role.TENSORS: loaded.tensors, Role.DELTAS: loaded.deltas}
    arrays |= {role: put(stack.reshape(-1, *shape)) for role, stack in stacks.items() if stack is not None}
    stack = arrays[Role.DELTAS if loaded.tensors is None else Role.TENSORS]
    return evaluate_on_arrays(method, stack, arrays, step.settings)


def positional(prepared: PreparedStep, loaded: Loaded, start: int, stop: int) -> dict[str, Any]:
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
            case Role.NAME:
                supply[name] = prepared.step.out.name
            case Role.UNIFORM:
                supply[name] = prepared.uniform(start)
            case Stat():
                supply[name] = loaded.statistics.get(name)
            case _:
                pass
    return supply


def _drawn(prepared: PreparedStep, start: int, stop: int) -> dict[str, Any]:
    """Random numbers as an array, for definitions: kernels draw their own from the stream."""
    stream = prepared.uniform(start)
    assert stream is not None
    names = [name for name, role in prepared.method.inputs.items() if role is Role.UNIFORM]
    return {name: stream.numbers(stop - start).reshape(len(prepared.models), *prepared.shape) for name in names}


def kernel_supply(prepared: PreparedStep, loaded: Loaded, start: int, stop: int) -> dict[str, Any]:
    """Everything that the kernel of a first pass may name."""
    inputs = {"tensors": loaded.tensors, "deltas": loaded.deltas, "base": loaded.base}
    return inputs | positional(prepared, loaded, start, stop) | prepared.flat


def whole_supply(prepared: PreparedStep, buffers: Buffers) -> dict[str, Any]:
    """`definition_supply` for a whole tensor, in its own shape."""
    step = prepared.step
    loaded = Sources(step, step.out.numel, buffers, stacks_wanted(prepared.method)).load(0, step.out.numel)
    return definition_supply(prepared, loaded.shaped(step.out.shape), 0, step.out.numel)


def definition_supply(prepared: PreparedStep, loaded: Loaded, start: int, stop: int) -> dict[str, Any]:
    """Everything that a function of a first pass may name, as arrays of definitions."""
    supply = {"tensors": loaded.tensors, "deltas": loaded.deltas, "base": loaded.base}
    supply |= positional(prepared, loaded, start, stop) | prepared.columns
    return supply | (_drawn(prepared, start, stop) if prepared.stream else {})
