"""Tasks whose examples are rows, and the module that runs them."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from .. import checkpoint as checkpoints
from ..errors import TaskError
from ..modules import Build, bring_to_life
from ._batch import Batch
from ._task import Task
from .rows import Rows

if TYPE_CHECKING:
    from torch import Tensor

    from ..checkpoint import Checkpoint
    from ..modules import LiveModel


@dataclass(frozen=True)
class Body:
    """The module that runs a task.

    Attributes:
        build: From a state dict to the module.
        heads: Regular expression for the tensors that stay with the task.
        head: The model from which they are read; None takes those of the evaluated model.
        unused: Regular expression for tensors that the module does not use.
    """

    build: Build
    heads: str = ""
    head: Path | None = None
    unused: str = ""


class ExampleTask(Task):
    """Rows in splits, a module that runs them, and settings that the digest covers.

    Args of the constructor:
        name: Its name in reports.
        metric: A metric of the kind of task.
        data: The rows of each split.
        body: The module that runs it.
        settings: Other settings that scores depend on, as plain data; part of the digest.
        notes: Messages for the user.
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
        """A batch of some rows; `examples` are their positions in the split."""

    def lengths(self, rows: Rows) -> Sequence[int]:
        """Approximate length of each example; examples of similar length share a batch, to reduce padding."""
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
        if seed is None or limit is not None:  # the order does not matter here, only the set of examples
            lengths = self.lengths(self.data[split].take(chosen))
            chosen = [i for _, i in sorted(zip(lengths, chosen, strict=True), key=lambda pair: pair[0])]
        for start in range(0, len(chosen), batch_size):
            part = chosen[start : start + batch_size]
            yield self.collate(self.data[split].take(part), tuple(part))

    def batch(self, split: str, examples: Sequence[int]) -> Batch:
        self.check_split(split)
        return self.collate(self.data[split].take(examples), tuple(examples))

    def digest(self, split: str) -> str:
        import xxhash

        self.check_split(split)
        hasher = xxhash.xxh3_128()
        about = {"kind": type(self).__name__, "metric": self.metric, "split": split, **self.settings}
        hasher.update(json.dumps(about, sort_keys=True).encode())
        if self.body.head is not None:
            with checkpoints.open(self.body.head) as head:
                hasher.update(digest_of_model(head).encode())
        for fingerprint in self.data[split].fingerprints:
            hasher.update(fingerprint)
        return hasher.hexdigest()

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
    """Digest of the contents of all tensors, as in provenance."""
    from ..inspection import digest_of
    from ..storage import model_digest

    return model_digest({name: digest_of(checkpoint, name, "xxh3-128") for name in checkpoint.specs}, "xxh3-128")


def logits_of(result: Any) -> Tensor:
    """The logits in a module's result: the tensor itself, its `logits`, or the first tensor of a tuple or list.

    A mapping or dataclass without `logits` may have one entry with that word in its name, such as `class_logits`.
    Scalars in a tuple, such as a loss before the logits, are skipped.

    Raises:
        TaskError: the result has no logits.
    """
    logits: Any = getattr(result, "logits", result)
    if isinstance(logits, Mapping) or is_dataclass(logits):
        logits = _named_logits(cast("Mapping[str, Any]", logits if isinstance(logits, Mapping) else vars(logits)))
    if isinstance(logits, (tuple, list)):
        tensors = [value for value in cast("Sequence[Any]", logits) if hasattr(value, "detach") and value.ndim > 0]
        logits = tensors[0] if tensors else None
    if logits is None or not hasattr(logits, "detach"):
        keys = f" with the keys {', '.join(map(str, result))}" if isinstance(result, Mapping) else ""
        raise TaskError(
            f"the module returns an object of type {type(result).__name__}{keys}, which has no logits: expected a "
            "tensor, an output with `logits`, or a tuple that holds them. Return them so, or name another --module."
        )
    return logits


def _named_logits(outputs: Mapping[str, Any]) -> Any:
    """The entry called `logits`, or the only one with that word in its name, or None."""
    named = [name for name, value in outputs.items() if "logits" in str(name) and value is not None]
    if "logits" in named:
        return outputs["logits"]
    return outputs[named[0]] if len(named) == 1 else None
