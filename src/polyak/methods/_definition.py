"""A method as the evaluation of its definition needs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ..declare import Setting
from ._passes import Array
from ._signature import FirstPass, Role
from ._stat import Stat


class Definition(Protocol):
    """The parts of `Method` that evaluate its definition on arrays in memory."""

    @property
    def name(self) -> str: ...
    @property
    def fn(self) -> Callable[..., Array]: ...
    @property
    def inputs(self) -> Mapping[str, Role | FirstPass | Stat]: ...
    @property
    def statistics(self) -> Mapping[str, Stat]: ...
    @property
    def settings(self) -> Mapping[str, Setting]: ...
    @property
    def returns(self) -> Role: ...
    @property
    def optional_base(self) -> bool: ...
    @property
    def needs_base(self) -> bool: ...
    @property
    def uses_base(self) -> bool: ...
    @property
    def is_random(self) -> bool: ...

    def check_count(self, k: int) -> None:
        """Refuse a number of models that the method cannot merge."""
        ...

    def bind(self, settings: Mapping[str, Any], k: int) -> dict[str, Any]:
        """Fill in defaults and check every value."""
        ...

    def for_tensor(
        self, name: str, shape: tuple[int, ...], bound: dict[str, Any], k: int
    ) -> tuple[Definition, dict[str, Any]]:
        """The method that merges a tensor, and its bound settings."""
        ...
