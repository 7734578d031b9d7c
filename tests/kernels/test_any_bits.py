"""Every rank search ends on any pattern of 32 bits, infinities and NaN included, and finds what sorting finds."""

from __future__ import annotations

from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from polyak.engine import tuning
from polyak.engine.first_passes.threshold import INFINITY, LARGEST, ThresholdSearch, Visit, bracket_by_sample
from polyak.engine.first_passes.topk_rows import RowCutter
from polyak.engine.session.sorted_deltas import _boundary, _Sorted
from polyak.kernels.rank_drop import thin

_ROUNDS = 200  # sweeps; a search needs at most some dozens
_NAMED = [0, 1, 0x007FFFFF, 0x3F800000, 0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FC00000, 0x7FFFFFFF]
_SIGNED = [bits | sign for bits in _NAMED for sign in (0, 0x80000000)]

bits = arrays(np.uint32, st.integers(2, 60), elements=st.sampled_from(_SIGNED) | st.integers(0, 2**32 - 1))
quick = settings(max_examples=150, deadline=None)


def magnitudes(row: np.ndarray) -> np.ndarray:
    return np.sort(row.view(np.uint32) & np.uint32(LARGEST))[::-1]


def settle(search: ThresholdSearch, row: np.ndarray) -> None:
    """Sweep a row until the threshold is known, as the engine does."""
    for _ in range(_ROUNDS):
        if search.state == "done":
            return
        visit = Visit(search)
        visit.observe(row[search.place[0] :] if search.state == "place" else row, search.place[0])
        visit.hand_over()
        search.settled_by([visit])
    raise AssertionError(f"no end after {_ROUNDS} sweeps")


@pytest.mark.slow
@quick
@given(numbers=bits, data=st.data())
def test_the_threshold_search_ends_with_the_pattern_that_sorting_finds(numbers: np.ndarray, data: st.DataObject):
    row, count = numbers.view(np.float32), data.draw(st.integers(1, numbers.size - 1))
    state = data.draw(st.sampled_from(["collect", "bins", "sample"]))
    search = ThresholdSearch(
        count, "collect" if state == "sample" else state, data.draw(st.sampled_from(["first", "all"]))
    )
    if state == "bins":
        search.use_bins()
    if state == "sample":
        bracket_by_sample(search, [magnitudes(row[:2]), magnitudes(row[-2:])], row.size)
    with mock.patch.object(tuning, "COLLECTED", data.draw(st.sampled_from([1, 2**18]))):
        settle(search, row)
    wanted = magnitudes(row)[count - 1]
    assert np.isnan(search.value) if wanted > INFINITY else np.float32(search.value).view(np.uint32) == wanted


@pytest.mark.slow
@quick
@given(numbers=bits, data=st.data())
def test_row_thresholds_are_those_of_sorting(numbers: np.ndarray, data: st.DataObject):
    """Three rows, so that the later ones begin with a guess from the earlier."""
    count, first = data.draw(st.integers(1, numbers.size - 1)), data.draw(arrays(np.uint32, numbers.size))
    rows = np.stack([numbers, first, numbers]).view(np.float32)
    value, _ = RowCutter([[count]], numbers.size).cut(rows.reshape(1, -1), 0)
    wanted = [magnitudes(row)[count - 1] for row in rows]
    assert value[0, 0].view(np.uint32).tolist() == wanted


@pytest.mark.slow
@quick
@given(parts=st.lists(bits, min_size=1, max_size=3), data=st.data())
def test_places_in_sorted_tables_are_those_of_sorting(parts: list[np.ndarray], data: st.DataObject):
    tables = [_Sorted(part & np.uint32(LARGEST)) for part in parts]
    ordered = magnitudes(np.concatenate(parts))[::-1]
    rank = data.draw(st.integers(0, ordered.size - 1))
    assert _boundary(tables, rank) == ordered[rank]


@quick
@given(numbers=bits, inverse=st.booleans())
def test_dropping_by_rank_ends_and_leaves_an_entry_or_zero(numbers: np.ndarray, inverse: bool):
    rows = numbers.view(np.float32)[None].copy()
    thin(rows, np.array([1, 2], np.uint32), 0, (0.5, 0.25), 1.0, inverse=inverse)
    kept = rows[0].view(np.uint32) != 0
    if not inverse:
        finite = np.isfinite(numbers.view(np.float32))
        assert (rows[0].view(np.uint32)[kept & finite] == numbers[kept & finite]).all()


@pytest.mark.parametrize("share", [0.1, 0.9])
def test_a_threshold_that_is_nan_is_refused_with_the_tensor(share: float):
    from polyak.engine.first_passes.base import refuse_nan
    from polyak.errors import NotFinite

    reads = tuple(SimpleNamespace(model=name) for name in ("a", "b"))
    step = SimpleNamespace(out=SimpleNamespace(name="w.weight"), reads=reads)
    member = SimpleNamespace(step=step, method=SimpleNamespace(name="pcb"))
    refuse_nan([share], [member])
    with pytest.raises(NotFinite, match=r"'pcb' ranks for 'w\.weight' overflow float32 in a, b"):
        refuse_nan([share, np.nan], [member])
