"""Measures of classifiers in addition to accuracy: calibration, the worst class, ensembles, distances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ...checkpoint import Checkpoint
from ...tasks import Task
from .._models import BATCH, live_model
from .._setup import Setup

Numbers: TypeAlias = "npt.NDArray[np.float64]"
BINS = 15


def predictions(setup: Setup, model: Checkpoint, task: Task, split: str) -> tuple[Numbers, npt.NDArray[np.int64]]:
    """Probabilities of the classes, (examples, classes), and labels, (examples,), in an order that models share."""
    import torch

    live, rows, labels = live_model(setup, model), list[Any](), list[Any]()
    with torch.inference_mode():
        for batch in task.batches(split, batch_size=BATCH):
            logits = task.outputs(live.module, batch.to(setup.device))
            rows.append(logits.double().softmax(-1).cpu().numpy())
            assert batch.targets is not None
            labels.append(batch.targets.cpu().numpy())
    return np.concatenate(rows), np.concatenate(labels)


def accuracy(probabilities: Numbers, labels: npt.NDArray[np.int64]) -> float:
    """Share of examples whose most probable class is the label."""
    return float((probabilities.argmax(1) == labels).mean())


def calibration_error(probabilities: Numbers, labels: npt.NDArray[np.int64], bins: int = BINS) -> float:
    """Expected calibration error: sum over bins of share * |accuracy - mean confidence|.

    Bins of confidence are ((i - 1) / bins, i / bins]. Source: Guo et al., 2017, arXiv:1706.04599.
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(place, right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def worst_class(probabilities: Numbers, labels: npt.NDArray[np.int64]) -> float:
    """The lowest accuracy of a class that occurs."""
    right = probabilities.argmax(1) == labels
    return min(float(right[labels == label].mean()) for label in np.unique(labels))


def distances(candidates: Sequence[Checkpoint], names: Sequence[str]) -> list[dict[str, float]]:
    """The Euclidean distance of each candidate from their mean, and its angle to the mean, in degrees.

    Args:
        candidates: The models.
        names: Tensors that count.
    """
    squares, norms, products, mean_norm = (np.zeros(len(candidates)) for _ in range(4))
    for name in names:
        stacked = np.stack([model.read(name).astype(np.float64).ravel() for model in candidates])
        mean = stacked.mean(0)
        squares += ((stacked - mean) ** 2).sum(1)
        norms += (stacked**2).sum(1)
        products += stacked @ mean
        mean_norm += mean @ mean
    cosines = np.clip(products / np.maximum(np.sqrt(norms * mean_norm), 1e-300), -1, 1)
    return [
        {"distance": float(distance), "angle": float(angle)}
        for distance, angle in zip(np.sqrt(squares), np.degrees(np.arccos(cosines)), strict=True)
    ]


def of_classifier(probabilities: Numbers, labels: npt.NDArray[np.int64]) -> Mapping[str, float]:
    """All measures of one classifier."""
    return {
        "calibration error": calibration_error(probabilities, labels),
        "worst class": worst_class(probabilities, labels),
    }
