"""Write a mask per model next to the merged tensors: one bit per entry, packed tile by tile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...checkpoint import MASKS_FOLDER, MASKS_KIND
from ...methods import Masks, call
from ...planning import BASE, Plan, Step
from ...storage import Leaves
from .chunks import Chunk
from .evaluate import definition_supply, kernel_supply
from .inputs import Loaded
from .prepared import PreparedStep


def file_metadata(plan: Plan, file: str) -> dict[str, str]:
    """Metadata in the header of an output file; for masks, also the location of the base."""
    plain = {"format": "pt"}
    if not file.startswith(f"{MASKS_FOLDER}/"):
        return plain
    label = plan.models[BASE].label
    return plain | {"polyak": MASKS_KIND, "base": str(Path(label).absolute()) if Path(label).exists() else label}


def without_masks(plan: Plan) -> Plan:
    """The same merge without masks, for results that are not folders."""
    return replace(plan, steps=tuple(_bare(step) for step in plan.steps if step.kind != "mask"))


def _bare(step: Step) -> Step:
    return replace(step, masks=(), settings={**step.settings, "masks": False}) if step.masks else step


class MaskPacker:
    """Packs the masks of a chunk as its tiles go by.

    Args:
        chunk: Chunk of a step with masks.
        algorithm: Digest algorithm.
    """

    def __init__(self, chunk: Chunk, algorithm: str) -> None:
        self._span, self._masks = chunk, [mask for mask, _ in chunk.prepared.step.masks]
        self._scales = [scale for _, scale in chunk.prepared.step.masks]
        self._leaves = [Leaves(algorithm) for _ in self._masks]
        self._algorithm = algorithm
        self._packed: list[Any] = []
        self._begin = chunk.start
        self._factors: Any = np.ones(len(self._masks), np.float32)

    def observe(self, loaded: Loaded, start: int, stop: int) -> None:
        """Find and pack the masks of entries [start, stop); `start` is a multiple of eight."""
        method, prepared = self._span.prepared.method, self._span.prepared
        if method.mask_kernel is not None:
            packed = np.empty((len(self._masks), -(-(stop - start) // 8)), np.uint8)
            scale = call(method.mask_kernel, kernel_supply(prepared, loaded, start, stop) | {"packed": packed})
        else:
            assert method.masks is not None
            masks: Masks = call(method.masks, definition_supply(prepared, loaded, start, stop))
            packed, scale = np.packbits(masks.keep, axis=1, bitorder="little"), masks.scale
        self._factors = np.asarray(scale, np.float32)
        self._packed.append(packed)

    def taken(self, stop: int) -> Iterator[tuple[Step, int, Any]]:
        """Masks packed since the last call, up to entry `stop`: the step, its first byte, and the bytes.

        A tile may have been looked at whose merged numbers still wait to be written.
        """
        packed, begin = np.concatenate(self._packed, axis=1), self._begin // 8
        rows, self._packed = packed[:, : -(-stop // 8) - begin], [packed[:, -(-stop // 8) - begin :]]
        self._begin = stop
        for mask, leaves, row in zip(self._masks, self._leaves, rows, strict=True):
            leaves.update(row)
            yield mask, begin, row

    def scales(self) -> Iterator[tuple[Step, Any]]:
        """The scales, which are written with the first chunk: the step, and its bytes."""
        if self._span.number == 0:
            for step, factor in zip(self._scales, self._factors, strict=True):
                yield step, factor.reshape(1).view(np.uint8)

    def digests(self) -> Iterator[tuple[Chunk, bytes]]:
        """Each step written with the chunk, as a chunk, with the digests of its leaves."""
        start, stop, number = self._span.start // 8, -(-self._span.stop // 8), self._span.number
        for mask, leaves in zip(self._masks, self._leaves, strict=True):
            yield Chunk(PreparedStep(mask, 0), start, stop, number), leaves.digests()
        for scale, data in self.scales():
            leaves = Leaves(self._algorithm)
            leaves.update(data)
            yield Chunk(PreparedStep(scale, 0), 0, 1), leaves.digests()


def steps_of(chunk: Chunk) -> list[tuple[Step, int]]:
    """Every step that merging a chunk writes to, with the number of its chunk."""
    own = [(chunk.prepared.step, chunk.number)]
    masks = [(mask, chunk.number) for mask, _ in chunk.prepared.step.masks]
    return own + masks + ([(scale, 0) for _, scale in chunk.prepared.step.masks] if chunk.number == 0 else [])
