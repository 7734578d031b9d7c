"""Optuna samplers, seeded per trial, so that an interrupted search continues as it would have without interruption."""

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
POPULATION = 20  # of NSGA-II: Optuna's default of 50 is for more trials than merges get


def check_sampler(name: str, space: Mapping[str, BaseDistribution], objectives: int) -> None:
    """Refuse a sampler that does not fit the search space.

    Raises:
        SettingError: unknown sampler, or it supports one objective only.
        RecipeError: it supports numbers only, or needs at least two.
    """
    from optuna.distributions import CategoricalDistribution

    if name not in SAMPLERS:
        raise SettingError(f"unknown sampler {name!r}. {suggestion(name, SAMPLERS)}")
    if name != "cma-es":
        return
    if objectives > 1:
        raise SettingError("cma-es supports one objective; nsga-ii and tpe support several.")
    words = [place for place, distribution in space.items() if isinstance(distribution, CategoricalDistribution)]
    if words:
        raise RecipeError(f"cma-es searches numbers only, but {words[0]} is categorical; tpe supports both.")
    if len(space) < 2:
        raise RecipeError("cma-es needs at least two numbers to search; use tpe.")


def sampler_for(name: str, seed: Sequence[int], start: Mapping[str, Scalar], space: Any) -> BaseSampler:
    """A sampler for one trial, seeded by the search's seed and the number of earlier trials."""
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
