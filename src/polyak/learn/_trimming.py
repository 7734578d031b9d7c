"""AdaMerging++: models trimmed and sign-elected by TIES."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from ..errors import RecipeError
from ..recipe import Model, Recipe, Source
from ._api import check_recipe


def trimmed_models(recipe: Recipe, density: float) -> Recipe:
    """The recipe with each model replaced by a nested merge: the base and the model's part in TIES.

    Raises:
        RecipeError: there is no base, or the recipe has `heads:`.
    """
    check_recipe(recipe)
    if recipe.base is None:
        raise RecipeError("`trim=true` trims differences from a base: give the recipe a `base:`.")
    if recipe.heads is not None:
        raise RecipeError("`trim=true` cannot leave heads with their models: `skip:` them, and give each task its own.")
    plain = tuple(Model(model.name, model.source, statistics=model.statistics) for model in recipe.models)
    parts = [
        replace(
            recipe, method="ties_part", settings={"density": density}, models=(model, *_others(plain, model)), seed=0
        )
        for model in plain
    ]
    models = tuple(
        Model(f"{model.name}-trimmed", Source(recipe=replace(part, dtype=None, buffers=None)))
        for model, part in zip(plain, parts, strict=True)
    )
    return replace(recipe, models=models)


@contextmanager
def written(recipe: Recipe) -> Generator[Recipe]:
    """The recipe with its nested merges as temporary files, inside a `with`.

    Otherwise every step of a descent would read k models and compute thresholds for each of k nested merges. The files
    are float32: 4 bytes per parameter and model.
    """
    from ..engine import run
    from ..planning import plan

    with TemporaryDirectory(prefix="polyak-") as folder:
        models: list[Model] = []
        for i, model in enumerate(recipe.models):
            assert model.source.recipe is not None
            run(plan(replace(model.source.recipe, dtype="float32")), Path(folder, str(i)))
            models.append(Model(model.name, Source(str(Path(folder, str(i))))))
        yield replace(recipe, models=tuple(models))


def _others(models: tuple[Model, ...], model: Model) -> tuple[Model, ...]:
    return tuple(other for other in models if other is not model)
