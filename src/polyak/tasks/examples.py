"""Tasks whose examples are rows, run by a module that is built anew for each architecture."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import checkpoint as checkpoints
from ..errors import TaskError
from ..modules.recognition import Build, bring_to_life
from ._api import Batch, Task
from .rows import Rows

if TYPE_CHECKING:
    from torch import Tensor

    from ..checkpoint import Checkpoint
    from ..modules.live import LiveModel


@dataclass(frozen=True)
class Body:
    """What runs a task.

    Attributes:
        build: Makes the module from a state dict.
        heads: Regular expression for the tensors that stay with the task.
        head: The model that they are read from; None takes those of the model that is evaluated.
        unused: Regular expression for tensors that the module has no use for.
    """

    build: Build
    heads: str = ""
    head: Path | None = None
    unused: str = ""


class ExampleTask(Task):
    """Rows in splits, a module that runs them, and settings that the digest covers.

    Args of the constructor:
        name: What reports call it.
        metric: One of those that the kind of task knows.
        data: The rows of each split.
        body: What runs it.
        settings: Whatever else the scores depend on, as plain data.
        notes: What the user should know.
    """

    def __init__(
        self,
        name: str,
        metric: str,
        data: Mapping[str, Rows],
        body: Body,
        *,
        settings: Mapping[str, Any],
        notes: tuple[str, ...] = (),
    ) -> None:
        self.name, self.metric, self.notes = name, metric, notes
        self.data, self.body, self.settings = data, body, settings
        self.splits = tuple(data)

    @abstractmethod
    def collate(self, rows: Rows, examples: tuple[int, ...]) -> Batch:
        """Rows that go together; `examples` are their positions in the split."""

    def lengths(self, rows: Rows) -> Sequence[int]:
        """How long each example is, roughly: those alike go together, so that little of a batch is padding."""
        return [0] * len(rows)

    def count(self, split: str) -> int:
        self.check_split(split)
        return len(self.data[split])

    def batches(
        self, split: str, *, limit: int | None = None, batch_size: int = 32, seed: int | None = None
    ) -> Iterator[Batch]:
        total = self.count(split)
        order = range(total) if seed is None else np.random.default_rng(seed).permutation(total).tolist()
        chosen = list(order)[:limit]
        if seed is None or limit is not None:  # what is wanted is a set of examples, not their order
            lengths = self.lengths(self.data[split].take(chosen))
            chosen = [i for _, i in sorted(zip(lengths, chosen, strict=True), key=lambda pair: pair[0])]
        for start in range(0, len(chosen), batch_size):
            part = chosen[start : start + batch_size]
            yield self.collate(self.data[split].take(part), tuple(part))

    def digest(self, split: str) -> str:
        import xxhash

        self.check_split(split)
        found = xxhash.xxh3_128()
        about = {"kind": type(self).__name__, "metric": self.metric, "split": split, **self.settings}
        found.update(json.dumps(about, sort_keys=True).encode())
        if self.body.head is not None:
            with checkpoints.open(self.body.head) as head:
                found.update(digest_of_model(head).encode())
        for fingerprint in self.data[split].fingerprints:
            found.update(fingerprint)
        return found.hexdigest()

    def live(self, checkpoint: Checkpoint) -> LiveModel:
        body = self.body
        try:
            if body.head is None:
                return bring_to_life(body.build, checkpoint, heads=body.heads, unused=body.unused)
            with checkpoints.open(body.head) as head:
                return bring_to_life(body.build, checkpoint, heads=body.heads, head=head, unused=body.unused)
        except TaskError as error:
            raise TaskError(f"task {self.name!r}: {error}") from error


def digest_of_model(checkpoint: Checkpoint) -> str:
    """Digest of the contents of all tensors, as provenance has it."""
    from ..inspection import digest_of
    from ..storage import model_digest

    return model_digest({name: digest_of(checkpoint, name, "xxh3-128") for name in checkpoint.specs}, "xxh3-128")


def logits_of(result: Any) -> Tensor:
    """The logits that a module returned: the tensor itself, its `logits`, or the first of several results.

    Raises:
        TaskError: it returned nothing of the kind.
    """
    found: Any = getattr(result, "logits", result)
    if isinstance(found, tuple):
        found = found[0] if found else None
    if found is None or not hasattr(found, "detach"):
        raise TaskError(f"the module returns a {type(result).__name__}, in which there are no logits.")
    return found
