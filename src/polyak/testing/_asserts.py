"""Assertions of the contract checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import SettingError

_CLOSE, _CLOSE_FOR_EACH = 1e-6, 1e-4


def assert_that(fact: bool, otherwise: str) -> None:
    """Unlike a bare `assert`, this also holds under `python -O`."""
    if not fact:
        raise AssertionError(otherwise)


def assert_close(actual: Any, expected: Any, otherwise: str, size: float = 0.0) -> None:
    """Every number within 1e-6 of the largest expected one (at least `size` and 1e-30); NaN is never close."""
    _assert_within(actual, expected, _CLOSE * max(largest(expected), size, 1e-30), otherwise)


def assert_each_close(actual: Any, expected: Any, otherwise: str, sizes: Any) -> None:
    """The same with a size per number, and also within 1e-4 of that size."""
    limit = _CLOSE * max(largest(expected), largest(sizes), 1e-30)
    _assert_within(actual, expected, np.minimum(limit, _CLOSE_FOR_EACH * np.maximum(sizes, 1e-30)), otherwise)


def _assert_within(actual: Any, expected: Any, limit: Any, otherwise: str) -> None:
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    errors = np.abs(actual - expected)
    if (errors <= limit).all():
        return
    limits = np.broadcast_to(limit, errors.shape)
    wrong = [tuple(int(i) for i in index) for index in np.argwhere(~(errors <= limits))]
    worst = max(wrong, key=lambda index: float(np.nan_to_num(errors[index], nan=np.inf)))
    raise AssertionError(
        f"{otherwise}: entry {list(worst)} is {actual[worst]:.7g}, not {expected[worst]:.7g}, and may be off by "
        f"{limits[worst]:.3g} ({len(wrong)} of {errors.size} entries are off)"
    )


def assert_finite(merged: Any) -> None:
    wrong = np.argwhere(~np.isfinite(merged))
    assert_that(not len(wrong), f"finite inputs gave infinity or NaN, at {wrong[:1].tolist()}")


def assert_refused(attempt: Callable[[], object], *named: str) -> None:
    """`attempt` raises SettingError with a message that contains all names."""
    try:
        attempt()
    except SettingError as error:
        missing = [name for name in named if name not in str(error)]
        assert_that(not missing, f"the message {str(error)!r} does not name {', '.join(missing)}")
    else:
        raise AssertionError(f"accepted: {' '.join(named)}")


def largest(numbers: Any) -> float:
    return float(np.max(np.abs(numbers), initial=0.0))
