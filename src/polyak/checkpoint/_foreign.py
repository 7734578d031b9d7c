"""Formats of other tools, recognised by the names of their tensors or files."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Foreign:
    """A form in which another tool stores models or adapters.

    Attributes:
        name: The tool, or what it writes.
        names: Pattern for the names of tensors or files that only it writes; compiled when it is first used.
        remedy: Turns them into a model that can be merged, or an adapter that can be read.
    """

    name: str
    names: str
    remedy: str

    def evidence(self, names: Iterable[str]) -> str | None:
        """The first name that shows this form; None if none does."""
        search = re.compile(self.names).search
        return next((name for name in names if search(name)), None)
