"""One check for each law."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise, product

import numpy as np

from ..methods import Law, Method
from ..methods._passes import call
from ._asserts import assert_close, assert_that
from ._pieces import Answered
from ._problems import choices, of_models, sample, uneven

Check = Callable[[Method], None]


def check_symmetric(method: Method) -> None:
    problem = sample(method)
    for settings in choices(method, problem.k):
        for order in (range(problem.k)[::-1], [*range(1, problem.k), 0]):
            swapped = problem.pick(order).merge(method, of_models(method, settings, order))
            assert_close(swapped, problem.merge(method, settings), f"the order of the models matters ({settings})")


def check_idempotent(method: Method) -> None:
    problem = sample(method)
    copies = problem.pick([0] * problem.k)
    settings = {n: v for n, v in uneven(method, problem.k).items() if method.settings[n].per_model}
    assert_close(copies.merge(method, settings), problem.tensors[0], "copies of one model gave another")


def check_elementwise(method: Method) -> None:
    problem = sample(method)
    for settings in choices(method, problem.k):
        whole = Answered(method, problem, settings)
        slabs = [call(method.fn, whole.slab(start, stop)) for start, stop in pairwise((0, 1, 8, 23, 30))]
        wanted = np.reshape(call(method.fn, whole.supply), -1)
        assert_close(np.concatenate(slabs), wanted, f"slabs differ from the whole ({settings})")


def check_rows(method: Method) -> None:
    problem = sample(method)
    for settings in choices(method, problem.k):
        whole = Answered(method, problem, settings)
        slabs = [call(method.fn, whole.slab(start, stop)) for start, stop in whole.pieces((0, 1, 8, 23, 30))]
        wanted = call(method.fn, whole.supply)
        assert_close(np.concatenate(slabs).reshape(wanted.shape), wanted, f"rows differ from the whole ({settings})")


def check_homogeneous(method: Method) -> None:
    problem = sample(method)
    settings = uneven(method, problem.k)
    once = problem.merge(method, settings) - problem.base
    for factor in (2, 0.5):
        scaled = replace(problem, tensors=problem.base + np.float32(factor) * (problem.tensors - problem.base))
        times = scaled.merge(method, settings) - problem.base
        assert_close(times, factor * once, f"deltas times {factor} gave other than {factor} times the delta", 4)


def check_linear(method: Method) -> None:
    problem = sample(method)
    for settings in choices(method, problem.k):
        whole = problem.merge(method, settings)
        other = replace(problem, tensors=problem.tensors[:, ::-1], base=problem.base[::-1])
        sums = replace(problem, tensors=problem.tensors + other.tensors, base=problem.base + other.base)
        wanted = whole + other.merge(method, settings)
        assert_close(sums.merge(method, settings), wanted, f"the merge of sums is no sum of merges ({settings})", 8)


def check_zero_is_absent(method: Method) -> None:
    problem = sample(method)
    assert_that("weight" in method.settings, "a method without a setting `weight` cannot claim this law")
    for settings, silent in product(choices(method, problem.k), range(problem.k)):
        rest = [i for i in range(problem.k) if i != silent]
        weights = [0.0 if i == silent else w for i, w in enumerate(settings["weight"])]
        there = problem.merge(method, settings | {"weight": weights})
        gone = problem.pick(rest).merge(method, of_models(method, settings, rest))
        assert_close(there, gone, f"a model of weight zero changed the result ({settings})")


# ELEMENTWISE, ROWS, SYMMETRIC, LINEAR and ZERO_IS_ABSENT hold whatever the settings; the others where words and
# switches have their defaults, and IDEMPOTENT where numbers that are not the models' own have theirs too.
LAWS: Mapping[Law, Check] = {
    Law.SYMMETRIC: check_symmetric,
    Law.IDEMPOTENT: check_idempotent,
    Law.ELEMENTWISE: check_elementwise,
    Law.ROWS: check_rows,
    Law.HOMOGENEOUS: check_homogeneous,
    Law.LINEAR: check_linear,
    Law.ZERO_IS_ABSENT: check_zero_is_absent,
}
