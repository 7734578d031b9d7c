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
    return {one.place: _distribution(one) for one in open_}


def _distribution(one: Sought) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    search = one.search
    if search.low is None or search.high is None:
        return CategoricalDistribution(search.choices)
    if one.setting.kind is int:
        return IntDistribution(int(search.low), int(search.high), search.log)
    return FloatDistribution(search.low, search.high, search.log)


def baselines(open_: Sequence[Sought]) -> dict[str, dict[str, Scalar]]:
    """The candidates that are tried first, by name: the merges that one would try without a search.

    `uniform` gives each model the weight 1 / n, and all else its default; `defaults` keeps the default weights too.
    Both are clipped to the ranges.  A setting without default starts in the middle of its range.
    """
    uniform = {one.place: _start(one, uniform=True) for one in open_}
    defaults = {one.place: _start(one, uniform=False) for one in open_}
    return {"uniform": uniform} if uniform == defaults else {"uniform": uniform, "defaults": defaults}


def largest(one: Sought) -> Scalar:
    """The largest number, or the last choice."""
    if one.search.high is None:
        return one.search.choices[-1]
    return int(one.search.high) if one.setting.kind is int else one.search.high


def _start(one: Sought, *, uniform: bool) -> Scalar:
    search, default = one.search, one.setting.default
    if uniform and one.setting.name == "weight" and one.setting.per_model:
        default = 1 / max(one.models, 1)
    if search.low is None or search.high is None:
        return default if default in search.choices else search.choices[0]
    if default is REQUIRED or isinstance(default, str | bool):
        middle = (search.low * search.high) ** 0.5 if search.log else (search.low + search.high) / 2
        default = round(middle) if one.setting.kind is int else middle
    return min(max(default, search.low), search.high)
