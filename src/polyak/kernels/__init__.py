"""Compiled loops over tiles that live in cache.

Kernels compile on first use, once for a machine, and release Python's lock.
"""
