"""First passes: what a method must know of whole tensors before it can merge them element by element.

A method declares a pass by a function of its settings that returns a request: `Top`, `Gram`, `Sum` or `Order`.
This module says what each request means, plainly, for arrays of any kind; the engine answers the same
requests by streaming (`polyak.engine.passes`), and the contract tests hold the two together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from inspect import signature
from typing import Any, Literal, TypeAlias

from array_api_compat import array_namespace

Array: TypeAlias = Any  # any array of the array API standard: NumPy, torch, CuPy ...
Scope: TypeAlias = Literal["row", "tensor", "model"]

EVERY_TIE = 2**62  # an index that no tensor reaches


@dataclass(frozen=True)
class Top:
    """Ask for the `count` entries of each model that are largest in magnitude; the answer is a `Cut`.

    Attributes:
        count: From the number of entries in scope to how many to keep, for each model.
        scope: Over what the entries compete: each row (last dimension), each tensor, or the whole model.
        ties: Among equal magnitudes at the boundary: keep the `first` (lowest index, exactly `count`
            survive) or `all` (at least `count` survive).
        of: What competes: a function of named inputs and settings that returns a stack (default: the deltas).
        fused: The same as `of` for the CPU: a function of some of the names that a twin may take, in the twin's forms,
            that returns a stack (k, n) of float32.
    """

    count: Callable[[int], Sequence[int]]
    scope: Scope = "tensor"
    ties: Literal["first", "all"] = "first"
    of: Callable[..., Array] | None = None
    fused: Callable[..., Array] | None = None


@dataclass(frozen=True)
class Gram:
    """Ask for the inner products of the models' tensors or deltas; the answer is `Products`."""

    of: Literal["tensors", "deltas"] = "deltas"
    scope: Literal["row", "tensor"] = "tensor"


@dataclass(frozen=True)
class Sum:
    """Ask for the sum over all entries of some terms; the answer has one number a term, in float64.

    Attributes:
        term: A function of named inputs and settings that returns terms stacked (m, *shape).
        scope: Over which entries.
        fused: The same for the CPU, if `term` is too slow: a function of some of the names that a twin may
            take, in the twin's forms, that returns the sums over a tile, (m,).
        of_means: Sum the means over each tensor's entries instead: small tensors count as much as large ones.
    """

    term: Callable[..., Array]
    scope: Literal["tensor", "model"] = "tensor"
    fused: Callable[..., Any] | None = None
    of_means: bool = False


@dataclass(frozen=True)
class Order:
    """Ask for order statistics of each model by value and sign; the answer is (m, k), m of them for each of k models.

    Attributes:
        index: From the number of entries in scope to which entries are wanted, sorted upwards and counted from 0.
        of: What is sorted: a function of named inputs and settings that returns a stack (k, *shape).
        scope: Over what the entries are sorted.
        fused: The same as `of` for the CPU: a function of some of the names that a twin may take, in the twin's forms,
            that returns a stack (k, n) of float32.
    """

    index: Callable[[int], Sequence[int]]
    of: Callable[..., Array]
    scope: Literal["tensor", "model"] = "tensor"
    fused: Callable[..., Array] | None = None


Request: TypeAlias = Top | Gram | Sum | Order


@dataclass(frozen=True)
class Cut:
    """Where the largest entries end: a magnitude for each model and row, and the last of its equals to keep.

    Attributes:
        value: Smallest magnitude that survives, (k, rows).
        last: Index in the tensor, in row-major order, of the last survivor that equals `value`, (k, rows).
        row: How many entries a row has; all of them where the scope is not the row.
        start: Index in the tensor of the first entry that `keeps` is given.
    """

    value: Array
    last: Array
    row: int
    start: int = 0

    def keeps(self, stack: Array) -> Array:
        """Which entries of a stack (k, *shape) survive, as booleans of that shape."""
        xp = array_namespace(stack)
        magnitude = xp.reshape(xp.abs(stack), (stack.shape[0], -1))
        index = self.start + xp.arange(magnitude.shape[1], dtype=xp.int64, **_device(stack))
        row = index // self.row - self.start // self.row
        value, last = xp.take(self.value, row, axis=1), xp.take(self.last, row, axis=1)
        return xp.reshape((magnitude > value) | ((magnitude == value) & (index <= last)), stack.shape)


