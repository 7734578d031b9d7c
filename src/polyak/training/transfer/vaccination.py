"""Gradient vaccination: a step that would raise the loss of one language is made orthogonal to its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .mixed import Mixed

if TYPE_CHECKING:
    from torch import Tensor

    from ...modules import LiveModel


def vaccinate(gradients: Sequence[Tensor], oracle: Sequence[Tensor]) -> float:
    """Project gradients in place: g <- g - min(<g, o> / <o, o>, 0) o, over all tensors as one vector.

    <g, o> >= 0 afterwards. A zero oracle changes nothing. Products are summed in float64.

    Args:
        gradients: Gradients of the loss of a step.
        oracle: Gradients of the loss of one language, tensor by tensor.

    Returns:
        min(<g, o> / <o, o>, 0).

    Source: The code of Schmidt, Vulic and Glavas, 2023. arXiv:2305.16834
    """
    pairs = [(g.double().flatten(), o.double().flatten()) for g, o in zip(gradients, oracle, strict=True)]
    norm = sum(float(o @ o) for _, o in pairs)
    share = min(sum(float(g @ o) for g, o in pairs) / norm, 0.0) if norm > 0 else 0.0
    if share < 0:
        for gradient, of_oracle in zip(gradients, oracle, strict=True):
            gradient.sub_(share * of_oracle)
    return share


class Vaccination(TrainerCallback):
    """Vaccinates each step with the gradient of one target language, drawn at random.

    Both sides of the projection may be scaled, so that clipping before it and the number of accumulated batches do not
    matter.

    Args of the constructor:
        live: The module.
        mixed: Its task, which measures the gradient of one language in addition to that of all.
        seed: Seed of the draws; a resumed run continues them.
    """

    def __init__(self, live: LiveModel, mixed: Mixed, seed: int) -> None:
        self._live, self._mixed, self._seed = live, mixed, seed

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        targets = sorted(self._mixed.targets)
        drawn = int(np.random.default_rng([self._seed, state.global_step]).integers(len(targets)))
        self._mixed.watch(targets[drawn])

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        pairs = [(p.grad, o) for p, o in self._mixed.watched(self._live.module) if p.grad is not None]
        vaccinate([gradient for gradient, _ in pairs], [oracle for _, oracle in pairs])
