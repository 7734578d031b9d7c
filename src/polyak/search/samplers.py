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


def sampler_for(name: str, seed: Sequence[int], start: Mapping[str, Scalar], space: Any) -> BaseSampler:
    """A sampler for one trial, with a seed of its own: that of the search, and how many trials there were."""
    from optuna import samplers

    own = int(np.random.SeedSequence(seed).generate_state(1)[0])
    if name == "random":
        return samplers.RandomSampler(seed=own)
    if name == "nsga-ii":
        return samplers.NSGAIISampler(seed=own, population_size=POPULATION)
    if name == "cma-es":
        from .cma_es import CmaEs

        return CmaEs(own, start, space)
    return samplers.TPESampler(seed=own)
