"""From coefficients to a recipe: what was learned, and how."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .._version import __version__
from ..recipe import Model, Recipe, Rule
from ._api import Learned, Problem
from ._objective import is_transductive
from ._pool import weighted


def as_recipe(name: str, learned: Learned, problem: Problem, settings: Mapping[str, Any]) -> Recipe:
    """The recipe whose merge has these coefficients.

    A rule a tensor where each has its own; a rule for those that none was learned of.
    """
    recipe = weighted(learned.recipe or problem.recipe, None)
    shared = learned.coefficients[0] if not learned.names else learned.coefficients.mean(0)
    models = tuple(
        Model(model.name, model.source, {"weight": float(weight)})
        for model, weight in zip(recipe.models, shared, strict=True)
    )
    names = [model.name for model in models]
    rules = [_rule([one], names, row) for one, row in zip(learned.names, learned.coefficients, strict=False)]
    if learned.unlearned:
        rules.append(_rule(learned.unlearned, names, learned.others))
    return replace(recipe, models=models, rules=tuple(rules), provenance=_provenance(name, learned, problem, settings))


def text_for(recipe: Recipe, place: Path) -> str:
    """The recipe as a file at this place: paths that would not be found from there become absolute."""
    from ..reading import write_yaml
    from ..recipe import as_data, dump

    folder = place.absolute().parent
    return dump(recipe) if recipe.folder.absolute() == folder else write_yaml(as_data(recipe, folder))


def _rule(tensors: Sequence[str], models: Sequence[str], row: Sequence[float]) -> Rule:
    match = "|".join(f"^{re.escape(one)}$" for one in tensors)
    return Rule(match, models={name: {"weight": float(weight)} for name, weight in zip(models, row, strict=True)})


def _provenance(name: str, learned: Learned, problem: Problem, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "learned_by": name,
        "version": __version__,
        "objective": learned.objective,
        "settings": dict(settings),
        "seed": problem.seed,
        "split": learned.split,
        "transductive": is_transductive(learned.split),
        "tasks": [
            {"name": one.name, "examples": one.count(learned.split), "digest": one.digest(learned.split)}
            for one in problem.scorers
        ],
        "decisions": dict(learned.decisions),
        "notes": list(learned.notes),
    }
