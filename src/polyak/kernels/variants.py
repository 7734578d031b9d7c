"""The kernel variants that a wheel contains: all that a merge by polyak's own methods can ask for.

They follow from the annotations of the kernels and from the dtypes that checkpoints have. A kernel whose parameters
are not all annotated is called by other kernels alone, and is compiled as part of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import cast

from .. import kernels
from ..checkpoint import add_product
from ..native import Kernel, Key
from .fused_pipeline import merging_variants, product_variants
from .one_sweep import sweep_variants
from .sums import sum_variants

_MERGES, _ADDS_UP = ("out", "stack", "start"), ("lanes", "stack", "start")  # parameters that a step begins with


def variants() -> Iterator[tuple[Kernel, Key]]:
    """Every kernel of the wheel with the types of its arguments; those with the same parts follow each other."""
    for kernel in (*_kernels(), cast("Kernel", add_product)):
        yield from ((kernel, key) for key in kernel.keys)
        if _begins_with(kernel, _MERGES):
            yield from merging_variants(kernel)
        if _begins_with(kernel, _ADDS_UP):
            yield from sum_variants(kernel)
    yield from product_variants()
    yield from sweep_variants()


def _kernels() -> Iterator[Kernel]:
    for info in iter_modules(kernels.__path__, f"{kernels.__name__}."):
        module = import_module(info.name)
        members = list(vars(module).values())
        yield from (member for member in members if isinstance(member, Kernel) and member.__module__ == module.__name__)


def _begins_with(kernel: Kernel, names: tuple[str, ...]) -> bool:
    return bool(kernel.keys) and kernel.code.__code__.co_varnames[: len(names)] == names
