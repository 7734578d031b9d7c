"""Plan again what differs from a planned recipe in its numbers alone."""

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
    """The plan of a recipe that was planned with other numbers, from that plan; its models are not looked at.

    Args:
        before: The plan, without masks.
        recipe: The same recipe with other numbers and words at its settings, its models' and its rules'.

    Returns:
        None where more than numbers may change: parts, statistics, or which method or models a tensor needs.

    Raises:
        RecipeError: a setting is wrong.
    """
    if len(before.parts) != 1 or before.parts[0].name or before.statistics:
        return None
    names = tuple(dict.fromkeys(name for model in before.models.values() for name in (*model.specs, *model.ties)))
    treatment, steps = Treatment(recipe, names), list[Step]()
    for step in before.steps:
        found = step if step.kind != "merge" else _again(step, treatment, len(recipe.models))
        if found is None:
            return None
        steps.append(found)
    return replace(before, recipe=recipe, steps=tuple(steps), parts=(PlanPart("", recipe),))


def _again(step: Step, treatment: Treatment, models: int) -> Step | None:
    number, method, settings = treatment.of(step.out.name)
    method, settings = method.for_tensor(step.out.name, step.out.shape, settings, models)
    if method is not step.method or len(step.reads) != models or _excuses(method, settings):
        return None
    # `replace` would look at every field of every tensor of every candidate.
    return Step(
        step.out, step.kind, step.reads, step.base, method, settings, number, step.file, step.part, step.statistics,
        step.masks,
    )  # fmt: skip


def _excuses(method: Method, settings: Mapping[str, Any]) -> bool:
    """Tell whether a law excuses a model of weight zero from being read."""
    weight = settings.get("weight")
    return Law.ZERO_IS_ABSENT in method.laws and isinstance(weight, tuple) and 0 in weight
