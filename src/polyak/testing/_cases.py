"""The cases that checks try: each special setting or input alone, and a few combinations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..methods import Method
from ._check import Case
from ._kernels import has_kernel
from ._problems import Problem, sample
from ._settings import accepts, choices, combinations, extremes, single_words, uneven

Change = Callable[[Problem, np.random.Generator], Problem]
SHAPES = [(), (1,), (7,), (1, 9), (9, 1), (4, 6), (3, 2, 2, 2), (0, 4), (2, 65)]
_MIXTURES = 4  # per seed
_MANY = 24


def plain(method: Method, seed: int) -> Iterator[Case]:
    """Random numbers, uneven settings, words and switches at their defaults."""
    problem = sample(method, seed=seed)
    yield Case("random numbers", problem, uneven(method, problem.k))


def every_word(method: Method, seed: int) -> Iterator[Case]:
    """Random numbers, with every combination of words and switches."""
    problem = sample(method, seed=seed)
    yield from (Case("random numbers", problem, settings) for settings in choices(method, problem.k))


def every_setting(method: Method, seed: int) -> Iterator[Case]:
    """The same, and special numbers among the settings."""
    yield from every_word(method, seed)
    yield from special_numbers(method, seed)


def special_numbers(method: Method, seed: int) -> Iterator[Case]:
    """Random numbers, with special numbers among the settings, and one combination of words with each."""
    problem, words = sample(method, seed=seed), _in_turn(method, seed)
    for name, numbers in extremes(method, problem.k):
        yield from _cases(method, name, problem, numbers, {}, next(words))


def special(method: Method, seed: int) -> Iterator[Case]:
    """Special settings, inputs, numbers of models and shapes, each alone and in combinations."""
    yield from special_numbers(method, seed)
    yield from special_inputs(method, seed)
    words, rng = _in_turn(method, seed + 1), np.random.default_rng(seed)
    for models in _counts(method):
        problem = sample(method, (3, 14), seed, models=models)
        yield from _cases(method, f"{models} models", problem, {}, {})
        yield from _cases(method, f"{models} models", problem, uneven(method, models), next(words))
    for shape in SHAPES:
        problem = sample(method, shape, seed)
        yield from _cases(method, f"shape {shape}", problem, uneven(method, problem.k), next(words))
    for _ in range(_MIXTURES):
        yield from _mixture(method, seed, next(words), rng)


def special_inputs(method: Method, seed: int) -> Iterator[Case]:
    """Inputs that are zero, cancel, are tied, tiny or huge."""
    problem, words, rng = sample(method, seed=seed), _in_turn(method, seed + 2), np.random.default_rng(seed)
    for name, change in _CHANGES.items():
        changed = change(problem, rng)
        if name == "statistics of zero" and not method.statistics:
            continue
        several = _enough_words(method) if name in _DECISIVE and has_kernel(method) else [dict[str, Any](), next(words)]
        yield from _cases(method, name, changed, {}, *several)
        yield from _cases(method, name, changed, uneven(method, problem.k), next(words))
        for title, numbers in extremes(method, problem.k):
            if title != _SCALED_WITH.get(name):
                continue
            yield from _cases(method, f"{name}, {title}", changed, numbers, {})


def _enough_words(method: Method) -> list[dict[str, Any]]:
    """All combinations of words and switches; if these are many, each word alone."""
    every = list(combinations(method))
    return every if len(every) <= _MANY else single_words(method)


def _cases(
    method: Method, name: str, problem: Problem, numbers: Mapping[str, Any], *several: Mapping[str, Any]
) -> Iterator[Case]:
    """With each of several choices of words and switches that goes together with the numbers and the problem."""
    for words in several if any(several) else several[:1]:
        settings = {**numbers, **words}
        if accepts(method, settings, problem.k) and _has_its_statistics(method, problem, settings):
            yield Case(name, problem, settings)


def _has_its_statistics(method: Method, problem: Problem, settings: Mapping[str, Any]) -> bool:
    """True if statistics have the shapes that these settings need; a setting may transpose matrices."""
    bound, shape = method.bind(settings, problem.k), problem.base.shape
    shapes = {stat.name: stat.shape_for(shape, bound) for stat in method.statistics.values()}
    return all(shapes[name] == stack.shape[1:] for name, stack in problem.statistics.items())


def _mixture(method: Method, seed: int, words: Mapping[str, Any], rng: np.random.Generator) -> Iterator[Case]:
    """Several special settings and inputs at once."""
    models, shape = rng.choice(_counts(method)), SHAPES[rng.integers(len(SHAPES))]
    problem = sample(method, shape, seed, models=int(models))
    first, second = rng.choice(list(_CHANGES), 2)
    mixed = _CHANGES[first](_CHANGES[second](problem, rng), rng)
    settings = list(extremes(method, problem.k))
    title, numbers = settings[rng.integers(len(settings))]
    name = f"{title}, {second}, {first}, {models} models, shape {shape}"
    yield from _cases(method, name, mixed, numbers, words)


def _in_turn(method: Method, seed: int) -> Iterator[Mapping[str, Any]]:
    """Combinations of words and switches in an endless cycle; the seed selects the first."""
    every = list(combinations(method))
    turn = np.random.default_rng(seed).permutation(len(every))
    while True:
        yield from (every[i] for i in turn)


def _counts(method: Method) -> list[int]:
    low, high = method.models
    return [k for k in (1, 2, 4, 30) if low <= k <= (high or k)]


def _unmoved(problem: Problem, _: object) -> Problem:
    return replace(problem, tensors=np.stack([problem.base] * problem.k))


def _one_unmoved(problem: Problem, _: object) -> Problem:
    return replace(problem, tensors=np.stack([problem.base, *problem.tensors[1:]]))


def _partly_unmoved(problem: Problem, rng: np.random.Generator) -> Problem:
    where = rng.random(problem.base.shape) < 0.5
    return replace(problem, tensors=np.where(where, problem.base, problem.tensors))


def _sparse(problem: Problem, rng: np.random.Generator) -> Problem:
    where = rng.random(problem.tensors.shape) < 0.7
    return replace(problem, tensors=np.where(where, problem.base, problem.tensors))


def _alike(problem: Problem, _: object) -> Problem:
    return replace(problem, tensors=np.stack([problem.tensors[0]] * problem.k))


def _opposite(problem: Problem, _: object) -> Problem:
    """Every two models cancel; an odd last model is the base."""
    delta, k = problem.tensors[0] - problem.base, problem.k
    signs = [0 if i == k - 1 and k % 2 else (-1) ** i for i in range(k)]
    return replace(problem, tensors=np.stack([problem.base + np.float32(sign) * delta for sign in signs]))


def _partly_opposite(problem: Problem, rng: np.random.Generator) -> Problem:
    where = rng.random(problem.base.shape) < 0.5
    return replace(problem, tensors=np.where(where, _opposite(problem, rng).tensors, problem.tensors))


def _tied(problem: Problem, _: object) -> Problem:
    step = np.float32(0.25)
    return replace(problem, tensors=problem.base + step * np.rint((problem.tensors - problem.base) / step))


def _all_zero(problem: Problem, _: object) -> Problem:
    return replace(problem, tensors=np.zeros_like(problem.tensors), base=np.zeros_like(problem.base))


def _negative(problem: Problem, _: object) -> Problem:
    delta = abs(problem.tensors - problem.base)
    return replace(problem, tensors=problem.base - delta)


def _scaled(power: int) -> Change:
    factor = np.float32(2.0**power)
    return lambda problem, _: replace(problem, tensors=problem.tensors * factor, base=problem.base * factor)


def _of_many_sizes(problem: Problem, rng: np.random.Generator) -> Problem:
    factor = np.asarray(2.0 ** rng.integers(-30, 20, problem.base.shape), np.float32)
    return replace(problem, tensors=problem.tensors * factor, base=problem.base * factor)


def _statistics_of_zero(problem: Problem, rng: np.random.Generator) -> Problem:
    """All zero in half of the entries; of Grams, which are not stacked like the tensors, everywhere."""
    where = rng.random(problem.base.shape) < 0.5
    same = {name: stack.shape == problem.tensors.shape for name, stack in problem.statistics.items()}
    zeroed = {n: np.where(where if same[n] else True, np.float32(0), s) for n, s in problem.statistics.items()}
    return replace(problem, statistics=zeroed)


# Settings in the units of the weights hide what becomes of tiny and of huge numbers, unless they are so themselves.
_SCALED_WITH = {"tiny numbers": "numbers at their lowest", "huge numbers": "numbers at their highest"}
_DECISIVE = {"deltas that cancel in some entries", "equal magnitudes", "small numbers"}  # words decide there
_CHANGES: Mapping[str, Change] = {
    "deltas of zero": _unmoved,
    "one model equal to the base": _one_unmoved,
    "entries that no model changed": _partly_unmoved,
    "sparse deltas": _sparse,
    "equal models": _alike,
    "opposite deltas": _opposite,
    "deltas that cancel in some entries": _partly_opposite,
    "equal magnitudes": _tied,
    "negative deltas": _negative,
    "nothing but zeros": _all_zero,
    "small numbers": _scaled(-14),
    "tiny numbers": _scaled(-80),
    "huge numbers": _scaled(60),
    "entries of very different sizes": _of_many_sizes,
    "statistics of zero": _statistics_of_zero,
}
