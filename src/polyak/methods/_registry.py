"""The registry of merge methods."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..declare import Registry
from ..errors import UnknownMethod

if TYPE_CHECKING:
    from ._method import Method

registry: Registry[Method] = Registry("method", package=f"{__package__}", group="polyak.methods", unknown=UnknownMethod)
resolve, load_all = registry.resolve, registry.load_all
