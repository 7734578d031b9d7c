"""Log-likelihoods of targets under the outputs of a module, one per example."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ..errors import TaskError
from ._batch import IGNORED, Likelihood

if TYPE_CHECKING:
    from torch import Tensor


def negative_log_likelihood(
    likelihood: Likelihood, outputs: Tensor, targets: Tensor, *, per: Literal["example", "position"] = "example"
) -> Tensor:
    """Minus the log-probability of each example's targets, (n,); differentiable in the outputs.

    Categorical over the last axis; a unit Gaussian, without its constant, for `regression`.

    Args:
        likelihood: Distribution that the outputs parametrise.
        outputs: (n, classes), (n, positions, classes) or (n, k).
        targets: In the shape that `Task` gives; positions with target `IGNORED` do not count.
        per: `example` sums over the positions of an example, which is its log-probability; `position` averages
            over those with a target (0 without any).

    Raises:
        TaskError: the shapes differ, or a label is out of range.
    """
    import torch

    if likelihood == "regression":
        _check_shapes(outputs.shape, targets.shape, likelihood)
        return 0.5 * (outputs.float() - targets).square().flatten(1).sum(1)
    _check_shapes(outputs.shape[:-1], targets.shape, likelihood)
    check_labels(targets, outputs.shape[-1])
    entries = torch.nn.functional.cross_entropy(
        outputs.float().flatten(0, -2), targets.flatten(), reduction="none", ignore_index=IGNORED
    )
    summed = entries.view(len(targets), -1).sum(1)
    return summed if per == "example" else summed / counted(targets).clamp(min=1)


def counted(targets: Tensor) -> Tensor:
    """Number of positions with a target per example, (n,)."""
    return (targets != IGNORED).view(len(targets), -1).sum(1)


def check_labels(targets: Tensor, classes: int) -> None:
    """Refuse labels beyond the last class.

    Raises:
        TaskError: the message gives the label and the number of classes.
    """
    wrong = targets[(targets != IGNORED) & ((targets < 0) | (targets >= classes))]
    if len(wrong):
        raise TaskError(
            f"label {int(wrong[0])} is out of range: the model has {classes} outputs, numbered from 0. "
            "Check the labels, and that the head belongs to this task."
        )


def _check_shapes(outputs: tuple[int, ...], targets: tuple[int, ...], likelihood: str) -> None:
    if tuple(outputs) != tuple(targets):
        raise TaskError(
            f"outputs have shape {tuple(outputs)} (without classes), targets {tuple(targets)}; the likelihood "
            f"{likelihood!r} needs equal shapes. See polyak.tasks.Task for the shapes."
        )
