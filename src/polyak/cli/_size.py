"""Sizes in bytes, as people write them."""

from __future__ import annotations

import re

import typer

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


def parse_size(text: str, option: str) -> int:
    """Bytes of `5GB`, `400 MB`, `2GiB` or a plain number.

    Raises:
        typer.BadParameter: it is none of these, or not above zero.
    """
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?I?)B?\s*", text.upper())
    nbytes = int(float(match[1]) * _UNITS[match[2]]) if match and match[2] in _UNITS else 0
    if nbytes <= 0:
        raise typer.BadParameter(f"{text!r} is not a size. Write 5GB, 400MB, 2GiB or in bytes.", param_hint=option)
    return nbytes
