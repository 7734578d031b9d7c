"""Plan a recipe that differs from a planned one in its numbers alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..methods import Law, Method
from ..recipe import Recipe
from ._plan import Plan
from .resolve import Treatment
from .steps import PlanPart, Step


def with_numbers(before: Plan, recipe: Recipe) -> Plan | None:
    """Derive the plan of a recipe from that of the same recipe with other numbers, without reading its models.

    Args:
        before: The plan, without masks.
        recipe: The same recipe with other values of its settings, its models' and its rules'.

    Returns:
        The plan, or None if more than numbers may change: parts, statistics, or the method or models of a tensor.

    Raises:
        RecipeError: a setting is invalid.
    """
    if len(before.parts) != 1 or before.parts[0].name or before.statistics:
        return None
    names = tuple(dict.fromkeys(name for model in before.models.values() for name in (*model.specs, *model.ties)))
    treatment, steps = Treatment(recipe, names), list[Step]()
    for step in before.steps:
        planned = step if step.kind != "merge" else _again(step, treatment, len(recipe.models))
        if planned is None:
            return None
        steps.append(planned)
    return replace(before, recipe=recipe, steps=tuple(steps), parts=(PlanPart("", recipe),))


def _again(step: Step, treatment: Treatment, models: int) -> Step | None:
    number, method, settings = treatment.of(step.out.name)
    method, settings = method.for_tensor(step.out.name, step.out.shape, settings, models)
    if method is not step.method or len(step.reads) != models or _excuses(method, settings):
        return None
    # `replace` would copy every field by name, which is slow for every tensor of every candidate.
    return Step(
        step.out, step.kind, step.reads, step.base, method, settings, number, step.file, step.part, step.statistics,
        step.masks,
    )  # fmt: skip


def _excuses(method: Method, settings: Mapping[str, Any]) -> bool:
    """Test whether the method need not read some model, since its weight is zero."""
    weight = settings.get("weight")
    return Law.ZERO_IS_ABSENT in method.laws and isinstance(weight, tuple) and 0 in weight
