"""Sizes in bytes, as people write and read them."""

from __future__ import annotations

import re

import typer

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


def parse_size(text: str, option: str) -> int:
    """Bytes of `5GB`, `400 MB`, `2GiB` or a plain number.

    Raises:
        typer.BadParameter: it is none of these, or not above zero.
    """
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?I?)B?\s*", text.upper())
    nbytes = int(float(found[1]) * _UNITS[found[2]]) if found and found[2] in _UNITS else 0
    if nbytes <= 0:
        raise typer.BadParameter(f"{text!r} is no size. Write it as 5GB, 400MB, 2GiB or in bytes.", param_hint=option)
    return nbytes


def human(nbytes: float) -> str:
    """A size with three figures."""
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:.3g} {unit}"
        nbytes /= 1000
    return f"{nbytes:.3g} TB"
