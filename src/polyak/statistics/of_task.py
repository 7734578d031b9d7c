"""Statistics of a model on the examples of a task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import TaskError
from ..tasks import Batch, LiveModel, Task
from ..tasks.running import guarded
from ._api import Identify, Statistic
from .fisher import Estimator, Fisher
from .gram import Gram

if TYPE_CHECKING:
    from torch import Tensor, nn

EXAMPLES = 256
CLASSES = 10  # up to how many the sum over classes is taken by default


@dataclass(frozen=True)
class Data:
    """Some examples of a task.

    Attributes:
        task: The task.
        split: Which of its splits.
        examples: At most so many.
        batch_size: So many go together, at most.
        seed: Chooses examples at random; None takes the first.
        device: Where the module is.
    """

    task: Task
    split: str = "calibration"
    examples: int | None = EXAMPLES
    batch_size: int = 16
    seed: int | None = None
    device: str = "cpu"

    def count(self) -> int:
        """How many examples there will be."""
        self.task.check_split(self.split)
        there = self.task.count(self.split)
        return there if self.examples is None else min(self.examples, there)

    def batches(self) -> Iterator[Batch]:
        """The examples in batches, in the same order each time."""
        found: Iterable[Batch] = self.task.batches(
            self.split, limit=self.examples, batch_size=self.batch_size, seed=self.seed
        )
        return (batch.to(self.device) for batch in found)

    def trees(self) -> Iterator[dict[str, Any]]:
        """The same, as statistics take them apart."""
        return ({"batch": _Whole(batch), **_tensors(batch)} for batch in self.batches())

    @property
    def digest(self) -> str:
        return f"{self.task.digest(self.split)} {self.examples} {self.batch_size} {self.seed}"

    @property
    def identify(self) -> Identify:
        digest = self.task.digest(self.split)
        return lambda tree: (f"{digest} {i}".encode() for i in tree["batch"].batch.examples)


@dataclass(frozen=True)
class _Whole:
    """Hides a batch from being taken apart."""

    batch: Batch


def _tensors(batch: Batch) -> dict[str, Any]:
    return {"inputs": dict(batch.inputs), "targets": batch.targets, "mask": batch.mask}


def _as_batch(tree: Mapping[str, Any]) -> Batch:
    """The examples of a tree, which may be some of its batch's."""
    inputs = tree["inputs"]
    n = len(next(iter(inputs.values())))
    return Batch(inputs, tree["targets"], tuple(range(n)), tree["mask"])


def outputs_of(task: Task) -> Callable[[nn.Module, Any], Tensor]:
    """What a module says of a task's batch, from `Data.trees`."""
    return lambda module, tree: task.outputs(module, _as_batch(tree))


def fisher_of(
    data: Data, live: LiveModel, *, estimator: Estimator | None = None, samples: int = 1, seed: int = 0
) -> Fisher:
    """Fisher information of a model on a task.

    Args:
        data: On what.
        live: The model.
        estimator: See `Fisher` (default: exact for regression and for up to 10 classes, else sampled).
        samples: Draws an example, for `sampled`.
        seed: Seeds them.

    Raises:
        TaskError: the task has no likelihood.
    """
    task = data.task
    if task.likelihood is None:
        raise TaskError(f"task {task.name!r} does not say what outputs mean, so there is no Fisher information on it.")
    return Fisher(
        live.module,
        outputs_of(task),
        likelihood=task.likelihood,
        estimator=estimator or _default(data, live),
        targets=lambda tree: tree["targets"],
        samples=samples,
        seed=seed,
        names=live.names,
        identify=data.identify,
    )


def _default(data: Data, live: LiveModel) -> Estimator:
    if data.task.likelihood == "regression":
        return "exact"
    return "exact" if data.task.likelihood == "classification" and classes(data, live) <= CLASSES else "sampled"


def classes(data: Data, live: LiveModel) -> int:
    """How many numbers the model says of each place, seen on the first example."""
    import torch

    for batch in data.task.batches(data.split, limit=1, batch_size=1):
        here, who = batch.to(data.device), f"task {data.task.name!r}, model {live.label}"
        with torch.no_grad():
            return int(guarded(lambda here=here: data.task.outputs(live.module, here), who).shape[-1])
    raise TaskError(f"task {data.task.name!r} has no example in the split {data.split!r}.")


def gram_of(data: Data, live: LiveModel) -> Gram:
    """Grams of a model's layers on a task, without padding."""
    return Gram(
        live.module, outputs_of(data.task), mask=lambda tree: tree["mask"], names=live.names, identify=data.identify
    )


def cost(statistic: Statistic, data: Data, live: LiveModel) -> str:
    """What a measurement takes, in words."""
    entries = sum(place.numel() for place in live.parameters.values())
    n = data.count()
    if isinstance(statistic, Gram):
        return f"{n} examples, forwards once each; the Grams take {statistic.cost() / 1e6:.0f} MB while they are summed"
    assert isinstance(statistic, Fisher)
    exact, sequences = statistic.estimator == "exact", data.task.likelihood in ("tokens", "language_model")
    passes = classes(data, live) if exact else statistic.samples if statistic.estimator == "sampled" else 1
    each = "position of each example" if exact and sequences else "example"
    return (
        f"{n} examples, {passes} backward pass{'es' * (passes != 1)} for each {each}, through {entries / 1e6:.3g} M "
        f"parameters; the sums take {8 * entries / 1e6:.3g} MB"
    )
