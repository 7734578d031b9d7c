"""Base and experts of a recipe, read tile by tile: their merge, and their inner products with gradients.

theta = theta_0 + sum_i w_i tau_i is linear in the coefficients, so dL/dw_i = <dL/dtheta, tau_i>. Both directions
need one tile per expert at a time, and tiles are smaller with more experts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from .. import planning
from ..checkpoint import Checkpoint
from ..engine import Buffers, Loaded, deltas, opened
from ..planning import BASE, Step
from ..recipe import Model, Recipe
from ._api import Numbers, check_recipe


class Pool:
    """The models of a recipe, as terms of a linear combination.

    Without a base, coefficients multiply the models themselves instead of their deltas.

    Attributes:
        recipe: The recipe, with a method that is linear in its weights.
        names: The models.
        steps: The tensors that are merged, by name.
        reference: The base, or the first model without one.
    """

    def __init__(self, recipe: Recipe) -> None:
        check_recipe(recipe)
        self.recipe = weighted(recipe, [1.0] * len(recipe.models))
        plan = opened(planning.plan(self.recipe), workers=1)  # nested merges are computed as they are read
        self.names = tuple(model.name for model in recipe.models)
        self.steps: Mapping[str, Step] = {s.out.name: s for s in plan.steps if s.kind == "merge"}
        self.reference: Checkpoint = plan.models[BASE if recipe.base else self.names[0]]
        self.notes = plan.notes
        self._buffers = Buffers()

    def __len__(self) -> int:
        return len(self.names)

    @property
    def width(self) -> int:
        """Number of coefficients per tensor."""
        return len(self)

    def merged(self, name: str, weights: Numbers) -> Iterator[tuple[int, Any]]:
        """Yield the tiles of a merged tensor, float32, with the index of their first entry."""
        from ..kernels.weighted_sums import add, weighted_sum

        narrow = np.ascontiguousarray(weights, np.float32)
        for start, loaded in self._tiles(name):
            out = self._buffers.floats("merged", _stack(loaded).shape[1])
            weighted_sum(out, _stack(loaded), narrow, 1.0)
            if loaded.base is not None:
                add(out, loaded.base)
            yield start, out

    def products(self, name: str, gradient: Any) -> Numbers:
        """<gradient, theta_0> (0 without a base) and <gradient, tau_i> for every expert, (1 + models,).

        Args:
            name: The tensor.
            gradient: Gradient of its entries, a flat torch tensor on any device.
        """
        total = np.zeros(1 + len(self))
        for start, loaded in self._tiles(name):
            stack = _stack(loaded)
            part = gradient[start : start + stack.shape[1]].double().cpu().numpy()
            total[1:] += [row.astype(np.float64) @ part for row in stack]
            if loaded.base is not None:
                total[0] += loaded.base.astype(np.float64) @ part
        return total

    def gram(self, name: str) -> Numbers:
        """Inner products of the base (zero without one) and the deltas, (1 + models, 1 + models)."""
        total = np.zeros((1 + len(self), 1 + len(self)))
        for _, loaded in self._tiles(name):
            stack = _stack(loaded).astype(np.float64)
            rows = np.vstack([np.zeros_like(stack[:1]) if loaded.base is None else loaded.base, stack])
            total += rows @ rows.T
        return total

    def _tiles(self, name: str) -> Iterator[tuple[int, Loaded]]:
        return deltas(self.steps[name], self._buffers)


def weighted(recipe: Recipe, weights: list[float] | None) -> Recipe:
    """The recipe as a weighted sum: of task vectors (`task_arithmetic`), or of models without a base (`linear`)."""
    models = recipe.models
    if weights is not None:
        models = tuple(Model(m.name, m.source, {"weight": w}) for m, w in zip(models, weights, strict=True))
    method, settings = ("task_arithmetic", {}) if recipe.base else ("linear", {"normalize": False})
    return replace(recipe, method=method, models=models, settings=settings, rules=())


def _stack(loaded: Loaded) -> Any:
    assert loaded.deltas is not None
    return loaded.deltas
