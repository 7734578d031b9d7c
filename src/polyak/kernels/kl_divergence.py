"""KL divergence of rows taken as logits; in float64, since rows of close models differ by little.

Exponential and logarithm vectorise, as in `exp_tanh`, by series whose remainder is below a unit in the last place.
e^x is 2^n e^r with |r| <= ln(2) / 2. ln(p / q) is 2 artanh((p - q) / (p + q)), or n ln 2 more where p / q is 2^n m with
m between sqrt(1/2) and sqrt(2). Rows with a small range, and models that are close, take shorter series.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..native import F32, F64, F32Rows, F64Rows, inlined, kernel, scratch
from ._lanes import total

CHUNK = 8192  # exponentials of a model and of the base that stay in the second-level cache
_LANES = 128  # partial sums
_NEAR = 1 / 8  # |r| for which e^r takes ten powers
_CLOSE = 1 / 32  # |s| for which artanh s takes five
_PER_LN2, _LN2_HIGH = 1 / np.log(2), 0.693147180369123816490  # 33 bits: its products with whole numbers are exact
_LN2_LOW = 1.90821492927058770002e-10
_WHOLE = 6755399441055744.0  # 1.5 * 2^52: added to a small number, it leaves the nearest whole one in the lowest bits
_WHOLE_BITS = np.int64(0x4338000000000000)
_LEAST = -708.0  # where e^x is a normal number
_ROOT_HALF = np.int64(0x3FE6A09E667F3BCD)
_SHIFT, _BIAS = np.int64(52), np.int64(1023)


@kernel
def divergences(rows: F32Rows, base: F32Rows, smoothing: float, out: F64, space: F64Rows) -> None:
    """Write sum p ln(p / q) per row, where p and q are the softmax of model and base plus a smoothing constant.

    Args:
        rows: (r, n) float32.
        base: (r, n) float32.
        smoothing: The constant.
        out: (r,) float64, written.
        space: (2, m) float64, overwritten.
    """
    lanes, width = scratch(_LANES, np.float64), space.shape[1]
    for r in range(rows.shape[0]):
        row, ground = rows[r], base[r]
        least, most = _extent(row, lanes)
        lowest, highest = _extent(ground, lanes)
        # Two sweeps per row, in parts of `width`: the softmax denominators, then the terms of the divergence.
        total, all_ground, divergence = 0.0, 0.0, 0.0
        for begin in range(0, row.size, width):
            total += _powers(row[begin : begin + width], least, most, space[0], lanes)
            all_ground += _powers(ground[begin : begin + width], lowest, highest, space[1], lanes)
        for begin in range(0, row.size, width):
            if row.size > width:
                _powers(row[begin : begin + width], least, most, space[0], lanes)
                _powers(ground[begin : begin + width], lowest, highest, space[1], lanes)
            size = min(width, row.size - begin)
            divergence += _terms(space[0, :size], space[1, :size], 1 / total, 1 / all_ground, smoothing, lanes)
        out[r] = divergence


@kernel
def extent_of(row: F32, ends: F64) -> None:
    """Update (2,) float64, the minimum and maximum so far, by a part of a row."""
    least, most = _extent(row, scratch(_LANES, np.float64))
    ends[0], ends[1] = min(ends[0], least), max(ends[1], most)


@kernel
def sum_of_powers(row: F32, ground: F32, ends: F64Rows, sums: F64, space: F64Rows) -> None:
    """Add the exponentials of a part of a row, and of the same part of the base, to `sums`.

    Parts but the last end at multiples of CHUNK, so that the sums have the bits of whole rows.

    Args:
        row: (n,) float32.
        ground: (n,) float32.
        ends: (2, 2) float64: minimum and maximum of the whole row, then of the base's.
        sums: (2,) float64, added to.
        space: (2, CHUNK) float64, overwritten.
    """
    lanes = scratch(_LANES, np.float64)
    for begin in range(0, row.size, CHUNK):
        sums[0] += _powers(row[begin : begin + CHUNK], ends[0, 0], ends[0, 1], space[0], lanes)
        sums[1] += _powers(ground[begin : begin + CHUNK], ends[1, 0], ends[1, 1], space[1], lanes)


@kernel
def sum_of_terms(
    row: F32, ground: F32, ends: F64Rows, sums: F64, smoothing: float, divergence: F64, space: F64Rows
) -> None:
    """Add the terms of a part of a row to `divergence`, (1,) float64; other arguments as for `sum_of_powers`."""
    lanes = scratch(_LANES, np.float64)
    for begin in range(0, row.size, CHUNK):
        size = min(CHUNK, row.size - begin)
        _powers(row[begin : begin + CHUNK], ends[0, 0], ends[0, 1], space[0], lanes)
        _powers(ground[begin : begin + CHUNK], ends[1, 0], ends[1, 1], space[1], lanes)
        divergence[0] += _terms(space[0, :size], space[1, :size], 1 / sums[0], 1 / sums[1], smoothing, lanes)


@kernel
def _extent(row: Any, lanes: Any) -> Any:
    """Minimum and maximum, in lanes so that the loop vectorises."""
    least, most = lanes.view(np.float32)[:_LANES], lanes.view(np.float32)[_LANES:]
    least[:] = row[0]
    most[:] = row[0]
    for begin in range(0, row.size, _LANES):
        part = row[begin : begin + _LANES]
        for i in range(part.size):
            least[i], most[i] = min(least[i], part[i]), max(most[i], part[i])
    for i in range(_LANES):
        least[0], most[0] = min(least[0], least[i]), max(most[0], most[i])
    return np.float64(least[0]), np.float64(most[0])


@kernel
def _powers(row: Any, least: Any, most: Any, out: Any, lanes: Any) -> Any:
    """Write e^x, up to a common factor, and return the sum."""
    is_near, middle = most - least <= 2 * _NEAR, 0.5 * (least + most)
    lanes[:] = 0.0
    for begin in range(0, row.size, _LANES):
        part, powers = row[begin : begin + _LANES], out[begin : begin + _LANES]
        if is_near:
            for i in range(part.size):
                powers[i] = _exp_near(np.float64(part[i]) - middle)
        else:
            for i in range(part.size):
                powers[i] = _exp(np.float64(part[i]) - most)
        for i in range(part.size):
            lanes[i] += powers[i]
    return total(lanes)


@kernel
def _terms(model: Any, base: Any, share: Any, share_of_base: Any, smoothing: Any, lanes: Any) -> Any:
    """Sum p ln(p / q) from the exponentials of model and base, which are overwritten."""
    twice, size = scratch(_LANES, np.float64), scratch(_LANES, np.float64)
    lanes[:] = 0.0
    for begin in range(0, model.size, _LANES):
        p, q = model[begin : begin + _LANES], base[begin : begin + _LANES]
        size[p.size :] = 0.0
        for i in range(p.size):
            p[i] = p[i] * share + smoothing
            q[i] = q[i] * share_of_base + smoothing
            twice[i] = (p[i] - q[i]) / (p[i] + q[i])
            size[i] = abs(twice[i])
        if _largest(size) <= _CLOSE:
            for i in range(p.size):
                lanes[i] += p[i] * _artanh_close(twice[i])
        else:
            for i in range(p.size):
                lanes[i] += p[i] * _log(p[i] / q[i])
    return total(lanes)


@inlined
def _largest(lanes: Any) -> Any:
    half = _LANES // 2
    while half >= 1:
        for i in range(half):
            lanes[i] = max(lanes[i], lanes[half + i])
        half //= 2
    return lanes[0]


@inlined
def _exp_near(r: Any) -> Any:
    s = r * r
    low = (1.0 + r) + s * (1 / 2 + r * (1 / 6) + s * (1 / 24 + r * (1 / 120)))
    return low + s * s * s * (1 / 720 + r * (1 / 5040) + s * (1 / 40320 + r * (1 / 362880) + s * (1 / 3628800)))


@inlined
def _exp(x: Any) -> Any:
    """e^x for x <= 0, clamped to the normal numbers."""
    x = max(x, _LEAST)
    near = x * _PER_LN2 + _WHOLE
    n = near - _WHOLE
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    s = r * r
    last = r * (1 / 39916800) + s * (1 / 479001600 + r * (1 / 6227020800))
    power = np.int64((np.float64(near).view(np.int64) + _BIAS) << _SHIFT).view(np.float64)
    return (_exp_near(r) + s * s * s * s * s * last) * power


@inlined
def _artanh_close(s: Any) -> Any:
    """Twice the inverse hyperbolic tangent."""
    z = s * s
    w = z * z
    return 2 * s + 2 * s * z * (1 / 3 + z * (1 / 5) + w * (1 / 7 + z * (1 / 9) + w * (1 / 11)))


@inlined
def _log(x: Any) -> Any:
    """ln x, for a normal number above zero."""
    bits = np.float64(x).view(np.int64)
    exponent = np.int64(bits - _ROOT_HALF) >> _SHIFT
    m = np.int64(bits - np.int64(exponent << _SHIFT)).view(np.float64)
    n = np.int64(exponent + _WHOLE_BITS).view(np.float64) - _WHOLE
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    w = z * z
    odd = 1 / 11 + z * (1 / 13) + w * (1 / 15 + z * (1 / 17) + w * (1 / 19 + z * (1 / 21)))
    odd = 1 / 3 + z * (1 / 5) + w * (1 / 7 + z * (1 / 9) + w * odd)
    return n * _LN2_HIGH + (2 * s + (2 * s * z * odd + n * _LN2_LOW))
