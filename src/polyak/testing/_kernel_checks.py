"""Kernels, and the compiled forms of first passes and masks, agree with the definition."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..methods import Method, Order, Role, Rows, Sum, Top, call, in_rows
from ._asserts import assert_close, assert_each_close, assert_that, largest
from ._cases import every_word, plain, special, special_numbers
from ._check import Case, check
from ._kernels import (
    by_definition,
    by_kernel,
    has_kernel,
    has_packed_masks,
    masks_by_kernel,
    ranked_by_kernel,
    sums_by_kernel,
)
from ._pieces import Pieces
from ._problems import sample
from ._settings import accepts, gain, single_words, uneven

_LONG = (0, 1, 1030, 4101)  # of 3 rows of 1367 entries: more than a block of any kernel, none a multiple of a vector


def _long(method: Method, seed: int) -> Iterator[Case]:
    """A tensor of several blocks, with each word and switch alone."""
    problem = sample(method, (3, 1367), seed)
    for words in single_words(method):
        if accepts(method, settings := uneven(method, problem.k) | words, problem.k):
            yield Case("4101 entries", problem, settings)


_TIED = 1e-6  # relative difference of float32 scores that rounding may reverse
_ROUNDED = 10.0  # only the order of ranked numbers matters, and a kernel that ranks compares its own numbers


def _of_kernels(method: Method, seed: int) -> Iterator[Case]:
    """All cases, of tensors that have entries; none for a method without a kernel."""
    if not has_kernel(method):
        return
    for case in _with_and_without_statistics(method, seed):
        if case.problem.base.size:
            yield case


def _with_and_without_statistics(method: Method, seed: int) -> Iterator[Case]:
    """All cases, and again without those statistics that tensors may lack."""
    optional = {stat.name for stat in method.statistics.values() if stat.optional}
    for cases in (_long, every_word, special):
        for case in cases(method, seed):
            yield case
            if optional:
                rest = {name: stack for name, stack in case.problem.statistics.items() if name not in optional}
                problem = replace(case.problem, statistics=rest)
                yield Case(f"{case.name}, without {' and '.join(sorted(optional))}", problem, case.settings)


@check(
    _of_kernels,
    remedy="fix the kernel: the definition is the reference. A kernel gets settings and random numbers in forms of its "
    "own, see `polyak.methods.Method.kernel`",
)
def check_kernel_equals_definition(method: Method, case: Case) -> None:
    """Kernels agree on tiles of odd sizes and starts, to 1e-6 of the summed magnitudes; so do compiled first passes."""
    whole = Pieces(method, case.problem, case.settings)
    _assert_first_passes_agree(whole)
    if case.name.startswith("equal magnitudes") and _ranks_ties(whole):
        return
    factor = gain(method, whole.bound)
    for start, stop in whole.ranges(_cuts(whole.entries)):
        merged = by_kernel(method, whole.tile(start, stop), whole.kernel_answers, start, stop - start)
        slab = whole.slab(start, stop)
        expected = np.reshape(by_definition(method, slab), -1)
        assert_that(bool(np.isfinite(expected).all()), "the definition itself gives infinity or NaN for finite inputs")
        sizes = np.abs(expected) + _sizes(method, slab) * factor
        assert_each_close(
            merged, expected, f"the kernel differs from the definition on entries {start} to {stop}", sizes
        )


def _ranks_ties(whole: Pieces) -> bool:
    """True if a first pass selects among scores that are equal up to rounding, so that a kernel may select others."""
    for name, request in whole.requests.items():
        if isinstance(request, Order) and request.of is not None:
            scores = _flat(call(request.of, whole.arguments))
            selected = np.reshape(whole.answers[name], (-1, len(scores), 1))
            if (np.sum(np.abs(scores - selected) <= _TIED * largest(scores), axis=2) > 1).any():
                return True
    return False


def _assert_first_passes_agree(whole: Pieces) -> None:
    """Compiled sums over tiles add up to the answer, and compiled rankings rank the numbers of the definition."""
    for name, request in whole.requests.items():
        if isinstance(request, Sum):
            _assert_sums_agree(whole, name, request)
        elif isinstance(request, Top | Order) and request.of is not None:
            for start, stop in whole.ranges(_cuts(whole.entries)):
                ranked = ranked_by_kernel(request, whole.tile(start, stop))
                if ranked is not None:
                    expected = call(request.of, whole.slab(start, stop))
                    wrong = f"the first pass {name!r} ranks other numbers in its compiled form"
                    assert_close(ranked, expected, wrong, _ROUNDED * largest(expected))


def _assert_sums_agree(whole: Pieces, name: str, request: Sum) -> None:
    answer = whole.answers[name]
    row = answer.row if isinstance(answer, Rows) else 1
    tiles = [
        sums_by_kernel(whole.method, request, whole.tile(start, stop), whole.kernel_answers, start, row)
        for start, stop in whole.ranges(_cuts(whole.entries), row if row > 1 else None)
    ]
    if not tiles or tiles[0] is None:
        return
    wrong = f"the compiled sum {name!r} is not that of its terms"
    size = _total_size_of_terms(whole, request, row)
    if isinstance(answer, Rows):
        assert_close(np.concatenate(tiles, axis=1), answer.value, wrong, size)
    else:
        assert_close(np.sum(tiles, axis=0) / (whole.entries if request.of_means else 1), answer, wrong, size)


def _total_size_of_terms(whole: Pieces, request: Sum, row: int) -> float:
    """The sum of the magnitudes of all terms, to which rounding errors are relative."""
    arguments = {**whole.arguments, **(in_rows(whole.arguments, row) if request.scope == "row" else {})}
    terms = np.abs(call(request.term, arguments)).sum(dtype=np.float64)
    return float(terms) / (whole.entries if request.of_means else 1)


def _with_masks(method: Method, seed: int) -> Iterator[Case]:
    if method.masks is not None:
        for cases in (_long, every_word, special):
            yield from (c for c in cases(method, seed) if c.problem.base.size and _bound(method, c)["masks"])


@check(
    _with_masks,
    remedy="make masks elementwise once first passes are answered, and give the bits of the function registered with "
    "`masking` in the one registered with `pack_masks`",
)
def check_masks_can_be_cut_and_packed(method: Method, case: Case) -> None:
    """Masks are elementwise once first passes are known, and their compiled form has the same bits."""
    whole = Pieces(method, case.problem, case.settings)
    entire = whole.masks(0, whole.entries)
    assert_that(entire.keep.dtype == bool, f"masks are booleans; got {entire.keep.dtype}")
    for start, stop in whole.ranges(_cuts(whole.entries)):
        cut = whole.masks(start, stop)
        same = np.array_equal(np.reshape(cut.keep, (whole.models, -1)), _flat(entire.keep)[:, start:stop])
        assert_that(same and np.array_equal(cut.scale, entire.scale), "masks of slices are not slices of the masks")
        if has_packed_masks(method):
            bits, scale = masks_by_kernel(method, whole.tile(start, stop), whole.models, stop - start)
            same = np.array_equal(bits, np.packbits(_flat(cut.keep), axis=1, bitorder="little"))
            assert_that(same, f"the packed masks of entries {start} to {stop} have other bits")
            assert_close(scale, cut.scale, "the packed masks have other scales")


def _plain_and_special_numbers(method: Method, seed: int) -> Iterator[Case]:
    if has_kernel(method):
        yield from plain(method, seed)
        yield from special_numbers(method, seed)


@check(
    _plain_and_special_numbers,
    remedy="leave entries out by a condition, in the kernel as in the definition: zero times infinity is NaN",
)
def check_infinities_in_excluded_places(method: Method, case: Case) -> None:
    """An infinity that the definition drops, outvotes or clips does not reach the kernel's result either."""
    whole = Pieces(method, case.problem, case.settings)
    name, entries = _stack_of(method), whole.entries
    for infinity in (np.inf, -np.inf):
        tile, slab = whole.tile(0, entries), whole.slab(0, entries)
        sizes = _sizes(method, slab) * gain(method, whole.bound)
        for arguments in (tile, slab):
            _flat(arguments[name])[-1, ::3] = infinity
        with np.errstate(all="ignore"):
            expected = np.reshape(by_definition(method, slab), -1)
            merged = by_kernel(method, tile, whole.kernel_answers, 0, entries)
        there = np.isfinite(expected)
        wrong = f"with {infinity} in every third entry of the last model, the kernel differs from the definition"
        assert_each_close(merged[there], expected[there], wrong, (np.abs(expected) + sizes)[there])


def _flat(stack: Any) -> Any:
    return np.reshape(stack, (stack.shape[0], -1))


def _bound(method: Method, case: Case) -> dict[str, Any]:
    return method.bind(case.settings, case.problem.k)


def _cuts(entries: int) -> Sequence[int]:
    return _LONG if entries == _LONG[-1] else (0, 1 + entries // 2, entries)


def _sizes(method: Method, slab: Mapping[str, Any]) -> Any:
    """The sum of magnitudes at each entry, to which rounding errors are relative."""
    return np.abs(_flat(slab[_stack_of(method)])).sum(axis=0)


def _stack_of(method: Method) -> str:
    """The parameter for the stack of models."""
    return next((name for name, role in method.inputs.items() if role in (Role.TENSORS, Role.DELTAS)), "tensors")
