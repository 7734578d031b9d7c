"""First passes: quantities of whole tensors that a method needs before it can merge entry by entry.

A method declares a pass by a function of its settings that returns a request: `Top`, `Gram`, `Sum` or `Order`.
This module defines each request, for arrays of any kind; the engine answers the same
requests by streaming (`polyak.engine.first_passes`), and the contract tests hold the two together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from inspect import CO_VARARGS, CO_VARKEYWORDS, signature
from types import FunctionType
from typing import Any, Literal, TypeAlias

from array_api_compat import array_namespace

from ..linalg import Array

Scope: TypeAlias = Literal["row", "tensor", "model"]
Parts: TypeAlias = Callable[[], Iterator[tuple[Array, Array]]]  # one sweep over models (k, n) and base (n,)
EVERY_TIE = 2**62  # an index that no tensor reaches


@dataclass(frozen=True)
class Top:
    """Ask for the `count` entries of each model that are largest in magnitude; the answer is a `Cut`.

    Attributes:
        count: From the number of entries in scope to how many to keep, for each model, and if there are more numbers
            then again for each model (not over rows). Parameters after the first are answers of earlier passes, by
            name.
        scope: Scope of the ranking: each row (last dimension), each tensor, or the whole model.
        ties: Among equal magnitudes at the boundary: keep the `first` (lowest index, exactly `count`
            survive) or `all` (at least `count` survive).
        of: Stack to rank: a function of named inputs and settings that returns a stack (default: the deltas).
        kernel: The compiled form of `of`, for the CPU: a function of some of the names that a method's kernel may take,
            that returns a stack (k, n) of float32.
    """

    count: Callable[..., Sequence[int]]
    scope: Scope = "tensor"
    ties: Literal["first", "all"] = "first"
    of: Callable[..., Array] | None = None
    kernel: Callable[..., Array] | None = None

    def counts(self, entries: int, arguments: Mapping[str, Any]) -> Sequence[int]:
        """Number of entries to keep per model, given the answers of earlier passes."""
        return self.count(entries, *(arguments[name] for name in self.needs))

    @property
    def needs(self) -> tuple[str, ...]:
        """The earlier passes that `count` names."""
        return parameters(self.count)[1:]


@dataclass(frozen=True)
class Gram:
    """Ask for the inner products of the models' tensors or deltas; the answer is `Products`.

    Attributes:
        of: The products of what.
        scope: Over which entries: each row (last dimension), each column (the entries that differ in nothing but their
            first index), or the tensor.
    """

    of: Literal["tensors", "deltas"] = "deltas"
    scope: Literal["row", "column", "tensor"] = "tensor"


@dataclass(frozen=True)
class Sum:
    """Ask for the sum over all entries of some terms; the answer has one number per term, in float64.

    Attributes:
        term: A function of named inputs and settings that returns terms stacked (m, *shape).
        scope: Over which entries. Over rows (last dimension) the answer is `Rows`, and `term` sees whole rows:
            (k, rows, entries).
        kernel: The compiled form, for the CPU, if `term` is too slow. A function that names a stack is called for
            every tile with what a method's kernel may take, and returns the sums over the tile, (m,); over rows it sees
            stacks as (k, rows, entries) and returns (m, rows). A function that names none, not over rows, is called
            once per tensor, also with `models`, their number, and returns a `SumCall`.
        of_parts: The same for one row that is too long to be held: given what sweeps over it, part by part; (m,).
        of_means: Sum the means over each tensor's entries instead: small tensors count as much as large ones.
    """

    term: Callable[..., Array]
    scope: Scope = "tensor"
    kernel: Callable[..., Any] | None = None
    of_parts: Callable[[Parts], Any] | None = None
    of_means: bool = False

    @property
    def is_one_call(self) -> bool:
        """True if the kernel is a `SumCall`: it names no stack."""
        return self.kernel is not None and not {"tensors", "deltas", "base"}.intersection(parameters(self.kernel))


@dataclass(frozen=True)
class Order:
    """Ask for order statistics of each model by value and sign; the answer is (m, k), m of them for each of k models.

    Attributes:
        index: From the number of entries in scope to which entries are wanted, sorted upwards and counted from 0.
        of: Stack to sort: a function of named inputs and settings that returns a stack (k, *shape) (default: the
            magnitudes of the deltas).
        scope: Scope of the sorting.
        kernel: The compiled form of `of`, for the CPU: a function of some of the names that a method's kernel may take,
            that returns a stack (k, n) of float32.
    """

    index: Callable[[int], Sequence[int]]
    of: Callable[..., Array] | None = None
    scope: Literal["tensor", "model"] = "tensor"
    kernel: Callable[..., Array] | None = None


Request: TypeAlias = Top | Gram | Sum | Order


@dataclass(frozen=True)
class Cut:
    """The top-k threshold: a magnitude per model and row, and the index of the last tie to keep.

    Attributes:
        value: Smallest magnitude that survives, (k, rows).
        last: Index in the tensor, in row-major order, of the last survivor that equals `value`, (k, rows).
        row: Number of entries per row; all entries if the scope is not the row.
        start: Index in the tensor of the first entry that `keeps` is given.
    """

    value: Array
    last: Array
    row: int
    start: int = 0

    def keeps(self, stack: Array) -> Array:
        """Mask of the entries of a stack (k, *shape) that are kept: booleans of that shape."""
        xp = array_namespace(stack)
        magnitude = xp.reshape(xp.abs(stack), (stack.shape[0], -1))
        index = self.start + xp.arange(magnitude.shape[1], dtype=xp.int64, **_device(stack))
        row = index // self.row - self.start // self.row
        value, last = xp.take(self.value, row, axis=1), xp.take(self.last, row, axis=1)
        return xp.reshape((magnitude > value) | ((magnitude == value) & (index <= last)), stack.shape)


@dataclass(frozen=True)
class Rows:
    """Numbers for each row of a tensor, or for each column.

    Attributes:
        value: (..., rows) in float64; one row where the scope is the tensor.
        row: Number of entries per row; the number of columns if `columns` is true.
        start: Index in the tensor of the first entry that `spread` is given.
        columns: True if the numbers are those of columns, which repeat after every `row` entries.
    """

    value: Array
    row: int
    start: int = 0
    columns: bool = False

    def spread(self, numbers: Array, stack: Array) -> Array:
        """Numbers derived from `value`, one per row (rows,), broadcast over a stack (k, *shape): (*shape)."""
        xp = array_namespace(stack)
        index = self.start + xp.arange(math.prod(stack.shape[1:]), dtype=xp.int64, **_device(stack))
        which = index % self.row if self.columns else index // self.row - self.start // self.row
        return xp.reshape(xp.astype(xp.take(numbers, which, axis=0), stack.dtype), stack.shape[1:])

    def moved(self, start: int, stop: int) -> Any:
        """The same for the entries [start, stop) of the tensor."""
        if self.columns:
            return replace(self, start=start)
        return replace(self, value=self.value[..., start // self.row : (stop - 1) // self.row + 1], start=start)


@dataclass(frozen=True)
class Products(Rows):
    """Inner products of every two models: `value` is (k, k, rows)."""


def answer(request: Request, supply: Mapping[str, Array]) -> Any:
    """Answer a request for arrays that are all in memory, by definition rather than by speed.

    Args:
        request: The request.
        supply: The method's inputs and settings by name; `tensors` or `deltas` stacked (k, *shape).
    """
    match request:
        case Top():
            stack = call(request.of, supply) if request.of else supply["deltas"]
            return _top(request, stack, supply)
        case Gram():
            return _gram(supply[request.of], request.scope)
        case Sum(scope="row"):
            return _sum_by_row(request, supply)
        case Sum():
            terms = call(request.term, supply)
            xp = array_namespace(terms)
            rows = xp.astype(xp.reshape(terms, (terms.shape[0], -1)), xp.float64)
            return xp.mean(rows, axis=1) if request.of_means else xp.sum(rows, axis=1)
        case Order():
            return _order(request, call(request.of, supply) if request.of else abs(supply["deltas"]))


def _top(request: Top, stack: Array, arguments: Mapping[str, Any]) -> Cut:
    xp = array_namespace(stack)
    k, size = stack.shape[0], _row_length(stack.shape[1:], request.scope)
    if not size:
        nothing = [[math.inf]] * len(request.counts(size, arguments))
        return Cut(xp.asarray(nothing, dtype=stack.dtype), -xp.ones((len(nothing), 1), dtype=xp.int64), 1)
    rows = xp.reshape(xp.abs(stack), (k, -1, size))
    order = xp.argsort(-rows, axis=2)  # stable, so equals stay in the order of their index
    offset = size * xp.arange(rows.shape[1], dtype=xp.int64, **_device(stack))
    values, lasts = [], []
    for model, count in enumerate(request.counts(size, arguments)):
        if count <= 0 or count >= size:
            values.append(xp.full_like(rows[0, :, 0], float("inf") if count <= 0 else -1.0))
            lasts.append(offset - 1)
            continue
        at = order[model % k, :, count - 1]
        values.append(xp.take_along_axis(rows[model % k], at[:, None], axis=1)[:, 0])
        lasts.append(offset + at if request.ties == "first" else xp.full_like(offset, EVERY_TIE))
    return Cut(xp.stack(values), xp.stack(lasts), size)


def _order(request: Order, stack: Array) -> Array:
    xp = array_namespace(stack)
    rows = xp.sort(xp.reshape(stack, (stack.shape[0], -1)), axis=1)
    return xp.stack([rows[:, at] for at in request.index(rows.shape[1])])


def _gram(stack: Array, scope: str) -> Products:
    xp = array_namespace(stack)
    size = _row_length(stack.shape[1:], scope)
    columns = scope == "column" and stack.ndim > 2
    if columns:
        stack = xp.permute_dims(xp.reshape(stack, (stack.shape[0], -1, size)), (0, 2, 1))
    rows = xp.astype(xp.reshape(stack, (stack.shape[0], -1, stack.shape[-1] if columns else size)), xp.float64)
    return Products(xp.sum(rows[:, None] * rows[None, :], axis=3), size, columns=columns)


def _sum_by_row(request: Sum, supply: Mapping[str, Any]) -> Rows:
    """Sums over each row, of inputs in the form of rows."""
    stacks = [name for name in ("tensors", "deltas") if supply.get(name) is not None]
    size = _row_length(supply[stacks[0]].shape[1:], "row")
    terms = call(request.term, {**supply, **in_rows(supply, size)})
    xp = array_namespace(terms)
    return Rows(xp.sum(xp.astype(terms, xp.float64), axis=2), size)


def in_rows(supply: Mapping[str, Any], row: int) -> dict[str, Array]:
    """Those of `tensors`, `deltas` and `base` that there are, as rows: (k, rows, row), and (rows, row)."""
    inputs = {name: supply.get(name) for name in ("tensors", "deltas", "base")}
    return {
        name: array_namespace(array).reshape(array, (*array.shape[: 0 if name == "base" else 1], -1, row))
        for name, array in inputs.items()
        if array is not None
    }


def _row_length(shape: Sequence[int], scope: str) -> int:
    """Entries of a row; columns of a tensor; all entries where the scope is larger, and of a vector."""
    if len(shape) > 1 and scope in ("row", "column"):
        return shape[-1] if scope == "row" else math.prod(shape[1:])
    return math.prod(shape)


def call(fn: Callable[..., Any], supply: Mapping[str, Any]) -> Any:
    """Call a function with those of the supplied values that its signature names."""
    return fn(**{name: supply[name] for name in parameters(fn)})


def parameters(fn: Callable[..., Any]) -> tuple[str, ...]:
    """The names of a function's parameters."""
    if type(fn) is FunctionType and "__wrapped__" not in fn.__dict__:  # requests hold new functions each time
        code = fn.__code__
        if not code.co_flags & (CO_VARARGS | CO_VARKEYWORDS):
            return code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return _parameters(fn)


@cache
def _parameters(fn: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(signature(fn).parameters)


def moved(answer: Any, start: int, stop: int) -> Any:
    """The same answer for the entries [start, stop) of the tensor."""
    if isinstance(answer, Cut):
        rows = slice(start // answer.row, (stop - 1) // answer.row + 1)
        return replace(answer, value=answer.value[:, rows], last=answer.last[:, rows], start=start)
    if isinstance(answer, Rows):
        return answer.moved(start, stop)
    return answer


def _device(like: Array) -> dict[str, Any]:
    return {"device": like.device} if hasattr(like, "device") else {}
