"""How kernels are compiled: see `polyak.native`."""

from ..native import inlined, kernel, scratch

__all__ = ["inlined", "kernel", "scratch"]
