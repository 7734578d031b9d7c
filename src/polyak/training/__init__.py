"""Training recipes: published ways to train models whose weights are then averaged, as runs of units.

To add a recipe, add one file to `recipes/`, or name a module in the entry-point group `polyak.training`:

    @training_recipe("two_seeds", source="...", defaults={"epochs": 1.0})
    def two_seeds(setup: Setup, *, copies: Annotated[int, positive] = 2) -> TrainingPlan:
        '''Train copies that differ in their seeds, and average them.

Args:
            setup: The common keys: task, module, model, optimiser, epochs, seed ...
            copies: Number of copies.
        '''
        steps = setup.steps(setup.epochs, setup.checked_task().count("train"))
        units = [Unit(f"copy-{i + 1}", train_copy, (setup, i, steps), steps=steps) for i in range(copies)]
        return TrainingPlan([Stage(units), Stage([Unit("average", average, setup)])], page, result="average")

The signature is the declaration: keyword-only parameters are the keys of the recipe's file, in
addition to the common ones.
The function reads tasks and headers, so that errors come early, and returns the stages of a run (see `polyak.runs`).
From it derive `polyak train two-seeds recipe.yaml out`, `--explain`, and `polyak.training.two_seeds(out, task=...)`.

A unit is a function of a module, `work(desk, task)`: it writes into `desk.folder`, reads `desk.results` and
`desk.folder_of(NAME)` of earlier stages, and returns plain data. It trains like this:

    def train_copy(desk: Desk, given: tuple[Setup, int, int]) -> dict[str, Any]:
        setup, i, steps = given
        with setup.start() as source:                        # or checkpoint.open(desk.folder_of("dense") / "model")
            live = live_model(setup, source)
            fit(desk, setup, live, source, Fit(steps, seed=setup.seed + i, rate=linear(steps)))
            write_live(live, source, desk.folder / "model", note="...")
        return {"metrics": scores(setup, desk.folder / "model")}

A unit that uses `fit` has `continues=setup.continues`: killed, it continues from its last checkpoint. `UnitFailed` says
that a copy is lost; in a stage with `needs=1` the run continues without it as long as one is left. See
docs/adding-a-training-recipe.md.
"""

from __future__ import annotations

from typing import Any

from ..runs import Desk as Desk
from ..runs import Stage as Stage
from ..runs import Unit as Unit
from ..runs import UnitFailed as UnitFailed
from ._declaration import Prepared as Prepared
from ._declaration import TrainingPlan as TrainingPlan
from ._declaration import TrainingRecipe as TrainingRecipe
from ._declaration import registry as registry
from ._declaration import training_recipe as training_recipe
from ._explain import Explanation as Explanation
from ._explain import explain as explain
from ._launch import MODEL as MODEL
from ._launch import Trained as Trained
from ._launch import function_of as function_of
from ._launch import launch as launch
from ._launch import prepare as prepare
from ._launch import train as train
from ._loop import Fit as Fit
from ._loop import fit as fit
from ._models import live_model as live_model
from ._models import scores as scores
from ._models import write_live as write_live
from ._rates import Rate as Rate
from ._rates import constant as constant
from ._rates import cosine as cosine
from ._rates import linear as linear
from ._rates import warmed as warmed
from ._setup import Optimisation as Optimisation
from ._setup import Setup as Setup

resolve, load_all = registry.resolve, registry.load_all


def __getattr__(name: str) -> Any:
    """A recipe as a function of its keys: `polyak.training.NAME(out, task=..., ...)`."""
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ..errors import RecipeError

    try:
        return function_of(registry.resolve(name))
    except RecipeError as error:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}: {error}") from None
