"""Checks that apply to every method."""

from __future__ import annotations

import importlib
import importlib.util
import math
import random
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from ..methods import Method, Setting
from ._asserts import assert_close, assert_finite, assert_refused, assert_that
from ._cases import every_setting, every_word, plain, special
from ._check import Case, check
from ._kernels import has_kernel
from ._problems import sample
from ._settings import uneven

_SHAPES = [(), (1,), (7,), (4, 6), (3, 2, 2, 2), (0, 4)]
_FILLS = [None, 0.0, 1e-30, 1e15]


def _shapes_and_fills(method: Method, seed: int) -> Iterator[Case]:
    """All shapes, magnitudes of numbers, and the smallest number of models."""
    for shape, fill in product(_SHAPES, _FILLS):
        problem = sample(method, shape, seed)
        if fill is not None:
            problem = replace(problem, tensors=np.full_like(problem.tensors, fill), base=np.zeros_like(problem.base))
        for k in {problem.k, method.models[0]}:
            name = f"shape {shape}, {k} models, " + ("random numbers" if fill is None else f"all numbers {fill:g}")
            yield Case(name, problem.pick(range(k)), uneven(method, k))
            if fill is None:
                wide = problem.pick(range(k)).map(lambda array: array.astype(np.float64))
                yield Case(f"{name}, float64", wide, uneven(method, k))


@check(_shapes_and_fills, remedy="return the shape and dtype of one model; guard divisions by zero with `where`")
def check_shape_and_finiteness(method: Method, case: Case) -> None:
    """The result is finite, with the shape and dtype of the inputs."""
    base, merged = case.problem.base, case.merge(method)
    assert_that(merged.shape == base.shape, f"{base.shape} became {tuple(merged.shape)}")
    assert_that(merged.dtype == base.dtype, f"{base.dtype} became {merged.dtype}")
    assert_finite(merged)


def _without_kernels(method: Method, seed: int) -> Iterator[Case]:
    """All special cases; none for a method with a kernel, whose own check evaluates the definition."""
    if not has_kernel(method):
        yield from special(method, seed)


@check(_without_kernels, remedy="guard divisions by zero with `where`, and take sums of squares in float64")
def check_finite_in_every_case(method: Method, case: Case) -> None:
    """Finite inputs give finite numbers."""
    assert_finite(case.merge(method))


@check(every_word, remedy="copy before changing: an input belongs to the caller")
def check_inputs_are_untouched(method: Method, case: Case) -> None:
    """No input changes, and the result shares no memory with one."""
    problem, untouched = case.problem, case.problem.map(np.copy)
    case.merge(method)[...] += 1
    for name in ("tensors", "base", "chance"):
        same = np.array_equal(getattr(problem, name), getattr(untouched, name))
        assert_that(same, f"{name} was changed in place, or the result shares its memory")
    for name, stack in problem.statistics.items():
        assert_that(np.array_equal(stack, untouched.statistics[name]), f"the statistic {name!r} was changed")


_USE_CHANCE = "take random numbers from a parameter `chance: Uniform`, and from nowhere else"


@check(plain, remedy=_USE_CHANCE)
def check_same_seed_same_result(method: Method, case: Case) -> None:
    """The same seed gives the same result."""
    problem = case.problem
    base = problem.base if method.uses_base else None
    merge = partial(method, problem.tensors, base, statistics=problem.statistics, seed=7, **case.settings)
    assert_that(np.array_equal(merge(), merge()), "the same seed gave two results")


@check(plain, remedy=_USE_CHANCE)
def check_global_generators_are_untouched(method: Method, case: Case) -> None:
    """Global random generators are not used."""
    before = _global_generators()
    case.merge(method)
    assert_that(before == _global_generators(), "it draws from a global generator")


def _global_generators() -> tuple[object, ...]:
    legacy: Any = np.random.get_state(legacy=False)
    torch = _torch()
    state = b"" if torch is None else torch.get_rng_state().numpy().tobytes()
    return random.getstate(), legacy["state"]["pos"], legacy["state"]["key"].tobytes(), state


def _relative_to_a_base(method: Method, seed: int) -> Iterator[Case]:
    if method.uses_base:
        yield from every_setting(method, seed)


