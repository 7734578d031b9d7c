"""AdaMerging++: models of which TIES has left the entries that matter and agree."""

from __future__ import annotations

from dataclasses import replace

from ..errors import RecipeError
from ..recipe import Model, Recipe, Source
from ._api import check_recipe


def trimmed_models(recipe: Recipe, density: float) -> Recipe:
    """The recipe with each model replaced by a nested merge: the base and the model's part in TIES.

    Raises:
        RecipeError: there is no base, or heads are to stay with their models.
    """
    check_recipe(recipe)
    if recipe.base is None:
        raise RecipeError("`trim=true` trims differences from a base: give the recipe a `base:`.")
    if recipe.heads is not None:
        raise RecipeError("`trim=true` cannot leave heads with their models: `skip:` them, and give each task its own.")
    plain = tuple(Model(model.name, model.source, statistics=model.statistics) for model in recipe.models)
    parts = [
        replace(recipe, method="ties_part", settings={"density": density}, models=(one, *_others(plain, one)), seed=0)
        for one in plain
    ]
    models = tuple(
        Model(f"{model.name}-trimmed", Source(recipe=replace(part, dtype=None, buffers=None)))
        for model, part in zip(plain, parts, strict=True)
    )
    return replace(recipe, models=models)


def _others(models: tuple[Model, ...], one: Model) -> tuple[Model, ...]:
    return tuple(other for other in models if other is not one)
