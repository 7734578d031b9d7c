"""CMA-ES that replays the history of a study in each trial, so that nothing is unpickled from a study."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from ..recipe import Scalar

SIGMA = 1 / 6  # of the range, as mergekit-evolve and Akiba et al. (2025, arXiv:2403.13187) have it
FULL = 60  # dimensions up to which the full covariance is learned


class CmaEs(BaseSampler):
    """Covariance matrix adaptation (Hansen, 2016, arXiv:1604.00772) in the unit cube.

    Starts at the first baseline.  Optuna's own sampler keeps its state pickled in the study, so that an untrusted study
    could run code; this one replays the values of all trials, generation by generation.

    Args of the constructor:
        seed: Seed of this trial.
        start: Starting point, by hyperparameter.
        space: Ranges by hyperparameter.
    """

    def __init__(self, seed: int, start: Mapping[str, Scalar], space: Mapping[str, Any]) -> None:
        self._seed, self._start, self._space = seed, start, dict(space)
        self._random = RandomSampler(seed=seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._space

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        from cmaes import CMA, SepCMA

        mean = self._unit(self._start)
        bounds = np.tile([0.0, 1.0], (len(mean), 1))
        kind = CMA if len(mean) < FULL else SepCMA
        optimiser: Any = kind(mean=mean, sigma=SIGMA, bounds=bounds, seed=self._seed)
        sign = -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0
        drawn = [t for t in study.get_trials(states=(TrialState.COMPLETE,)) if "baseline" not in t.user_attrs]
        told = [(self._unit(t.params), sign * t.values[0]) for t in sorted(drawn, key=lambda t: t.number)]
        size = optimiser.population_size
        for i in range(0, len(told) - len(told) % size, size):
            optimiser.tell(told[i : i + size])
        return self._values(optimiser.ask())

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def _unit(self, values: Mapping[str, Any]) -> Any:
        return np.clip([_place(values[name], distribution) for name, distribution in self._space.items()], 0.0, 1.0)

    def _values(self, unit: Any) -> dict[str, Any]:
        return {
            name: _value(float(x), distribution)
            for (name, distribution), x in zip(self._space.items(), unit, strict=True)
        }


def _ends(distribution: FloatDistribution | IntDistribution) -> tuple[float, float]:
    """Ends of the range; each integer has an equal share of it."""
    half = 0.5 if isinstance(distribution, IntDistribution) else 0.0
    low, high = distribution.low - half, distribution.high + half
    return (float(np.log(low)), float(np.log(high))) if distribution.log else (low, high)


def _place(value: float, distribution: FloatDistribution | IntDistribution) -> float:
    low, high = _ends(distribution)
    return ((float(np.log(value)) if distribution.log else value) - low) / (high - low)


def _value(x: float, distribution: FloatDistribution | IntDistribution) -> float:
    low, high = _ends(distribution)
    scaled = low + (high - low) * x
    scaled = float(np.exp(scaled)) if distribution.log else scaled
    nearest = round(scaled) if isinstance(distribution, IntDistribution) else scaled
    return min(max(nearest, distribution.low), distribution.high)
