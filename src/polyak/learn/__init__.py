"""Merge coefficients learned from data; the result is a recipe.

To add a learner, add one file to this folder, or name a module in the entry-point group `polyak.learners`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import TaskError
from ..recipe import Recipe
from ._api import Granularity as Granularity
from ._api import Learned as Learned
from ._api import Learner as Learner
from ._api import Log as Log
from ._api import Numbers as Numbers
from ._api import Problem as Problem
from ._api import Split as Split
from ._api import check_recipe as check_recipe
from ._api import learner as learner
from ._api import registry as registry
from ._candidate import Candidate as Candidate
from ._objective import Objective as Objective
from ._pool import Pool as Pool
from ._pool import weighted as weighted
from ._result import as_recipe
from ._result import text_for as text_for

if TYPE_CHECKING:
    from ..tasks import Scorer


resolve, load_all = registry.resolve, registry.load_all


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
    """Learn the weights of the models of a recipe.

    Args:
        name: The learner.
        recipe: The models and their base; its method, settings and weights are replaced.
        tasks: The tasks of the merged model.
        settings: Settings of the learner, by name.
        device: Device of the modules, as torch names it.
        seed: Seed of the choice and order of examples.
        log: Called with each step, as plain data.

    Returns:
        The recipe with the learned weights and their provenance; and the result of the learner.

    Raises:
        RecipeError: the learner is unknown, the recipe has keys that cannot be learned, or a setting is wrong.
        TaskError: a task does not fit.
        CheckpointError: a model cannot be read, or the models do not fit together.
    """
    chosen = resolve(name)
    bound = chosen.bind(settings or {})
    if not tasks:
        raise TaskError("a learner needs a task with examples: name one.")
    names = [task.name for task in tasks]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise TaskError(f"two tasks are called {twice!r}.")
    problem = Problem(recipe, tasks, device, seed, log)
    learned = chosen.fn(problem, **bound)
    return as_recipe(chosen.name, learned, problem, bound), learned
