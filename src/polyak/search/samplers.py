"""Samplers of Optuna, seeded for each trial: a search that was interrupted goes on as it would have gone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import RecipeError, SettingError, suggestion
from ..recipe import Scalar

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

SAMPLERS = ("tpe", "cma-es", "nsga-ii", "random")
POPULATION = 20  # of NSGA-II: Optuna's 50 are for more trials than merges get


def check_sampler(name: str, space: Mapping[str, BaseDistribution], objectives: int) -> None:
    """Refuse a sampler that does not fit what is searched.

    Raises:
        SettingError: there is none of that name, or it takes one objective.
        RecipeError: it takes numbers only, or two at least.
    """
    from optuna.distributions import CategoricalDistribution

    if name not in SAMPLERS:
        raise SettingError(f"there is no sampler {name!r}. {suggestion(name, SAMPLERS)}")
    if name != "cma-es":
        return
    if objectives > 1:
        raise SettingError("cma-es has one objective; nsga-ii and tpe take several.")
    words = [place for place, one in space.items() if isinstance(one, CategoricalDistribution)]
    if words:
        raise RecipeError(f"cma-es searches numbers, but {words[0]} is a choice; tpe takes both.")
    if len(space) < 2:
        raise RecipeError("cma-es needs two numbers or more to search; take tpe.")


def sampler_for(name: str, seed: int, number: int, start: Mapping[str, Scalar], space: Any) -> BaseSampler:
    """A sampler for one trial; its random numbers depend on the seed and on how many trials there were."""
    from optuna import samplers

    own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    if name == "random":
        return samplers.RandomSampler(seed=own)
    if name == "nsga-ii":
        return samplers.NSGAIISampler(seed=own, population_size=POPULATION)
    if name == "cma-es":
        from .cma_es import CmaEs

        return CmaEs(own, start, space)
    return samplers.TPESampler(seed=own)


def order_of(trials: Sequence[Any]) -> list[Any]:
    """Trials in the order in which they were begun."""
    return sorted(trials, key=lambda trial: trial.number)
