"""One check for each law."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise

import numpy as np

from ..methods import Law, Method
from ._asserts import assert_close, assert_that
from ._cases import every_setting, plain, special_numbers
from ._check import Case, Check, check
from ._kernels import by_definition
from ._pieces import Pieces
from ._settings import accepts, gain, of_models

_DROP = "mend the definition, or drop {} from `laws`"


def _weights_alone(method: Method, seed: int) -> Iterator[Case]:
    """Cases in which numbers that are not the models' own, words and switches have their defaults."""
    for case in _default_words(method, seed):
        own = {name: value for name, value in case.settings.items() if method.settings[name].per_model}
        yield replace(case, settings=own)


@check(every_setting, law=Law.SYMMETRIC, remedy=_DROP.format("SYMMETRIC"))
def check_symmetric(method: Method, case: Case) -> None:
    k, expected = case.problem.k, case.merge(method)
    for order in (range(k)[::-1], [*range(1, k), 0]):
        swapped = case.problem.pick(order).merge(method, of_models(method, case.settings, order))
        assert_close(swapped, expected, f"with the models in the order {[*order]} the merge is another")


def _default_words(method: Method, seed: int) -> Iterator[Case]:
    """Cases in which words and switches have their defaults."""
    for cases in (plain, special_numbers):
        for case in cases(method, seed):
            numbers = {
                name: value for name, value in case.settings.items() if method.settings[name].kind in (float, int)
            }
            if accepts(method, numbers, case.problem.k):
                yield replace(case, settings=numbers)


@check(_weights_alone, law=Law.IDEMPOTENT, remedy=_DROP.format("IDEMPOTENT"))
def check_idempotent(method: Method, case: Case) -> None:
    copies = case.problem.pick([0] * case.problem.k)
    merged = copies.merge(method, case.settings)
    assert_close(merged, copies.tensors[0], "copies of one model gave another", gain(method, case.settings))


@check(
    every_setting,
    law=Law.ELEMENTWISE,
    remedy=_DROP.format("ELEMENTWISE") + "; request a first pass for numbers that depend on the whole tensor",
)
def check_elementwise(method: Method, case: Case) -> None:
    whole = Pieces(method, case.problem, case.settings)
    slabs = [by_definition(method, whole.slab(start, stop)) for start, stop in pairwise((0, 1, 8, 23, 30))]
    expected = np.reshape(by_definition(method, whole.arguments), -1)
    assert_close(
        np.concatenate(slabs), expected, "slices of the merge are not the merge of slices", gain(method, case.settings)
    )


@check(every_setting, law=Law.ROWS, remedy=_DROP.format("ROWS"))
def check_rows(method: Method, case: Case) -> None:
    whole = Pieces(method, case.problem, case.settings)
    slabs = [by_definition(method, whole.slab(start, stop)) for start, stop in whole.ranges((0, 1, 8, 23, 30))]
    expected = by_definition(method, whole.arguments)
    assert_close(np.concatenate(slabs).reshape(expected.shape), expected, "rows of the merge are not the merge of rows")


@check(_default_words, law=Law.HOMOGENEOUS, remedy=_DROP.format("HOMOGENEOUS"))
def check_homogeneous(method: Method, case: Case) -> None:
    problem = case.problem
    once = case.merge(method) - problem.base
    for factor in (2, 0.5):
        scaled = replace(problem, tensors=problem.base + np.float32(factor) * (problem.tensors - problem.base))
        times = scaled.merge(method, case.settings) - problem.base
        assert_close(times, factor * once, f"{factor} times the deltas do not give {factor} times the merged delta", 4)


@check(every_setting, law=Law.LINEAR, remedy=_DROP.format("LINEAR"))
def check_linear(method: Method, case: Case) -> None:
    problem = case.problem
    other = replace(problem, tensors=problem.tensors[:, ::-1], base=problem.base[::-1])
    sums = replace(problem, tensors=problem.tensors + other.tensors, base=problem.base + other.base)
    expected = case.merge(method) + other.merge(method, case.settings)
    merged = sums.merge(method, case.settings)
    assert_close(merged, expected, "the merge of sums is not the sum of merges", 8 * gain(method, case.settings))


@check(every_setting, law=Law.ZERO_IS_ABSENT, remedy=_DROP.format("ZERO_IS_ABSENT"))
def check_zero_is_absent(method: Method, case: Case) -> None:
    assert_that("weight" in method.settings, "a method without a setting `weight` cannot claim this law")
    k, weight = case.problem.k, case.settings.get("weight", [1.0] * case.problem.k)
    for silent in range(k):
        rest = [i for i in range(k) if i != silent]
        settings = {**case.settings, "weight": [0.0 if i == silent else w for i, w in enumerate(weight)]}
        without = of_models(method, settings, rest)
        if accepts(method, settings, k) and accepts(method, without, k - 1):
            there, gone = case.problem.merge(method, settings), case.problem.pick(rest).merge(method, without)
            assert_close(
                there, gone, f"model {silent}, of weight zero, changed the result", gain(method, case.settings)
            )


# ELEMENTWISE, ROWS, SYMMETRIC, LINEAR and ZERO_IS_ABSENT hold whatever the settings; the others where words and
# switches have their defaults, and IDEMPOTENT where numbers that are not the models' own have theirs too.
LAWS: Mapping[Law, Check] = {
    check.law: check
    for check in (
        check_symmetric,
        check_idempotent,
        check_elementwise,
        check_rows,
        check_homogeneous,
        check_linear,
        check_zero_is_absent,
    )
    if check.law is not None
}
