"""Examples of a task, as statistics observe them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import TaskError
from ..tasks import Batch, LiveModel, Task, guarded
from ._statistic import Identify, Outputs

EXAMPLES = 256


@dataclass(frozen=True)
class Data:
    """Some examples of a task.

    Attributes:
        task: The task.
        split: One of its splits.
        examples: Maximum number of examples; None takes all.
        batch_size: Maximum number of examples per batch.
        seed: Chooses examples at random; None takes the first.
        device: Device of the module, as torch names it.
    """

    task: Task
    split: str = "calibration"
    examples: int | None = EXAMPLES
    batch_size: int = 16
    seed: int | None = None
    device: str = "cpu"

    def count(self) -> int:
        """Number of examples that will be observed."""
        self.task.check_split(self.split)
        available = self.task.count(self.split)
        return available if self.examples is None else min(self.examples, available)

    def batches(self) -> Iterator[Batch]:
        """The examples in batches, in the same order each time."""
        batches: Iterable[Batch] = self.task.batches(
            self.split, limit=self.examples, batch_size=self.batch_size, seed=self.seed
        )
        return (batch.to(self.device) for batch in batches)

    def trees(self) -> Iterator[dict[str, Any]]:
        """The batches as statistics observe them: mappings with `inputs`, `targets` and `mask`."""
        return ({"batch": _Opaque(batch), **_tensors(batch)} for batch in self.batches())

    @property
    def digest(self) -> str:
        return f"{self.task.digest(self.split)} {self.examples} {self.batch_size} {self.seed}"

    @property
    def outputs(self) -> Outputs:
        """The outputs of a module for a batch, as a function of both."""
        return lambda module, tree: self.task.outputs(module, _as_batch(tree))

    @property
    def identify(self) -> Identify:
        digest = self.task.digest(self.split)
        return lambda tree: (f"{digest} {i}".encode() for i in tree["batch"].batch.examples)


@dataclass(frozen=True)
class _Opaque:
    """Wrapper that keeps a batch from being flattened."""

    batch: Batch


def _tensors(batch: Batch) -> dict[str, Any]:
    return {"inputs": dict(batch.inputs), "targets": batch.targets, "mask": batch.mask}


def _as_batch(tree: Mapping[str, Any]) -> Batch:
    """The batch of a tree, which may hold only some of its examples."""
    inputs = tree["inputs"]
    n = len(next(iter(inputs.values())))
    return Batch(inputs, tree["targets"], tuple(range(n)), tree["mask"])


def classes(data: Data, live: LiveModel) -> int:
    """Size of the last axis of the outputs, from the first example."""
    import torch

    for batch in data.task.batches(data.split, limit=1, batch_size=1):
        moved, who = batch.to(data.device), f"task {data.task.name!r}, model {live.label}"
        with torch.no_grad():
            return int(guarded(lambda moved=moved: data.task.outputs(live.module, moved), who).shape[-1])
    raise TaskError(f"task {data.task.name!r} has no example in the split {data.split!r}.")
