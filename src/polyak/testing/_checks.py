"""What holds for every method."""

from __future__ import annotations

import importlib
import importlib.util
import math
import random
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise, product
from typing import Any

import numpy as np

from ..methods import Method, Setting
from ..methods._passes import call
from ._asserts import assert_close, assert_refused, assert_that, largest
from ._pieces import Answered
from ._problems import Problem, choices, sample, uneven

SHAPES = [(), (1,), (7,), (4, 6), (3, 2, 2, 2), (0, 4)]
FILLS = [None, 0.0, 1e-30, 1e15]


def check_shape_and_finiteness(method: Method) -> None:
    """Any shape, any size of numbers, float32 and float64, as few models as it takes."""
    for shape, fill, dtype in product(SHAPES, FILLS, (np.float32, np.float64)):
        problem = sample(method, shape)
        if fill is not None:
            problem = replace(problem, tensors=np.full_like(problem.tensors, fill), base=np.zeros_like(problem.base))
        for k in {problem.k, method.models[0]}:
            few = problem.pick(range(k)).map(lambda array, dtype=dtype: array.astype(dtype))
            merged = few.merge(method, uneven(method, k))
            assert_that(merged.shape == shape, f"{shape} became {tuple(merged.shape)}")
            assert_that(merged.dtype == dtype, f"{np.dtype(dtype)} became {merged.dtype}")
            assert_that(
                bool(np.isfinite(merged).all()), f"finite inputs (shape {shape}, filled with {fill}) gave inf or nan"
            )


def check_inputs_are_untouched(method: Method) -> None:
    """No input changes, and the result shares no memory with one."""
    for settings in choices(method, sample(method).k):
        problem, untouched = sample(method), sample(method)
        problem.merge(method, settings)[...] += 1
        for name in ("tensors", "base", "chance"):
            same = np.array_equal(getattr(problem, name), getattr(untouched, name))
            assert_that(same, f"{name} was changed in place, or the result shares its memory")
        for name, stack in problem.statistics.items():
            assert_that(np.array_equal(stack, untouched.statistics[name]), f"the statistic {name!r} was changed")


def check_same_seed_same_result(method: Method) -> None:
    """A seed settles everything."""
    problem = sample(method)
    base, settings = problem.base if method.uses_base else None, uneven(method, problem.k)
    once, again = (method(problem.tensors, base, statistics=problem.statistics, seed=7, **settings) for _ in range(2))
    assert_that(np.array_equal(once, again), "the same seed gave two results")


def check_global_generators_are_untouched(method: Method) -> None:
    """It draws from no generator that others share."""
    problem = sample(method)
    before = _global_generators()
    problem.merge(method, uneven(method, problem.k))
    assert_that(before == _global_generators(), "it draws from a global generator; take `chance: Uniform` instead")


def _global_generators() -> tuple[object, ...]:
    legacy: Any = np.random.get_state(legacy=False)
    torch = _torch()
    state = b"" if torch is None else torch.get_rng_state().numpy().tobytes()
    return random.getstate(), legacy["state"]["pos"], legacy["state"]["key"].tobytes(), state


def check_base_is_fixed(method: Method) -> None:
    """Models that are all the base merge to the base."""
    if method.uses_base:
        problem = sample(method)
        problem = replace(problem, tensors=np.stack([problem.base] * problem.k))
        for settings in choices(method, problem.k):
            assert_close(
                problem.merge(method, settings), problem.base, f"copies of the base gave something else ({settings})"
            )


def check_bad_settings_are_named(method: Method) -> None:
    """A value that the declaration rules out is refused, naming the setting, the method and the value."""
    problem = sample(method)
    good = uneven(method, problem.k)
    for name, setting in method.settings.items():
        for value in _bad_values(setting):
            given = [*good[name][1:], value] if setting.per_model else value
            assert_refused(partial(problem.merge, method, good | {name: given}), method.name, name, repr(value))
    assert_refused(partial(problem.merge, method, good | {"not_a_setting": 1}), method.name, "not_a_setting")


def _bad_values(setting: Setting) -> Iterator[object]:
    yield from ("(" if setting.kind is str else "nonsense", None, math.nan, math.inf)
    yield from () if setting.kind is bool else (True,)
    yield from (1.5,) if setting.kind is int else ()
    yield from (1, 0) if setting.kind is bool else ()
    if setting.range is not None:
        yield setting.range.low - 1
        yield from () if math.isinf(setting.range.high) else (setting.range.high + 1,)
        yield from (setting.range.low,) if setting.range.above else ()


