"""Compares the version of an installed library with that of the facts that polyak ships about it."""

from __future__ import annotations

import re


def is_newer(library: str, version: str) -> bool:
    """True if a library is installed in a newer version than `version`; its major, minor and micro numbers count.

    To ask this imports nothing, whereas to import transformers takes seconds.
    """
    from importlib import metadata  # takes longer to import than some merges

    try:
        return _numbers(metadata.version(library)) > _numbers(version)
    except metadata.PackageNotFoundError:
        return False


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
