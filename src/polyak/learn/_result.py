"""From learned coefficients to a recipe with provenance."""

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
    """The recipe with the learned coefficients.

    It has one rule per tensor with coefficients of its own, and one for all tensors without learned ones.
    """
    recipe = weighted(learned.recipe or problem.recipe, None)
    shared = learned.coefficients[0] if not learned.names else learned.coefficients.mean(0)
    models = tuple(
        Model(model.name, model.source, {"weight": float(weight)})
        for model, weight in zip(recipe.models, shared, strict=True)
    )
    names = [model.name for model in models]
    rules = [_rule([tensor], names, row) for tensor, row in zip(learned.names, learned.coefficients, strict=False)]
    if learned.unlearned:
        rules.append(_rule(learned.unlearned, names, learned.others))
    return replace(recipe, models=models, rules=tuple(rules), provenance=_provenance(name, learned, problem, settings))


def text_for(recipe: Recipe, path: Path) -> str:
    """The text of a recipe for a file at `path`; relative paths become absolute if its folder differs."""
    from ..reading import write_yaml
    from ..recipe import as_data, dump

    folder = path.absolute().parent
    return dump(recipe) if recipe.folder.absolute() == folder else write_yaml(as_data(recipe, folder))


def _rule(tensors: Sequence[str], models: Sequence[str], row: Sequence[float]) -> Rule:
    match = "|".join(f"^{re.escape(tensor)}$" for tensor in tensors)
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
            {"name": scorer.name, "examples": scorer.count(learned.split), "digest": scorer.digest(learned.split)}
            for scorer in problem.scorers
        ],
        "decisions": dict(learned.decisions),
        "notes": list(learned.notes),
    }
