"""The search space of a recipe for Optuna, and its baselines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..methods import REQUIRED
from ..recipe import Scalar, Sought

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


def distributions(open_: Sequence[Sought]) -> dict[str, BaseDistribution]:
    """A distribution per hyperparameter."""
    return {hyperparameter.place: _distribution(hyperparameter) for hyperparameter in open_}


def _distribution(hyperparameter: Sought) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    search = hyperparameter.search
    if search.low is None or search.high is None:
        return CategoricalDistribution(search.choices)
    if hyperparameter.setting.kind is int:
        return IntDistribution(int(search.low), int(search.high), search.log)
    return FloatDistribution(search.low, search.high, search.log)


def baselines(open_: Sequence[Sought]) -> dict[str, dict[str, Scalar]]:
    """The candidates that are tried first, by name: the merges that one would try without a search.

    `uniform` gives each model the weight 1 / n, and all else its default; `defaults` keeps the default weights too.
    Both are clipped to the ranges.  A setting without default starts in the middle of its range.
    """
    uniform = {hyperparameter.place: _start(hyperparameter, uniform=True) for hyperparameter in open_}
    defaults = {hyperparameter.place: _start(hyperparameter, uniform=False) for hyperparameter in open_}
    return {"uniform": uniform} if uniform == defaults else {"uniform": uniform, "defaults": defaults}


def largest(hyperparameter: Sought) -> Scalar:
    """The largest number, or the last choice."""
    if hyperparameter.search.high is None:
        return hyperparameter.search.choices[-1]
    return int(hyperparameter.search.high) if hyperparameter.setting.kind is int else hyperparameter.search.high


def _start(hyperparameter: Sought, *, uniform: bool) -> Scalar:
    search, default = hyperparameter.search, hyperparameter.setting.default
    if uniform and hyperparameter.setting.name == "weight" and hyperparameter.setting.per_model:
        default = 1 / max(hyperparameter.models, 1)
    if search.low is None or search.high is None:
        return default if default in search.choices else search.choices[0]
    if default is REQUIRED or isinstance(default, str | bool):
        middle = (search.low * search.high) ** 0.5 if search.log else (search.low + search.high) / 2
        default = round(middle) if hyperparameter.setting.kind is int else middle
    return min(max(default, search.low), search.high)
