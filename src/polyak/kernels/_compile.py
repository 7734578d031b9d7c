"""How kernels are compiled: see `polyak.native`."""

from ..native import filled, in_rows, inlined, kernel, scratch, settle, stream

__all__ = ["filled", "in_rows", "inlined", "kernel", "scratch", "settle", "stream"]
