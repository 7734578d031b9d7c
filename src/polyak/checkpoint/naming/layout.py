"""Tensors that are put together from segments of others: stacked, concatenated or split, as they lie in memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .._api import TensorSpec
from .rules import Rule


class Segment(NamedTuple):
    """Elements [start, start + length) of a tensor, in row-major order."""

    name: str
    start: int
    length: int


class Block(NamedTuple):
    """A tensor as a sequence of segments of others."""

    shape: tuple[int, ...]
    segments: tuple[Segment, ...]


class Unsupported(ValueError):
    """An operation moves elements in a way that segments cannot express, or does not fit the shapes."""


def made_by(rule: Rule, sources: Sequence[Sequence[TensorSpec]]) -> list[Block]:
    """The tensors that a rule makes, one per target.

    Args:
        rule: The rule.
        sources: For each source pattern, the stored tensors that match it, in order.

    Raises:
        Unsupported: an operation is not one of stacking, concatenating and splitting.
    """
    blocks = [[_whole(spec) for spec in specs] for specs in sources]
    for operation, settings in rule.operations:
        if operation == "MergeModulelist" and not settings["dim"] and "shards" not in settings:
            blocks = [[_stacked(group)] for group in blocks]
        elif operation == "Concatenate" and "shards" not in settings:
            blocks = [[_concatenated([block for group in blocks for block in group], settings["dim"])]]
        elif operation == "Chunk" and "shards" not in settings and len(blocks) == len(blocks[0]) == 1:
            return _chunks(blocks[0][0], settings["dim"], len(rule.targets))
        else:
            raise Unsupported(operation)
    if len(blocks) != 1 or len(blocks[0]) != 1:
        raise Unsupported("number of tensors")
    return blocks[0]


def _whole(spec: TensorSpec) -> Block:
    return Block(spec.shape, (Segment(spec.name, 0, spec.numel),))


def _stacked(blocks: Sequence[Block]) -> Block:
    if len({block.shape for block in blocks}) != 1:
        raise Unsupported("shapes")
    return Block((len(blocks), *blocks[0].shape), tuple(s for block in blocks for s in block.segments))


def _concatenated(blocks: Sequence[Block], axis: int) -> Block:
    shapes = {(*block.shape[:axis], *block.shape[axis + 1 :]) for block in blocks}
    if len(shapes) != 1 or axis >= len(blocks[0].shape):
        raise Unsupported("shapes")
    shape = blocks[0].shape
    total = sum(block.shape[axis] for block in blocks)
    segments: list[Segment] = []
    for outer in range(math.prod(shape[:axis])):
        for block in blocks:
            size = math.prod(block.shape[axis:])
            segments += _range(block.segments, outer * size, size)
    return Block((*shape[:axis], total, *shape[axis + 1 :]), _joined(segments))


def _chunks(block: Block, axis: int, count: int) -> list[Block]:
    if axis >= len(block.shape) or block.shape[axis] % count:
        raise Unsupported("shapes")
    shape = (*block.shape[:axis], block.shape[axis] // count, *block.shape[axis + 1 :])
    size = math.prod(shape[axis:])
    outers = range(math.prod(shape[:axis]))
    return [
        Block(shape, _joined([s for o in outers for s in _range(block.segments, (o * count + i) * size, size)]))
        for i in range(count)
    ]


def _range(segments: Sequence[Segment], start: int, length: int) -> list[Segment]:
    """The segments of elements [start, start + length) of a sequence of segments."""
    out: list[Segment] = []
    at = 0
    for name, first, size in segments:
        low, high = max(start, at), min(start + length, at + size)
        if low < high:
            out.append(Segment(name, first + low - at, high - low))
        at += size
    return out


def _joined(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """Neighbouring segments put together."""
    out: list[Segment] = []
    for segment in segments:
        last = out[-1] if out else None
        if last and last.name == segment.name and last.start + last.length == segment.start:
            out[-1] = last._replace(length=last.length + segment.length)
        else:
            out.append(segment)
    return tuple(out)


def inverted(blocks: Mapping[str, Block], specs: Mapping[str, TensorSpec]) -> dict[str, Block]:
    """The sources as segments of what is made from them.

    Args:
        blocks: Made tensors by name.
        specs: The sources; those that are not fully covered are left out.
    """
    pieces: dict[str, list[tuple[int, Segment]]] = {}
    for name, block in blocks.items():
        at = 0
        for source, start, length in block.segments:
            pieces.setdefault(source, []).append((start, Segment(name, at, length)))
            at += length
    inverse: dict[str, Block] = {}
    for source, placed in pieces.items():
        segments = [segment for _, segment in sorted(placed)]
        if sum(segment.length for segment in segments) == specs[source].numel:
            inverse[source] = Block(specs[source].shape, _joined(segments))
    return inverse
