"""Compiles the kernels of a wheel; not part of the package."""
