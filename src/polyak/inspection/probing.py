"""Look at samples of tensors before a merge: NaN, and models that do not descend from one base."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np

from ..engine import Buffers, load
from ..errors import NotFinite
from ..kernels.gram import inner_products
from ..methods import Role
from ..planning import Plan, Step

SAMPLE = 16 * 1024  # entries of a tensor
TENSORS = 64  # the largest ones
UNRELATED = 0.1  # cosine between models below which they are hardly fine-tunes of one base


def probe(plan: Plan) -> list[str]:
    """Sample the largest tensors of every model.

    Returns:
        What should be known: pairs of models with a cosine near 0. Nothing to say is an empty list.

    Raises:
        NotFinite: a sample holds NaN or infinity.
    """
    merged = [step for step in plan.steps if step.kind == "merge"]
    steps = sorted(merged, key=lambda s: -s.out.numel)[:TENSORS]
    space, problems = Buffers(), list[str]()
    totals: dict[tuple[str, str], Any] = {}
    for step in steps:
        try:
            for pair, products in _products(step, space):
                totals[pair] = totals.get(pair, 0.0) + products
        except NotFinite as error:
            problems.append(str(error))
    if problems:
        raise NotFinite("\n".join(problems))
    return [_say(pair, cosine) for pair, products in totals.items() if (cosine := _cosine(products)) < UNRELATED]


def _products(step: Step, space: Buffers) -> Iterator[tuple[tuple[str, str], Any]]:
    """<a, a>, <a, b>, <b, b> of a sample for every two sources."""
    start = max((step.out.numel - SAMPLE) // 2, 0)
    loaded = load(step, start, min(start + SAMPLE, step.out.numel), space, frozenset({Role.TENSORS, Role.BASE}))
    rows = [*loaded.tensors, *([loaded.base] if loaded.base is not None else [])] if loaded.tensors is not None else []
    names = [read.model for read in step.every_read]
    stack = np.ascontiguousarray(np.stack(rows), np.float32)
    out = np.empty((len(stack), len(stack)))
    inner_products(stack, out)
    for i, j in combinations(range(len(stack)), 2):
        yield (names[i], names[j]), np.array([out[i, i], out[i, j], out[j, j]])


def _cosine(products: Any) -> float:
    norm = float(np.sqrt(products[0] * products[2]))
    return float(products[1]) / norm if norm else 1.0


def _say(pair: tuple[str, str], cosine: float) -> str:
    return (
        f"{pair[0]} and {pair[1]} look unrelated: the cosine of their weights is {cosine:.3f}. Fine-tunes of one "
        "base are close to 1; merging models of different ancestry gives noise."
    )
