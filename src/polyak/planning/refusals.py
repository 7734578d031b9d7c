"""Recipes that cannot be merged as they are."""

from __future__ import annotations

from ..errors import RecipeError
from ..recipe import Recipe, sought
from .slices import Parts


def refuse_adapters_and_searches(recipe: Recipe) -> None:
    """Refuse recipes of adapters, and those with search ranges."""
    if recipe.adapter is not None:
        raise RecipeError("`adapter:` is for recipes whose models are adapters: use `polyak lora merge`.")
    if searched := sought(recipe):
        raise RecipeError(
            f"{searched[0].place} is still a search range ({len(searched)} in all). `polyak search RECIPE --task "
            "TASK -o FOUND.yaml` writes a recipe with the numbers filled in, which can be merged."
        )


def refuse_statistics_of_slices(divided: Parts) -> None:
    """Refuse statistics in slices, whose layers have other numbers in the result."""
    if divided.layers and any(model.statistics for part in divided.parts for model in part.recipe.models):
        raise RecipeError("models of slices cannot have `statistics:`: their layers have other numbers in the result.")
