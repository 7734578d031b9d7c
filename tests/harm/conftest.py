"""The family of models and its recipe, for attacks on merges."""

from __future__ import annotations

from ..engine.conftest import family, recipe

__all__ = ["family", "recipe"]
