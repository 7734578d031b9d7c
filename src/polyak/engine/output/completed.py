"""The completed chunks of a merge and their digests, from which journal and provenance are written."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import CannotResume
from ...planning import Plan, Step
from ...storage import LEAF_NBYTES, Leaves, root
from ..step.chunks import Chunk, chunk_length
from ..step.masks import steps_of
from .shards import ShardWriter


class CompletedChunks:
    """The completed chunks of a plan; safe from any thread.

    Args of the constructor:
        plan: The plan of the merge.
        algorithm: Digest algorithm.
    """

    def __init__(self, plan: Plan, algorithm: str) -> None:
        self._plan, self._algorithm = plan, algorithm
        self._number = {(s.file, s.out.name): i for i, s in enumerate(plan.steps)}
        self._leaves: dict[tuple[int, int], tuple[bytes, list[bytes]]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._leaves)

    def is_missing(self, chunk: Chunk) -> bool:
        """True if a chunk, or a mask that is written with it, is not complete yet."""
        return any((self._index(step), number) not in self._leaves for step, number in steps_of(chunk))

    def enter(self, chunk: Chunk, out: bytes, reads: Sequence[bytes]) -> Mapping[str, Any]:
        """Enter a chunk with the digests of its leaves, written and read; returns its journal entry."""
        index = self._index(chunk.prepared.step)
        with self._lock:
            self._leaves[index, chunk.number] = (out, list(reads))
        return {"step": index, "piece": chunk.number, "out": out.hex(), "reads": [r.hex() for r in reads]}

    def take_back(self, entries: Sequence[Mapping[str, Any]], files: ShardWriter) -> None:
        """Trust a journalled chunk only if its bytes are still what the journal says.

        Raises:
            CannotResume: an entry is not one that a merge writes.
        """
        for entry in entries:
            if "step" not in entry:
                continue
            try:
                number, piece, out, reads = self._checked(entry)
            except (KeyError, TypeError, ValueError, IndexError):
                raise CannotResume("the journal of the unfinished merge is damaged. Start over with --force.") from None
            if self._digest_of_chunk(self._plan.steps[number], piece, files) == out:
                self._leaves[number, piece] = (out, reads)

    def _checked(self, entry: Mapping[str, Any]) -> tuple[int, int, bytes, list[bytes]]:
        number, piece = entry["step"], entry["piece"]
        out, reads = bytes.fromhex(entry["out"]), [bytes.fromhex(read) for read in entry["reads"]]
        if type(number) is not int or type(piece) is not int or number < 0 or piece < 0:
            raise ValueError
        step = self._plan.steps[number]
        if piece * chunk_length(step) >= max(step.out.numel, 1) or len(reads) != len(step.every_read):
            raise ValueError
        return number, piece, out, reads

    def _index(self, step: Step) -> int:
        return self._number[step.file, step.out.name]

    def _digest_of_chunk(self, step: Step, number: int, files: ShardWriter) -> bytes:
        leaves = Leaves(self._algorithm)
        length, entry_nbytes = chunk_length(step), step.out.dtype.itemsize
        start, stop = number * length, min((number + 1) * length, step.out.numel)
        for begin in range(start, stop, LEAF_NBYTES // entry_nbytes):
            end = min(begin + LEAF_NBYTES // entry_nbytes, stop)
            leaves.update(files.read(step, begin, (end - begin) * entry_nbytes))
        return leaves.digests()

    def digests(self) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
        """The digests of tensors by name: of what was written, and by model of what was read."""
        chunks: dict[int, list[tuple[bytes, list[bytes]]]] = {}
        for index, number in sorted(self._leaves):
            chunks.setdefault(index, []).append(self._leaves[index, number])
        outputs: dict[str, str] = {}
        inputs: dict[str, dict[str, str]] = {}
        for index, parts in chunks.items():
            step = self._plan.steps[index]
            name = step.out.name if step.file is None else f"{step.file}:{step.out.name}"
            outputs[name] = root((out for out, _ in parts), self._algorithm)
            for i, read in enumerate(step.every_read):
                inputs.setdefault(read.model, {})[read.spec.name] = root(
                    (reads[i] for _, reads in parts), self._algorithm
                )
        return outputs, inputs