def check_bad_counts_are_refused(method: Method) -> None:
    """Too few models, too many, or a missing base."""
    low, high = method.models
    problem = sample(method)
    for k in [k for k in (low - 1, (high or 0) + 1) if k > 0 and not low <= k <= (high or k)]:
        many = problem.pick([i % problem.k for i in range(k)])
        assert_refused(partial(many.merge, method, uneven(method, k)), method.name, f"got {k}")
    if method.needs_base:
        assert_refused(partial(method, problem.tensors, **uneven(method, problem.k)), method.name, "base")


def check_missing_statistics(method: Method) -> None:
    """Tensors without a statistic take the declared fallback, or are refused; so is a statistic of another shape."""
    problem = sample(method)
    settings = uneven(method, problem.k)
    bound = method.bind(settings, problem.k)
    for stat in [stat for stat in method.statistics.values() if stat.applies(bound)]:
        rest = {name: stack for name, stack in problem.statistics.items() if name != stat.name}
        without = replace(problem, statistics=rest)
        if not stat.optional:
            assert_refused(partial(without.merge, method, settings), method.name, stat.name)
        else:
            found = without.merge(method, settings)
            assert_that(bool(np.isfinite(found).all()), f"without {stat.name!r} the result holds inf or nan")
        wrong = replace(problem, statistics=rest | {stat.name: problem.statistics[stat.name][..., :-1]})
        assert_refused(partial(wrong.merge, method, settings), method.name, stat.name)
    other = replace(problem, statistics={**problem.statistics, "not_a_statistic": problem.tensors})
    assert_refused(partial(other.merge, method, settings), method.name, "not_a_statistic")


def check_twin_equals_definition(method: Method) -> None:
    """Tiles of odd sizes and starts, all words, to 1e-6 of the largest number involved; so do fused sums."""
    if method.twin is None and method.loop is None:
        return
    from ..kernels.philox import Stream, stream

    problem = sample(method, (3, 1367))
    drawn = stream(5, tuple(f"model {i}" for i in range(problem.k)), "tensor")
    problem = replace(problem, chance=drawn.numbers(problem.base.size).reshape(problem.tensors.shape))
    for settings, one in product(choices(method, problem.k), _with_and_without(method, problem)):
        whole = Answered(method, one, settings)
        for start, stop in whole.pieces((0, 1, 1030, 4101)):
            out = whole.fused(start, stop, Stream(drawn.keys, start))
            wanted = np.reshape(call(method.fn, whole.slab(start, stop)), -1)
            size = max(largest(problem.tensors), largest(wanted))
            assert_close(out, wanted, f"the twin differs from the definition ({settings})", size)
        whole.assert_sums_add_up((0, 1, 1030, 4101), drawn.keys)
        whole.assert_fused_ranks_agree((0, 1, 1030, 4101))


def _with_and_without(method: Method, problem: Problem) -> list[Problem]:
    """The problem, and the same without those statistics that tensors may lack."""
    optional = {stat.name for stat in method.statistics.values() if stat.optional}
    rest = {name: stack for name, stack in problem.statistics.items() if name not in optional}
    return [problem, replace(problem, statistics=rest)] if optional else [problem]


def check_masks_can_be_cut_and_packed(method: Method) -> None:
    """Masks are elementwise once first passes are known, and their fused form has the same bits."""
    if method.masks is None:
        return
    problem = sample(method, (3, 1367))
    for settings in choices(method, problem.k):
        if not settings["masks"]:
            continue
        whole = Answered(method, problem, settings)
        entire = whole.masks(0, 4101)
        assert_that(entire.keep.dtype == bool, f"masks are booleans; got {entire.keep.dtype}")
        for start, stop in pairwise((0, 1, 1030, 4101)):
            cut = whole.masks(start, stop)
            same = np.array_equal(cut.keep, entire.keep[:, start:stop]) and np.array_equal(cut.scale, entire.scale)
            assert_that(same, f"the masks of slices are not slices of the masks ({settings})")
            if method.packs is not None:
                bits, scale = whole.packed(start, stop)
                same = np.array_equal(bits, np.packbits(cut.keep, axis=1, bitorder="little"))
                assert_that(same, f"the fused masks have other bits ({settings})")
                assert_close(scale, cut.scale, f"the fused masks have other scales ({settings})")


def check_numpy_equals_torch(method: Method) -> None:
    """The definition means the same for both (passes where torch is not installed)."""
    torch = _torch()
    if torch is None:
        return
    problem = sample(method)
    twin = problem.map(lambda array: torch.from_numpy(array.copy()))
    for settings in choices(method, problem.k):
        merged = twin.merge(method, settings)
        assert_that(isinstance(merged, torch.Tensor), "torch tensors gave something else")
        assert_close(merged.numpy(), problem.merge(method, settings), f"torch differs from NumPy ({settings})")


def _torch() -> Any:
    return importlib.import_module("torch") if importlib.util.find_spec("torch") else None
