"""Errors that only the command line has."""

from __future__ import annotations

from ..errors import PolyakError


class Interrupted(PolyakError):
    """The user stopped the command; the message says how to continue."""

    exit_code = 130
