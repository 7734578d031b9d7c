"""AdaRank: learned selection of singular directions, and learned coefficients."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from ..declare import In
from ..methods import ALL_DIRECTIONS, direction_ranges
from ..recipe import Model, Recipe, Rule, Source
from ._api import Learned, Log, Numbers, Problem, Split, learner
from ._batches import drawn
from ._candidate import Candidate
from ._descent import Descent
from ._objective import Kind, Objective, check_use, is_transductive
from ._spectra import Spectra
from .adamerging import transductive

if TYPE_CHECKING:
    from torch import Tensor

_MARK = 0.1  # initial mask logits: plus this for selected directions, minus this for the others
_SOFT = 10.0  # temperature of the sigmoid of the straight-through gradient


@learner(
    "adarank",
    source="Lee et al., 2026. AdaRank: Adaptive Rank Pruning for Enhanced Model Merging. arXiv:2503.22178",
)
def adarank(
    problem: Problem,
    *,
    objective: Kind = "entropy",
    steps: Annotated[int, In(1, math.inf)] = 500,
    batch_size: Annotated[int, In(1, math.inf)] = 16,
    lr: Annotated[float, In(0, math.inf, above=True)] = 1e-3,
    init: float = 0.3,
    rank: Annotated[float, In(0, 1)] = 1.0,
    split: Split = "calibration",
) -> Learned:
    """Learn which singular directions of each model's matrices to merge, and a coefficient of each model and tensor.

    theta_l = theta_{0,l} + sum_i lambda_{i,l} U_{i,l} diag(s_{i,l} b_{i,l}) V_{i,l}^T, with tau_{i,l} = U diag(s) V^T
    and b = 1[sigmoid(m / 10) > 1/2]; backwards, b is sigmoid(m / 10) (straight through). The sum over tasks of the mean
    entropy of the predictions is minimised by Adam, in lambda and m. Vectors, embeddings and heads have coefficients
    only.

    The learned recipe has a nested merge by `singular_part` per model. Decompositions are in temporary files, so that
    memory does not grow with the number of models; a step reads them twice.

    The authors learn from the test inputs; here that is `split=test`. The defaults of `steps`
    and `lr` are AdaMerging's, since those of the authors were not available. They decompose the matrices of attention
    and MLP; here all matrices but embeddings and heads. Their variants for CART and Iso-CTS are not implemented.

    Args:
        problem: Models and tasks; a base is needed.
        objective: `entropy`, or the tasks' supervised `loss`.
        steps: Number of updates.
        batch_size: Examples per task and update.
        lr: Learning rate of Adam.
        init: Initial value of coefficients; they are not clamped.
        rank: Fraction of the directions, largest singular values first, to select initially; the authors use 1.
        split: Split to learn from.

    Raises:
        RecipeError: the recipe has no base, or has `heads:`.
        TaskError: a task has no module, no such split, no labels where they are needed, or a loss that is not finite.
    """
    import torch

    check_use(objective, split)
    with Spectra(problem.recipe) as spectra:
        candidate = Candidate(spectra, problem.tasks(split), granularity="layer", device=problem.device)
        models = len(spectra.names)
        others = np.concatenate([np.full(models, 1 / models), np.ones(spectra.width - models)])
        raw = torch.tensor(_start(spectra, candidate.rows, init, rank), requires_grad=True)
        descent = Descent(
            candidate, Objective(objective), _masked(models), others, mean=False, log=_briefly(problem.log, models)
        )
        batches = drawn(candidate.tasks, split, batch_size=batch_size, seed=problem.seed)
        rows, decisions, notes = descent.run(raw, torch.optim.Adam([raw], lr=lr), batches, steps)
        masks = {name: spectra.masks(name, row) for name, row in zip(candidate.rows, rows, strict=True)}
    return Learned(
        rows[:, :models],
        split,
        objective,
        names=candidate.rows,
        others=tuple(others[:models].tolist()) if candidate.others else (),
        decisions=decisions | {"kept": _shares(spectra.names, masks)},
        notes=tuple(notes) + (transductive(),) * is_transductive(split),
        unlearned=tuple(candidate.others),
        recipe=_pruned(problem.recipe, masks),
    )


def _start(spectra: Spectra, rows: Iterable[str], init: float, rank: float) -> Numbers:
    """Initial coefficients and mask logits, one row per tensor."""
    starts: list[Numbers] = []
    for name in rows:
        each = [_marks(count, spectra.most, int(rank * spectra.smaller(name))) for count in spectra.counts(name)]
        starts.append(np.concatenate([np.full(len(spectra.names), init), *each]))
    return np.stack(starts)


def _marks(count: int, most: int, first: int) -> Numbers:
    at = np.arange(most)
    return np.where((at < count) & (at < first), _MARK, -_MARK)


def _masked(models: int) -> Callable[[Tensor], Tensor]:
    """Coefficients unchanged; masks rounded to 0 or 1, with the gradient of the sigmoid."""
    import torch

    def masked(raw: Tensor) -> Tensor:
        soft = torch.sigmoid(raw[:, models:] / _SOFT)
        hard = (soft > 0.5).to(raw.dtype) + soft - soft.detach()
        return torch.cat([raw[:, :models] + 0, hard], 1)

    return masked


def _briefly(log: Log, models: int) -> Log:
    """A log with the number of selected directions in place of the masks."""

    def told(entry: Mapping[str, Any]) -> None:
        rows = np.asarray(entry["coefficients"])
        log({**entry, "coefficients": rows[:, :models].tolist(), "kept": int((rows[:, models:] > 0.5).sum())})

    return told


def _shares(names: Iterable[str], masks: Mapping[str, list[Numbers]]) -> dict[str, float]:
    """Fraction of selected directions per model."""
    shares: dict[str, float] = {}
    for i, name in enumerate(names):
        flags = np.concatenate([np.zeros(0), *(each[i] for each in masks.values() if each)])
        shares[name] = float(flags.mean()) if flags.size else 1.0
    return shares


def _pruned(recipe: Recipe, masks: Mapping[str, list[Numbers]]) -> Recipe:
    """The recipe with each model replaced by a nested merge of its selected directions."""
    models: list[Model] = []
    for i, model in enumerate(recipe.models):
        keeps = {name: direction_ranges(each[i]) for name, each in masks.items() if each}
        rules = [
            Rule(f"^{re.escape(name)}$", settings={"keep": keep})
            for name, keep in keeps.items()
            if keep != ALL_DIRECTIONS
        ]
        plain = Model(model.name, model.source)
        part = replace(
            recipe, method="singular_part", settings={}, models=(plain,), rules=tuple(rules), dtype=None, buffers=None
        )
        models.append(Model(f"{model.name}-pruned", Source(recipe=part)))
    return replace(recipe, models=tuple(models))
