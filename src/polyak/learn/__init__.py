"""Coefficients from data.  Whatever is learned is a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import TaskError
from ..recipe import Recipe
from ._api import Learned as Learned
from ._api import Learner as Learner
from ._api import Log as Log
from ._api import Problem as Problem
from ._api import learner as learner
from ._api import registry as registry
from ._result import as_recipe
from ._result import text_for as text_for

if TYPE_CHECKING:
    from ..tasks import Scorer


load_all = registry.load_all


def resolve(name: str) -> Learner:
    """Look a learner up by name; `frank-wolfe` is `frank_wolfe`.

    Raises:
        RecipeError: there is none, with the name that was probably meant.
    """
    return registry.resolve(name.replace("-", "_"))


def learn(
    name: str,
    recipe: Recipe,
    tasks: Sequence[Scorer],
    *,
    settings: Mapping[str, Any] | None = None,
    device: str = "cpu",
    seed: int = 0,
    log: Log = lambda entry: None,
) -> tuple[Recipe, Learned]:
    """Learn how to weigh the models of a recipe.

    Args:
        name: The learner.
        recipe: The models and their base; its method, settings and weights are replaced.
        tasks: What the merged model should be able to do.
        settings: Of the learner.
        device: Where modules run, as torch names it.
        seed: Chooses and orders examples.
        log: Told of every step, as plain data.

    Returns:
        The recipe with the weights filled in and how they came about as provenance; and what was learned.

    Raises:
        RecipeError: the recipe is none to learn from, or a setting is wrong.
        TaskError: a task does not fit.
        CheckpointError: a model cannot be read, or the models do not fit together.
    """
    found = resolve(name)
    bound = found.bind(settings or {})
    if not tasks:
        raise TaskError("there is nothing to learn from: name a task.")
    names = [task.name for task in tasks]
    if twice := next((one for one in names if names.count(one) > 1), None):
        raise TaskError(f"two tasks are called {twice!r}.")
    problem = Problem(recipe, tasks, device, seed, log)
    learned = found.fn(problem, **bound)
    return as_recipe(found.name, learned, problem, bound), learned
