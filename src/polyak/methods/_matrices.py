"""The rule, shared by all spectral methods, for tensors to treat as matrices, and its settings.

A matrix is a tensor of exactly two dimensions whose name `exclude` does not find. With `conv: matrix`, a tensor of more
dimensions is the matrix (out, all the rest). Everything else is a vector and delegated to `task_arithmetic`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from array_api_compat import array_namespace

from ..declare import Pattern
from ..linalg import SMALL_MATRIX
from ._passes import Array

Vectors: TypeAlias = Literal["mean", "zero"]
Conv: TypeAlias = Literal["vector", "matrix"]
Qkv: TypeAlias = Literal["fused", "split"]

# The authors of TSV-M and Iso-C leave out text_projection alone. Embeddings and heads are added: their rows are
# independent, and there are too many of them to decompose.
NOT_MATRICES: Pattern = r"text_projection|embed|(^|\.)(wte|wpe|lm_head|shared)\."
# Stacked [q; k; v]. What interleaves them by head (`query_key_value`) is not split.
_FUSED = re.compile(r"in_proj_weight|in_proj\.weight|qkv|c_attn")


class Tasks:
    """The models' weighted deltas of one matrix, made when asked for: (d_out, d_in) each.

    One at a time, because all of them would take twice the memory of the inputs again. They are in float64, or, if
    `single` allows it and the matrix is large, in the inputs' own dtype.
    """

    def __init__(self, deltas: Array, weight: Array | None, *, single: bool = False) -> None:
        self._deltas, self._weight = deltas, weight
        self._xp = array_namespace(deltas)
        self.shape: tuple[int, int] = tuple(deltas.shape[1:])
        self.rank = min(self.shape)
        self.dtype = deltas.dtype
        self.working = deltas.dtype if single and self.rank > SMALL_MATRIX else self._xp.float64

    def __len__(self) -> int:
        return int(self._deltas.shape[0])

    def __getitem__(self, i: int) -> Array:
        """The delta of model `i`; not to be written to."""
        if not 0 <= i < len(self):
            raise IndexError(i)
        weight = 1.0 if self._weight is None else float(self._weight[i])
        delta = self._xp.astype(self._deltas[i, ...], self.working, copy=False)
        return delta if weight == 1 else delta * weight

    def __iter__(self) -> Iterator[Array]:
        return (self[i] for i in range(len(self)))

    def exact(self) -> Tasks:
        """The same in float64."""
        return Tasks(self._deltas, self._weight)

    def total(self) -> Array:
        """The sum of the deltas."""
        total = self._xp.asarray(self[0], copy=True)
        for i in range(1, len(self)):
            total += self[i]
        return total


def merged(
    deltas: Array,
    weight: Array | None,
    name: str,
    qkv: Qkv,
    merge: Callable[..., Array],
    *beside: Array,
    single: bool = False,
) -> Array:
    """Merge a stack (k, d_out, ...) by applying `merge` to the tasks of each matrix: (d_out, ...).

    Args:
        deltas: The models' deltas.
        weight: Factor of each, applied first: (k, 1, ...); None for 1.
        name: The tensor's name.
        qkv: Merge the three parts of a fused matrix separately.
        merge: From tasks, and the same part of each additional stack, (k, d_out, d_in), to a matrix.
        beside: More stacks of the same shape.
        single: Keep large tasks in the dtype of the task vectors instead of float64.
    """
    xp = array_namespace(deltas)
    shape = tuple(deltas.shape[1:])
    stacks = [xp.reshape(stack, (stack.shape[0], shape[0], -1)) for stack in (deltas, *beside)]
    column = None if weight is None else xp.reshape(weight, (-1,))
    axis = _axis_of_parts(name, tuple(stacks[0].shape[1:])) if qkv == "split" else None
    results: list[Array] = []
    for part in _parts(stacks[0].shape[1:], axis):
        first, *others = (stack[:, part[0], part[1]] for stack in stacks)
        results.append(merge(Tasks(first, column, single=single), *others))
    return xp.reshape(results[0] if axis is None else xp.concat(results, axis=axis), shape)


def tasks_of(deltas: Array, weight: Array, name: str, qkv: Qkv) -> Iterator[Tasks]:
    """The tasks that `merged` passes to its merge, part by part."""
    xp = array_namespace(deltas)
    stack = xp.reshape(deltas, (deltas.shape[0], deltas.shape[1], -1))
    axis = _axis_of_parts(name, tuple(stack.shape[1:])) if qkv == "split" else None
    for part in _parts(stack.shape[1:], axis):
        yield Tasks(stack[:, part[0], part[1]], xp.reshape(weight, (-1,)))


def _parts(shape: Sequence[int], axis: int | None) -> Iterator[tuple[slice, slice]]:
    """The rows and columns of each part."""
    whole = slice(None)
    if axis is None:
        yield whole, whole
        return
    length = shape[axis] // 3
    for i in range(3):
        part = slice(i * length, (i + 1) * length)
        yield (part, whole) if axis == 0 else (whole, part)


def _axis_of_parts(name: str, shape: tuple[int, ...]) -> int | None:
    """The axis along which queries, keys and values of equal size are stacked; None if they are not."""
    if not _FUSED.search(name):
        return None
    rows, columns = shape
    return 0 if rows == 3 * columns else 1 if columns == 3 * rows else None


def vectors_left(
    name: str,
    shape: tuple[int, ...],
    weight: tuple[float, ...],
    scale: float,
    exclude: str,
    vector_1d: Vectors,
    conv: Conv,
) -> tuple[str, Mapping[str, Any]] | None:
    """Leave vectors to `task_arithmetic`: `scale` times the mean of the weighted deltas, or nothing, is added."""
    if is_matrix(name, shape, exclude, conv):
        return None
    if vector_1d == "zero":
        return "task_arithmetic", {"weight": [0.0] * len(weight)}
    return "task_arithmetic", {"weight": list(weight), "scale": scale / len(weight)}


def vectors_left_unscaled(
    name: str, shape: tuple[int, ...], weight: tuple[float, ...], exclude: str, vector_1d: Vectors, conv: Conv
) -> tuple[str, Mapping[str, Any]] | None:
    """Leave vectors to `task_arithmetic`: the mean of the weighted deltas, or nothing, is added."""
    return vectors_left(name, shape, weight, 1.0, exclude, vector_1d, conv)


def is_matrix(name: str, shape: tuple[int, ...], exclude: str, conv: Conv) -> bool:
    """True if a tensor is merged as a matrix. An empty `exclude` matches nothing."""
    dimensions = len(shape) == 2 or (conv == "matrix" and len(shape) > 2)
    return dimensions and math.prod(shape) > 0 and not (exclude and re.search(exclude, name))
