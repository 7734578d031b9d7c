"""Numba kernels over tiles that live in cache.

Importing a module of this package imports Numba (about half a second), so its callers import it where they
use it. Kernels compile on first use, once for a machine, and release the GIL.
"""
