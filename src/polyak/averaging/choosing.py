"""Selection of the checkpoints of a run that are averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import SettingError, suggestion
from .runs import RunCheckpoint

_LOWER = ("loss", "perplexity", "ppl", "error", "wer", "cer", "nll", "mae", "mse", "rmse")
_HIGHER = ("acc", "f1", "bleu", "rouge", "precision", "recall", "score", "match", "auc", "map", "mrr", "ndcg", "corr")


@dataclass(frozen=True)
class Choice:
    """Filters that select checkpoints of a run for an average, applied in this order.

    Attributes:
        after: Leave out checkpoints saved before this fraction of the run's steps.
        last: Keep only the last N checkpoints (default: all).
        stride: Use every N-th checkpoint, counted back from the latest.
        dev: A metric on development data; checkpoints whose score is far below the best are left out.
        floor: Minimum share of the best score (for a lower-is-better metric, of the best score over the checkpoint's).
    """

    after: float = 0.0
    last: int | None = None
    stride: int = 1
    dev: str | None = None
    floor: float = 0.9


def chosen(
    run: Sequence[RunCheckpoint], choice: Choice, *, higher_is_better: bool | None = None
) -> tuple[list[RunCheckpoint], list[str]]:
    """The checkpoints to average, and a note for each one that was left out.

    Early, under-trained checkpoints hurt an average, hence `floor`.

    Raises:
        SettingError: a setting is out of range, or no checkpoint is left.
    """
    if not 0 <= choice.after < 1:
        raise SettingError(f"the fraction of a run to leave out must be in [0, 1); got {choice.after!r}.")
    if choice.stride < 1 or (choice.last is not None and choice.last < 1):
        raise SettingError(f"last and stride must be at least 1; got {choice.last!r} and {choice.stride!r}.")
    kept = [checkpoint for checkpoint in run if checkpoint.step >= choice.after * run[-1].step][:: -choice.stride]
    kept = kept[: choice.last][::-1]
    if choice.last is not None and len(kept) < choice.last:
        raise SettingError(f"there are only {len(kept)} checkpoints to choose from; last is {choice.last}.")
    if choice.dev is None:
        return kept, []
    return _good(kept, choice.dev, choice.floor, higher_is_better)


def _good(
    kept: list[RunCheckpoint], dev: str, floor: float, higher_is_better: bool | None
) -> tuple[list[RunCheckpoint], list[str]]:
    if not 0 <= floor <= 1:
        raise SettingError(f"the floor is a share of the best score and must be in [0, 1]; got {floor!r}.")
    higher = is_higher_better(dev, higher_is_better)
    scores = metric_of(kept, dev)
    best = max(scores) if higher else min(scores)
    good = [score >= floor * best if higher else floor * score <= best for score in scores]
    notes = [
        f"left out: {checkpoint.name}, whose {dev} of {score:.4g} is too far from the best, {best:.4g}"
        for checkpoint, score, is_good in zip(kept, scores, good, strict=True)
        if not is_good
    ]
    return [checkpoint for checkpoint, is_good in zip(kept, good, strict=True) if is_good], notes


def metric_of(run: Sequence[RunCheckpoint], name: str) -> list[float]:
    """A metric of each checkpoint; `step` always exists.

    Raises:
        SettingError: it was not logged for one of them.
    """
    if name == "step":
        return [float(checkpoint.step) for checkpoint in run]
    for checkpoint in run:
        if name not in checkpoint.metrics:
            raise SettingError(
                f"no {name!r} was logged for {checkpoint.name}. {suggestion(name, [*checkpoint.metrics, 'step'])} "
                "Or list path, step and the metric in a CSV and give it as --table."
            )
    return [checkpoint.metrics[name] for checkpoint in run]


def is_higher_better(name: str, stated: bool | None) -> bool:
    """Direction of a metric: as given, else by its name.

    Raises:
        SettingError: the name is ambiguous.
    """
    if stated is not None:
        return stated
    parts = name.lower().replace("-", "_").split("_")
    if name == "step":
        return True
    if any(part in _LOWER for part in parts):
        return False
    if any(part.startswith(_HIGHER) for part in parts):
        return True
    raise SettingError(
        f"it is unclear whether a higher {name!r} is better: give --higher-is-better or --lower-is-better."
    )
