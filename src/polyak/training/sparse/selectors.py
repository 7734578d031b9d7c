"""The choice of weights to prune: masks of exact size, from magnitudes, and within those of the phase before."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ...errors import RecipeError, suggestion

Masks: TypeAlias = "dict[str, npt.NDArray[np.bool_]]"  # True where a weight stays
Arrays: TypeAlias = "Mapping[str, npt.NDArray[Any]]"

WORDS = ("global", "uniform", "random")
_GROUPS = re.compile(r"(\d+):(\d+)")


def check_selector(selector: str, sparsity: float, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse selectors that do not exist, or do not fit the layers or the sparsity.

    Raises:
        RecipeError: the message names the layer, or the sparsity that fits.
    """
    groups = _GROUPS.fullmatch(selector)
    if groups is None:
        if selector not in WORDS:
            known = [*WORDS, "N:M (such as 2:4)"]
            raise RecipeError(f"unknown selector {selector!r}. {suggestion(selector, known)}")
        return
    keep, size = int(groups[1]), int(groups[2])
    if not 0 < keep < size:
        raise RecipeError(f"the selector {selector!r} keeps {keep} of {size} weights: keep at least 1, and not all.")
    if abs(sparsity - (1 - keep / size)) > 1e-9:
        raise RecipeError(f"the selector {selector!r} has a sparsity of {1 - keep / size:g}; got {sparsity:g}.")
    for name, shape in shapes.items():
        if shape[1] % size:
            raise RecipeError(
                f"{name!r} has {shape[1]} inputs, which are no multiple of {size}, as the selector {selector!r} needs. "
                "Leave it dense with `dense:`."
            )


def sparsity_at(goal: float, phase: int, phases: int) -> float:
    """Sparsity after a phase, from 1: 1 - (1 - goal)^(phase / phases), the same share of what is left each time."""
    return goal if phase == phases else 1 - (1 - goal) ** (phase / phases)


def select(selector: str, weights: Arrays, before: Masks, *, goal: float, phase: int, phases: int, seed: int) -> Masks:
    """The masks of a phase.

    `global`: the smallest magnitudes of all layers together. `uniform`: the same share of each layer. `random`: any
    weights, of all layers together. `N:M`: in each group of M consecutive inputs, the M - N smallest; over several
    phases the number that stays falls linearly from M to N, which is our choice. Equal magnitudes go in the order of
    layers and entries. Numbers of weights are exact: round(sparsity * weights).

    Args:
        selector: One of the above.
        weights: The weights of the layers, in the order of the model.
        before: The masks of the phase before.
        goal: Sparsity after the last phase.
        phase: This phase, from 1.
        phases: Number of phases.
        seed: Seed of `random`.
    """
    sparsity = sparsity_at(goal, phase, phases)
    if selector == "uniform":
        return {name: _uniform(weight, before[name], sparsity) for name, weight in weights.items()}
    if groups := _GROUPS.fullmatch(selector):
        size = int(groups[2])
        keep = size - round((size - int(groups[1])) * phase / phases)
        return {name: _grouped(_scores(w, before[name]).reshape(w.shape), keep, size) for name, w in weights.items()}
    scores = np.concatenate([_scores(w, before[name]) for name, w in weights.items()])
    if selector == "random":
        drawn = np.random.default_rng([seed, phase]).permutation(scores.size)
        scores = np.where(scores < 0, -1.0, drawn)
    pruned, masks, start = _lowest(scores, round(sparsity * scores.size)), dict[str, Any](), 0
    for name, weight in weights.items():
        masks[name] = ~pruned[start : start + weight.size].reshape(weight.shape)
        start += weight.size
    return masks


def _scores(weight: npt.NDArray[Any], mask: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """Magnitudes; -1 where a weight is pruned already, so that it stays pruned."""
    return np.where(mask, np.abs(weight), -1).reshape(-1)


def _uniform(weight: npt.NDArray[Any], mask: npt.NDArray[np.bool_], sparsity: float) -> npt.NDArray[np.bool_]:
    return ~_lowest(_scores(weight, mask), round(sparsity * weight.size)).reshape(weight.shape)


def _lowest(scores: npt.NDArray[Any], count: int) -> npt.NDArray[np.bool_]:
    """True at the `count` lowest scores, of equal ones at the first."""
    if count <= 0:
        return np.zeros(scores.size, np.bool_)
    threshold = np.partition(scores, count - 1)[count - 1]
    lowest = scores < threshold
    lowest[np.flatnonzero(scores == threshold)[: count - int(lowest.sum())]] = True
    return lowest


def _grouped(scores: npt.NDArray[Any], keep: int, size: int) -> npt.NDArray[np.bool_]:
    """True at the `keep` highest scores of each group of `size` along the second axis."""
    moved = np.moveaxis(scores, 1, -1)
    groups = moved.reshape(-1, size)
    order = np.argsort(groups, axis=1, kind="stable")
    mask = np.ones(groups.shape, np.bool_)
    np.put_along_axis(mask, order[:, : size - keep], False, axis=1)
    return np.ascontiguousarray(np.moveaxis(mask.reshape(moved.shape), -1, 1))
