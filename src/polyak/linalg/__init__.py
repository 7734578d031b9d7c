"""Linear algebra for the spectral methods: deterministic, and in float32 where that is accurate enough."""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
