"""Spherical means from inner products alone: linear combinations of the models."""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace

from ._method import KernelCall
from ._passes import Array


def lengths_of(products: Array) -> Array:
    """The length of each model, from products (k, k, rows): (k, rows)."""
    xp = array_namespace(products)
    return xp.sqrt(xp.stack([products[i, i] for i in range(products.shape[0])]))


def reciprocal(numbers: Array) -> Array:
    """One over each number, and zero over zero."""
    xp = array_namespace(numbers)
    return xp.where(numbers == 0, numbers, 1 / xp.where(numbers == 0, xp.ones_like(numbers), numbers))


def shares_of(weight: Array, like: Array) -> Array:
    """Weights (k, 1, ..., 1), or (k,), in the type of products `like`: (k,)."""
    xp = array_namespace(like)
    return xp.astype(xp.reshape(xp.asarray(weight), (-1,)), like.dtype)


def sum_with(coefficients: Array, stack: Array) -> Array:
    """sum_i c_i x_i, with coefficients (k,) for a stack (k, *shape)."""
    xp = array_namespace(stack)
    column = (stack.shape[0], *[1] * (stack.ndim - 1))
    return xp.sum(xp.reshape(xp.astype(coefficients, stack.dtype), column) * stack, axis=0)


def sum_in_loop(coefficients: Any) -> KernelCall:
    """`sum_with` as a kernel call."""
    import numpy as np

    from ..kernels.weighted_sums import combine

    return KernelCall(combine, (coefficients.astype(np.float32), 1.0))
