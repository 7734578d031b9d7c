"""How kernels are compiled: see `polyak.native`."""

from ..native import filled, in_rows, inlined, kernel, scratch

__all__ = ["filled", "in_rows", "inlined", "kernel", "scratch"]