@dataclass(frozen=True)
class Products:
    """Inner products of every two models, of whole tensors or row by row.

    Attributes:
        value: (k, k, rows) in float64; one row where the scope is the tensor.
        row: How many entries a row has.
        start: Index in the tensor of the first entry that `spread` is given.
    """

    value: Array
    row: int
    start: int = 0

    def spread(self, numbers: Array, stack: Array) -> Array:
        """Numbers made of `value`, one a row (rows,), laid over the entries of a stack (k, *shape): (*shape)."""
        xp = array_namespace(stack)
        shape = stack.shape[1:]
        size = 1
        for n in shape:
            size *= n
        index = self.start + xp.arange(size, dtype=xp.int64, **_device(stack))
        row = index // self.row - self.start // self.row
        return xp.reshape(xp.astype(xp.take(numbers, row, axis=0), stack.dtype), shape)


def answer(request: Request, supply: Mapping[str, Array]) -> Any:
    """Answer a request for arrays that are all in memory, by definition rather than by speed.

    Args:
        request: What is asked for.
        supply: The method's inputs and settings by name; `tensors` or `deltas` stacked (k, *shape).
    """
    match request:
        case Top():
            stack = call(request.of, supply) if request.of else supply["deltas"]
            return _top(request, stack)
        case Gram():
            return _gram(supply[request.of], request.scope)
        case Sum():
            terms = call(request.term, supply)
            xp = array_namespace(terms)
            rows = xp.astype(xp.reshape(terms, (terms.shape[0], -1)), xp.float64)
            return xp.mean(rows, axis=1) if request.of_means else xp.sum(rows, axis=1)
        case Order():
            return _order(request, call(request.of, supply))


def _top(request: Top, stack: Array) -> Cut:
    xp = array_namespace(stack)
    k, size = stack.shape[0], _row_length(stack.shape[1:], request.scope)
    rows = xp.reshape(xp.abs(stack), (k, -1, size))
    order = xp.argsort(-rows, axis=2)  # stable, so equals stay in the order of their index
    offset = size * xp.arange(rows.shape[1], dtype=xp.int64, **_device(stack))
    values, lasts = [], []
    for model, count in enumerate(request.count(size)):
        if count <= 0 or count >= size:
            values.append(xp.full_like(rows[model, :, 0], float("inf") if count <= 0 else -1.0))
            lasts.append(offset - 1)
            continue
        at = order[model, :, count - 1]
        values.append(xp.take_along_axis(rows[model], at[:, None], axis=1)[:, 0])
        lasts.append(offset + at if request.ties == "first" else xp.full_like(offset, EVERY_TIE))
    return Cut(xp.stack(values), xp.stack(lasts), size)


def _order(request: Order, stack: Array) -> Array:
    xp = array_namespace(stack)
    rows = xp.sort(xp.reshape(stack, (stack.shape[0], -1)), axis=1)
    return xp.stack([rows[:, at] for at in request.index(rows.shape[1])])


def _gram(stack: Array, scope: str) -> Products:
    xp = array_namespace(stack)
    size = _row_length(stack.shape[1:], scope)
    rows = xp.astype(xp.reshape(stack, (stack.shape[0], -1, size)), xp.float64)
    return Products(xp.sum(rows[:, None] * rows[None, :], axis=3), size)


def _row_length(shape: Sequence[int], scope: str) -> int:
    if scope == "row" and len(shape) > 1:
        return shape[-1]
    size = 1
    for n in shape:
        size *= n
    return size


def call(fn: Callable[..., Any], supply: Mapping[str, Any]) -> Any:
    """Call a function with those of the supplied values that its signature names."""
    return fn(**{name: supply[name] for name in parameters(fn)})


@cache
def parameters(fn: Callable[..., Any]) -> tuple[str, ...]:
    """The names of a function's parameters."""
    return tuple(signature(fn).parameters)


def moved(known: Any, start: int, stop: int) -> Any:
    """The same answer for the entries [start, stop) of the tensor."""
    if isinstance(known, Cut):
        rows = slice(start // known.row, (stop - 1) // known.row + 1)
        return replace(known, value=known.value[:, rows], last=known.last[:, rows], start=start)
    if isinstance(known, Products):
        rows = slice(start // known.row, (stop - 1) // known.row + 1)
        return replace(known, value=known.value[:, :, rows], start=start)
    return known


def _device(like: Array) -> dict[str, Any]:
    return {"device": like.device} if hasattr(like, "device") else {}
