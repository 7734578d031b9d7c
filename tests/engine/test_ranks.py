"""Places in the order of sorted magnitudes, whether values repeat or not, in one table and over several."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from polyak.engine.session.sorted_deltas import _boundaries, _boundary, _Sorted
from polyak.methods import Top
from polyak.methods._passes import EVERY_TIE


def patterns(seed: int, size: int, values: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, values, size).astype(np.uint32)


@pytest.mark.parametrize(("values", "counted"), [(5, True), (10**6, False)])
def test_a_table_knows_what_lies_at_a_place_and_how_much_lies_below_a_value(values: int, counted: bool):
    numbers = patterns(0, 300, values)
    ordered = np.sort(numbers)
    table = _Sorted(numbers.copy())
    assert (table.nbytes < numbers.nbytes) == counted
    assert [table.at(rank) for rank in range(300)] == ordered.tolist()
    for value in (*range(7), *ordered[::13].tolist(), int(ordered[-1]) + 1):
        assert table.below(value, equals=False) == np.count_nonzero(numbers < value)
        assert table.below(value, equals=True) == np.count_nonzero(numbers <= value)


@pytest.mark.parametrize("values", [5, 10**6])
def test_a_place_over_several_tables_is_that_of_all_their_numbers(values: int):
    parts = [patterns(seed, size, values) for seed, size in enumerate((1, 70, 200))]
    ordered = np.sort(np.concatenate(parts))
    tables = [_Sorted(part.copy()) for part in parts]
    assert [_boundary(tables, rank) for rank in range(0, 271, 9)] == ordered[::9].tolist()
    assert [_boundary(tables[2:], rank) for rank in range(0, 200, 9)] == np.sort(parts[2])[::9].tolist()


def member(numel: int) -> SimpleNamespace:
    return SimpleNamespace(step=SimpleNamespace(out=SimpleNamespace(numel=numel)), answers={})


@pytest.mark.parametrize("count", [1, 40, 150, 269, 270])
def test_the_boundary_of_the_largest_is_counted_from_the_top(count: int):
    """Over two tensors; among many equals it is known only where all of them survive."""
    parts = [patterns(seed, size, 10**6) for seed, size in enumerate((70, 200))]
    tables = [[_Sorted(part.copy())] for part in parts]
    request = Top(lambda entries: [count], scope="model", ties="all")
    value, last = _boundaries(request, [member(70), member(200)], tables)
    ordered = np.sort(np.concatenate(parts))
    assert value[0, 0] == (-1 if count == 270 else ordered[-count].view(np.float32))
    assert last[0, 0] == (-1 if count == 270 else EVERY_TIE)
    equal = [[_Sorted(np.repeat(np.uint32([1, 5]), 35))]]
    first = Top(lambda entries: [count], ties="first")
    assert (_boundaries(first, [member(70)], equal) is None) == (count in (1, 40))
