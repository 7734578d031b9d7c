"""The declaration of a learner: a function from a problem to coefficients, and the registry."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from ..declare import Registry, Setting, bind, settings_of, summary_of
from ..errors import RecipeError, TaskError, suggestion
from ..recipe import Recipe

if TYPE_CHECKING:
    from ..tasks import Scorer, Task

Numbers: TypeAlias = "npt.NDArray[np.float64]"
Granularity: TypeAlias = Literal["layer", "task"]
Split: TypeAlias = Literal["calibration", "validation", "test"]
Log: TypeAlias = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Problem:
    """The input of a learner.

    Attributes:
        recipe: The models, and their base.
        scorers: The tasks of the merged model.
        device: Device of the modules, as torch names it.
        seed: Seed of the choice and order of examples.
        log: Called with each step, as plain data.
    """

    recipe: Recipe
    scorers: Sequence[Scorer]
    device: str = "cpu"
    seed: int = 0
    log: Log = lambda entry: None

    def tasks(self, split: str) -> list[Task]:
        """The tasks, for learners that need modules and their gradients.

        Raises:
            TaskError: a task runs no torch module, or has no such split.
        """
        from ..tasks import Task

        tasks: list[Task] = []
        for scorer in self.scorers:
            if not isinstance(scorer, Task):
                raise TaskError(
                    f"task {scorer.name!r} scores whole models and exposes no module, so it has no gradients. Use "
                    "greedy_soup, which learns from scores alone, or describe the task in a YAML file."
                )
            scorer.check_split(split)
            tasks.append(scorer)
        return tasks


@dataclass(frozen=True)
class Learned:
    """The result of a learner.

    Attributes:
        coefficients: (1, models), or (tensors, models) in the order of `names`.
        names: The tensor of each row; empty if all tensors share one row.
        others: Coefficients of tensors without a gradient (buffers, and tensors that no task's module has).
        split: The split that was learned from.
        objective: The objective that was minimised, or the criterion of the choice.
        decisions: Intermediate results: plain data for the provenance.
        notes: Messages for the user.
        recipe: The recipe to which the coefficients belong, if the learner derived one from the problem's.
        unlearned: The tensors with the coefficients `others`; if empty, all take the shared row.
    """

    coefficients: Numbers
    split: str
    objective: str
    names: tuple[str, ...] = ()
    others: tuple[float, ...] = ()
    decisions: Mapping[str, Any] = field(default_factory=dict[str, Any])
    notes: tuple[str, ...] = ()
    recipe: Recipe | None = None
    unlearned: tuple[str, ...] = ()


@dataclass(frozen=True)
class Learner:
    """A declared learner.

    Attributes:
        name: Its name on the command line.
        fn: From a problem and settings to the result.
        source: Publication.
        settings: Its settings, by name.
    """

    name: str
    fn: Callable[..., Learned]
    source: str
    settings: Mapping[str, Setting]

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return summary_of(self.fn)

    def bind(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """All settings, checked.

        Raises:
            SettingError: one is unknown, of the wrong kind or out of range.
        """
        return bind(f"learner {self.name!r}", self.settings, settings)


def _unknown(name: str, names: Iterable[str]) -> RecipeError:
    return RecipeError(f"unknown learner {name!r}. {suggestion(name, names)}")


registry: Registry[Learner] = Registry("learner", package=f"{__package__}", group="polyak.learners", unknown=_unknown)


@dataclass(frozen=True)
class learner:  # noqa: N801
    """Register the decorated function as the learner called `name`.

    Args:
        name: Its name on the command line.
        source: Publication: authors, year, title, identifier.

    Raises:
        DeclarationError: the name is taken, there is no docstring, or a setting is not annotated.
    """

    name: str
    source: str

    def __call__(self, fn: Callable[..., Learned]) -> Callable[..., Learned]:
        registry.declare(self.name, fn, lambda owner: Learner(self.name, fn, self.source, settings_of(owner, fn)))
        return fn


def check_recipe(recipe: Recipe) -> None:
    """Refuse recipes with keys other than models and their coefficients.

    Raises:
        RecipeError: the message names the key to remove.
    """
    for key in ("slices", "modules", "rules"):
        if getattr(recipe, key):
            raise RecipeError(
                f"a recipe to learn from has models alone; `{key}:` would be replaced by what is learned. "
                "Leave tensors as the base has them by `skip:`."
            )
    if recipe.adapter is not None:
        raise RecipeError("a recipe of adapters as adapters cannot be learned; name them as `lora:` of models.")
    if len(recipe.models) < 2:
        raise RecipeError(f"a learner needs two models or more; the recipe has {len(recipe.models)}.")
