"""Checkpoints: named tensors, read in ranges, from files, memory or views of other checkpoints."""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
