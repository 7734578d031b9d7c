"""Labels and metrics of classifications of texts, images and choices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ..errors import TaskError, suggestion
from ._batch import Batch, Likelihood
from .examples import ExampleTask, logits_of
from .likelihood import check_labels
from .rows import Rows

if TYPE_CHECKING:
    from torch import Tensor, nn

Metric: TypeAlias = Literal["accuracy", "balanced_accuracy", "loss"]
LARGEST_LABEL = 2**31  # beyond what any model has outputs for


class Classification(ExampleTask):
    """One label per example; rows have an integer column `label`.

    `accuracy` is the share of examples whose largest logit is the label's; `balanced_accuracy` weights examples so that
    every class of the split counts equally; `loss` is the mean negative log-likelihood, in nats.
    """

    likelihood: Likelihood | None = "classification"

    @property
    def higher_is_better(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.metric != "loss"

    def targets(self, rows: Rows) -> Tensor:
        import torch

        return torch.tensor(list(rows.columns["label"]), dtype=torch.int64)

    def outputs(self, module: nn.Module, batch: Batch) -> Tensor:
        logits = logits_of(module(**batch.inputs))
        if logits.ndim != 2 or len(logits) != len(batch):
            raise TaskError(f"logits must be (examples, classes); the module returns {tuple(logits.shape)}.")
        return logits

    def scores(self, module: nn.Module, batch: Batch) -> Tensor:
        outputs = self.outputs(module, batch)
        if batch.targets is None:
            raise TaskError("there are no labels.")
        if self.metric == "loss":
            return self.losses_of(outputs, batch)
        check_labels(batch.targets, outputs.shape[-1])
        # argmax of NaNs is 0: without this, a broken model would be right about label 0.
        right = (outputs.argmax(-1) == batch.targets).double()
        return right.where(outputs.isfinite().all(-1), float("nan"))

    def weights(self, batch: Batch) -> Tensor:
        return batch.extra.get("weights", super().weights(batch))

    def majority(self, split: str, examples: Sequence[int]) -> float | None:
        if self.metric == "loss":
            return None
        rows = self.data[split].take(examples)
        counts, labels = Counter[int](), list(rows.columns["label"])
        weights = rows.columns.get("weight", [1] * len(labels))
        for label, weight in zip(labels, weights, strict=True):
            counts[label] += weight
        return max(counts.values()) / sum(counts.values())

    def extra(self, rows: Rows) -> Mapping[str, Any]:
        """Extra data of a batch, for `weights`."""
        import torch

        if "weight" not in rows.columns:
            return {}
        return {"weights": torch.tensor(list(rows.columns["weight"]), dtype=torch.float64)}


def balanced(rows: Rows) -> Rows:
    """The rows with a column `weight`: the inverse frequency of the label."""
    counts = Counter(rows.columns["label"])
    weights = [1 / counts[label] for label in rows.columns["label"]]
    return Rows({**rows.columns, "weight": weights}, rows.label, rows.numbers)


def labelled(data: Mapping[str, Rows], names: Sequence[str], classes: int | None, metric: str) -> dict[str, Rows]:
    """The rows of each split with labels as integers, and with balanced weights for balanced accuracy."""
    read = {split: read_labels(rows, names, classes) for split, rows in data.items()}
    return {split: balanced(rows) for split, rows in read.items()} if metric == "balanced_accuracy" else read


def read_labels(rows: Rows, names: Sequence[str], classes: int | None) -> Rows:
    """The rows with labels as integers from 0.

    Args:
        rows: With a column `label` of integers, names, or integers as text.
        names: The labels' names in the order of the model's outputs; empty if labels are numbers.
        classes: Number of classes, if known.

    Raises:
        TaskError: a label is neither, or out of range.
    """
    positions = positions_of(names)
    limit = len(names) or classes
    labels = [_label(value, positions, limit, rows, i) for i, value in enumerate(rows.columns["label"])]
    return Rows({**rows.columns, "label": labels}, rows.label, rows.numbers)


def positions_of(labels: Sequence[str]) -> dict[str, int]:
    """The output of the model for each label's name.

    Raises:
        TaskError: a name occurs twice.
    """
    positions = {name: i for i, name in enumerate(labels)}
    if len(positions) < len(labels):
        twice = next(name for name, times in Counter(labels).items() if times > 1)
        raise TaskError(f"`labels` names {twice!r} twice; give one name per output of the model.")
    return positions


def _label(value: Any, positions: dict[str, int], limit: int | None, rows: Rows, i: int) -> int:
    if isinstance(value, str) and value in positions:
        return positions[value]
    if isinstance(value, str) and positions:
        raise TaskError(f"{rows.place(i)}: unknown label {value!r}. {suggestion(value, positions)}")
    is_number = value.strip().isdecimal() if isinstance(value, str) else _is_whole(value)
    if not is_number:
        raise TaskError(
            f"{rows.place(i)}: the label must be an integer; got {value!r:.60}. Where labels are names, list them "
            "as `labels:`, in the order of the model's outputs."
        )
    number = int(value)
    if number < 0 or number >= (LARGEST_LABEL if limit is None else limit):
        known_as = "from 0" if limit is None else f"from 0 to {limit - 1}"
        raise TaskError(f"{rows.place(i)}: label {number} is out of range; labels are numbered {known_as}.")
    return number


def _is_whole(value: Any) -> bool:
    return not isinstance(value, bool) and hasattr(value, "__index__")