@check(_relative_to_a_base, remedy="return a delta that is zero where all deltas are; annotate a tensor as `Merged`")
def check_base_is_fixed(method: Method, case: Case) -> None:
    """Models equal to the base merge to the base."""
    problem = replace(case.problem, tensors=np.stack([case.problem.base] * case.problem.k))
    assert_close(problem.merge(method, case.settings), problem.base, "copies of the base gave something else")


@check(plain, remedy="annotate each setting with its range, `In(low, high)`, and leave refusals to `Method.bind`")
def check_bad_settings_are_named(method: Method, case: Case) -> None:
    """A value outside the declaration is refused, for any model, with a message that names setting and method."""
    for name, setting in method.settings.items():
        for value in _bad_values(setting):
            for bad in _for_each_model(setting, case.settings.get(name), value):
                merge = partial(case.merge, method, **{name: bad})
                assert_refused(merge, method.name, name, repr(value))
    assert_refused(partial(case.merge, method, not_a_setting=1), method.name, "not_a_setting")


def _for_each_model(setting: Setting, good: Any, value: object) -> Iterator[object]:
    if not setting.per_model:
        yield value
    for at in range(len(good) if setting.per_model else 0):
        yield [*good[:at], value, *good[at + 1 :]]


def _bad_values(setting: Setting) -> Iterator[object]:
    yield from ("(" if setting.kind is str else "nonsense", None, math.nan, math.inf, -math.inf)
    yield from () if setting.kind is bool else (True,)
    yield from (1.5,) if setting.kind is int else ()
    yield from (1, 0) if setting.kind is bool else ()
    if setting.range is not None:
        yield setting.range.low - 1
        yield from () if math.isinf(setting.range.high) else (setting.range.high + 1,)
        yield from (setting.range.low,) if setting.range.above else ()


@check(plain, remedy="declare the number of models with `models=(fewest, most)`, and leave refusals to the method")
def check_bad_counts_are_refused(method: Method, case: Case) -> None:
    """Too few models, too many, or a missing base."""
    (low, high), problem = method.models, case.problem
    for k in [k for k in (low - 1, (high or 0) + 1) if k > 0 and not low <= k <= (high or k)]:
        many = problem.pick([i % problem.k for i in range(k)])
        assert_refused(partial(many.merge, method, uneven(method, k)), method.name, f"got {k}")
    if method.needs_base:
        assert_refused(partial(method, problem.tensors, **case.settings), method.name, "base")


@check(plain, remedy="annotate a statistic that tensors may lack as `Array | None`, and document the fallback")
def check_missing_statistics(method: Method, case: Case) -> None:
    """Tensors without a statistic take the declared fallback, or are refused; so is a statistic of another shape."""
    problem, settings = case.problem, case.settings
    bound = method.bind(settings, problem.k)
    for stat in [stat for stat in method.statistics.values() if stat.applies(bound)]:
        rest = {name: stack for name, stack in problem.statistics.items() if name != stat.name}
        without = replace(problem, statistics=rest)
        if stat.optional:
            assert_finite(without.merge(method, settings))
        else:
            assert_refused(partial(without.merge, method, settings), method.name, stat.name)
        wrong = replace(problem, statistics=rest | {stat.name: problem.statistics[stat.name][..., :-1]})
        assert_refused(partial(wrong.merge, method, settings), method.name, stat.name)
    other = replace(problem, statistics={**problem.statistics, "not_a_statistic": problem.tensors})
    assert_refused(partial(other.merge, method, settings), method.name, "not_a_statistic")


@check(every_word, remedy="write the definition against the array API standard, through `array_namespace`")
def check_numpy_equals_torch(method: Method, case: Case) -> None:
    """The definition gives the same for NumPy and torch (passes if torch is not installed)."""
    torch = _torch()
    if torch is None:
        return
    merged = case.problem.map(lambda array: torch.from_numpy(array.copy())).merge(method, case.settings)
    assert_that(isinstance(merged, torch.Tensor), "torch tensors gave something else")
    assert_close(merged.numpy(), case.merge(method), "torch differs from NumPy")


def _torch() -> Any:
    return importlib.import_module("torch") if importlib.util.find_spec("torch") else None
