"""What the checks demand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import SettingError

_CLOSE = 1e-6


def assert_that(fact: bool, otherwise: str) -> None:
    """Unlike a bare `assert`, this also holds under `python -O`."""
    if not fact:
        raise AssertionError(otherwise)


def assert_close(found: Any, wanted: Any, otherwise: str, size: float = 0.0) -> None:
    """Every number within 1e-6 of the largest (of `wanted`, of `size`, or of 1e-30)."""
    error = largest(np.asarray(found, np.float64) - np.asarray(wanted, np.float64))
    limit = _CLOSE * max(largest(wanted), size, 1e-30)
    assert_that(error <= limit, f"{otherwise}: off by {error:.3g}, allowed is {limit:.3g}")


def assert_refused(attempt: Callable[[], object], *named: str) -> None:
    """It raises SettingError, whose message names all of these."""
    try:
        attempt()
    except SettingError as error:
        missing = [name for name in named if name not in str(error)]
        assert_that(not missing, f"the message {str(error)!r} does not name {', '.join(missing)}")
    else:
        raise AssertionError(f"accepted: {' '.join(named)}")


def largest(numbers: Any) -> float:
    return float(np.max(np.abs(numbers), initial=0.0))
