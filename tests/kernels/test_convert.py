"""Every pattern of every dtype, in and out, against NumPy and ml_dtypes."""

from __future__ import annotations

import numpy as np
import pytest

from polyak.checkpoint import DTYPES
from polyak.kernels.convert import decode, encode

SMALL = {"F8_E4M3": np.uint8, "F8_E5M2": np.uint8, "F16": np.uint16, "BF16": np.uint16}
FLOATING = [name for name, dtype in DTYPES.items() if dtype.floating]


def decoded(stored: np.ndarray, name: str) -> tuple[np.ndarray, bool]:
    out = np.empty(stored.size, np.float32)
    return out, decode(stored.view(np.uint8), DTYPES[name], out)


def encoded(tile: np.ndarray, name: str) -> tuple[np.ndarray, bool]:
    out = np.empty(tile.size * DTYPES[name].itemsize, np.uint8)
    finite = encode(tile, DTYPES[name], out)
    return out.view(SMALL.get(name, DTYPES[name].numpy)), finite


def every_pattern(name: str) -> np.ndarray:
    return np.arange(1 << 8 * DTYPES[name].itemsize, dtype=np.uint32).astype(SMALL[name])


def widened(patterns: np.ndarray, name: str) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # signalling NaNs
        return patterns.view(DTYPES[name].numpy).astype(np.float32)


def finite_values(name: str) -> np.ndarray:
    """All finite numbers of a small dtype, ascending, in float64."""
    values = widened(every_pattern(name), name)
    return np.unique(values[np.isfinite(values)]).astype(np.float64)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_every_pattern_widens_exactly(name: str):
    patterns = every_pattern(name)
    found, _ = decoded(patterns, name)
    wanted = widened(patterns, name)
    finite = np.isfinite(wanted)
    np.testing.assert_array_equal(found[finite].view(np.uint32), wanted[finite].view(np.uint32))
    assert [decoded(patterns[i : i + 1], name)[1] for i in range(patterns.size)] == finite.tolist()


@pytest.mark.parametrize("name", SMALL)
def test_every_finite_pattern_survives_a_round_trip(name: str):
    patterns = every_pattern(name)
    patterns = patterns[np.isfinite(widened(patterns, name))]
    wide, _ = decoded(patterns, name)
    found, finite = encoded(wide, name)
    assert finite
    np.testing.assert_array_equal(found, patterns)


@pytest.mark.parametrize("name", SMALL)
def test_midpoints_and_their_neighbours_round_to_nearest_even(name: str):
    values = finite_values(name)
    middle = ((values[:-1] + values[1:]) / 2).astype(np.float32)
    near = [np.nextafter(middle, np.float32(way)) for way in (-np.inf, np.inf)]
    tile = np.concatenate([middle, *near])
    tile = tile[tile != 0]
    found, finite = encoded(tile, name)
    assert finite
    np.testing.assert_array_equal(found, tile.astype(DTYPES[name].numpy).view(SMALL[name]))


@pytest.mark.parametrize("name", SMALL)
def test_any_float32_rounds_as_the_reference_does(name: str):
    bits = np.random.default_rng(0).integers(0, 2**32, 50_000, dtype=np.uint32)
    tile = bits.view(np.float32)
    tile = tile[np.isfinite(tile)]
    tile = tile[np.abs(tile) <= finite_values(name)[-1]]
    found, finite = encoded(tile, name)
    assert finite
    np.testing.assert_array_equal(found, tile.astype(DTYPES[name].numpy).view(SMALL[name]))


@pytest.mark.parametrize("name", ["F8_E4M3", "F8_E5M2", "F16", "BF16"])
@pytest.mark.parametrize("sign", [1, -1])
def test_what_rounds_beyond_the_largest_number_is_reported(name: str, sign: int):
    values = finite_values(name)
    beyond = values[-1] + (values[-1] - values[-2]) / 2  # the midpoint to what would come next
    below = np.nextafter(np.float32(min(beyond, np.finfo(np.float32).max)), np.float32(0))
    assert encoded(np.array([1, sign * below], np.float32), name)[1]
    over = np.float32(beyond) if np.isfinite(np.float32(beyond)) else np.finfo(np.float32).max
    if name == "F8_E4M3":  # its mantissa is odd below the midpoint's even neighbour: 448 keeps 464
        over = np.nextafter(over, np.float32(np.inf))
    assert not encoded(np.array([1, sign * over], np.float32), name)[1]


@pytest.mark.parametrize("name", FLOATING)
@pytest.mark.parametrize("pattern", [0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001, 0xFFFFFFFF, 0x7FFFFFFF])
@pytest.mark.parametrize("place", [0, 37, 99])
def test_one_number_that_is_not_finite_is_reported_at_the_store(name: str, pattern: int, place: int):
    tile = np.ones(100, np.float32)
    assert encoded(tile, name)[1]
    tile.view(np.uint32)[place] = pattern
    assert not encoded(tile, name)[1]


@pytest.mark.parametrize("name", FLOATING)
@pytest.mark.parametrize("place", [0, 37, 99])
def test_one_nan_is_reported_at_the_load(name: str, place: int):
    stored = np.ones(100, DTYPES[name].numpy)
    assert decoded(stored, name)[1]
    stored[place] = np.nan
    assert not decoded(stored, name)[1]


@pytest.mark.parametrize("name", ["F64", "F32"])
def test_wide_dtypes_pass_through_float32(name: str):
    numbers = np.array([1 / 3, -1e-40, 3e38, 0.0], DTYPES[name].numpy)
    wide, finite = decoded(numbers, name)
    assert finite
    np.testing.assert_array_equal(wide, numbers.astype(np.float32))
    np.testing.assert_array_equal(encoded(wide, name)[0], wide.astype(numbers.dtype))


def test_a_float64_beyond_float32_is_reported_at_the_load():
    assert not decoded(np.array([1e39]), "F64")[1]
