"""Callbacks for training loops of other libraries, imported when used."""

from __future__ import annotations

import importlib
from typing import Any

from ...errors import SettingError


def loop(name: str, package: str) -> Any:
    """The module with the callback for a library.

    Raises:
        SettingError: the library is not installed.
    """
    try:
        return importlib.import_module(f"{__package__}._{name}")
    except ImportError as error:
        raise SettingError(
            f"this callback needs {package}, which cannot be imported ({error}): pip install {package}"
        ) from None
