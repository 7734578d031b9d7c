"""Compare two checkpoints, tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..checkpoint import Checkpoint
from ..engine import Buffers
from ..errors import Mismatch
from ..kernels.convert import decode
from ..kernels.gram import inner_products
from ..planning import depths

BLOCK = 64 * 1024


@dataclass(frozen=True)
class TensorDiff:
    """Difference of one tensor.

    Attributes:
        name: The tensor.
        change: ||b - a|| / ||a||; infinity where a is zero and b is not.
        cosine: Cosine of a and b; 1 where both are zero.
        largest: Largest |b - a|.
        differing: Share of entries that differ.
        products: Sums of a a, a b, b b and (b - a)^2 over the entries.
    """

    name: str
    change: float
    cosine: float
    largest: float
    differing: float
    products: tuple[float, float, float, float]


@dataclass(frozen=True)
class Diff:
    """Difference of two checkpoints.

    Attributes:
        tensors: Those that both have, in the order of the first.
        layers: The same summed over each layer (`PREFIX.N`), and over what is in none (under its own name).
        only_a: Names that only the first has.
        only_b: Names that only the second has.
        reshaped: Names with different shapes.
    """

    tensors: tuple[TensorDiff, ...]
    layers: tuple[TensorDiff, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    reshaped: tuple[str, ...]


def diff(a: Checkpoint, b: Checkpoint) -> Diff:
    """Compare all tensors of two checkpoints in float32, streaming.

    Raises:
        Mismatch: they share no tensor.
    """
    both = [name for name in a.specs if name in b.specs]
    same = [name for name in both if a.specs[name].shape == b.specs[name].shape]
    if not same:
        raise Mismatch(f"{a.label} and {b.label} have no tensor in common.")
    space = Buffers()
    tensors = tuple(_compare(a, b, name, space) for name in same)
    return Diff(
        tensors,
        tuple(_by_layer(tensors)),
        tuple(name for name in a.specs if name not in b.specs),
        tuple(name for name in b.specs if name not in a.specs),
        tuple(name for name in both if name not in same),
    )


def _compare(a: Checkpoint, b: Checkpoint, name: str, space: Buffers) -> TensorDiff:
    numel = a.specs[name].numel
    sums, largest, differing = np.zeros(4), 0.0, 0
    for start in range(0, numel, BLOCK):
        stop = min(start + BLOCK, numel)
        stack = space.floats("stack", 3, stop - start)
        for row, checkpoint in zip(stack, (a, b), strict=False):
            _load(checkpoint, name, start, stop, row, space)
        np.subtract(stack[1], stack[0], out=stack[2])
        out = np.empty((3, 3))
        inner_products(stack, out)
        sums += [out[0, 0], out[0, 1], out[1, 1], out[2, 2]]
        largest = max(largest, float(np.max(np.abs(stack[2]))))
        differing += int(np.count_nonzero(stack[2]))
    return _summary(name, sums, largest, differing / numel if numel else 0.0)


def _load(checkpoint: Checkpoint, name: str, start: int, stop: int, out: Any, space: Buffers) -> None:
    dtype = checkpoint.specs[name].dtype
    raw = space.bytes("raw", (stop - start) * dtype.itemsize)
    checkpoint.read_into(name, start, stop, raw)
    if dtype.floating:
        decode(raw, dtype, out)
    else:
        out[:] = raw.view(dtype.numpy)


def _summary(name: str, sums: Any, largest: float, differing: float) -> TensorDiff:
    aa, ab, bb, dd = (float(x) for x in sums)
    change = float(np.sqrt(dd / aa)) if aa else (0.0 if dd == 0 else float("inf"))
    cosine = ab / float(np.sqrt(aa * bb)) if aa and bb else float(aa == bb)
    return TensorDiff(name, change, min(cosine, 1.0), largest, differing, (aa, ab, bb, dd))


def _by_layer(tensors: Iterable[TensorDiff]) -> list[TensorDiff]:
    tensors = list(tensors)
    depth_of = depths(t.name for t in tensors)
    layers: dict[str, list[TensorDiff]] = {}
    for tensor in tensors:
        depth = depth_of.get(tensor.name)
        prefix = tensor.name.split(f".{depth.layer}.")[0] + f".{depth.layer}" if depth else tensor.name
        layers.setdefault(prefix, []).append(tensor)
    return [
        _summary(
            name,
            np.sum([t.products for t in ts], axis=0),
            max(t.largest for t in ts),
            float(np.mean([t.differing for t in ts])),
        )
        for name, ts in layers.items()
    ]
