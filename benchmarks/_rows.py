"""Merges whose time is compared with the limit of the machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from _bench import Bench, Recipe, recipe_of
from _mergekit import recipe_for as mergekit_recipe
from _process import Run, seconds_of
from _results import Line, Measured


@dataclass(frozen=True)
class Row:
    """One merge.

    Attributes:
        title: What the tables call it.
        target: Times the limit that it may take.
        method: Its name.
        settings: Of the method.
        models: How many experts it reads.
        base: Whether it reads the base.
        mergekit: mergekit's method and parameters for the same work, if it can do that.
    """

    title: str
    target: float
    method: str
    settings: dict[str, object]
    models: int = 3
    base: bool = True
    mergekit: dict[str, Any] | None = None

    def name(self, bench: Bench) -> str:
        """Unique among rows and shapes."""
        return f"{self.title}, {self.models} models{' and base' if self.base else ''}, {bench.shape}"

    def recipe(self, bench: Bench) -> Recipe:
        """As polyak reads it."""
        base, *experts = bench.family(bench.shape)
        return recipe_of(self.method, experts[: self.models], base if self.base else None, **self.settings)


TIES = {"density": 0.5}
DARE = {"density": 0.5}
ROWS = [
    Row("linear", 1.5, "linear", {}, base=False, mergekit={"merge_method": "linear"}),
    Row("TIES", 3, "ties", TIES, mergekit={"merge_method": "ties", "parameters": TIES}),
    Row("task arithmetic", 2, "task_arithmetic", {}, mergekit={"merge_method": "task_arithmetic"}),
    Row("SLERP", 2, "slerp", {}, models=2, base=False, mergekit={"merge_method": "slerp", "parameters": {"t": 0.5}}),
    Row("Model Stock", 2, "model_stock", {}, mergekit={"merge_method": "model_stock"}),
    Row("DARE-TIES", 4, "dare_ties", DARE, mergekit={"merge_method": "dare_ties", "parameters": DARE}),
    Row("Breadcrumbs by row", 4, "breadcrumbs", {}),
    Row("TIES over the whole model", 4, "ties", {**TIES, "granularity": "model"}),
]


def lines(bench: Bench) -> Iterator[Line]:
    """What there is to measure."""
    for row in ROWS:
        yield Line("rows", row.name(bench), lambda row=row: _measured(row, bench))


def theirs(bench: Bench) -> Iterator[tuple[str, Recipe]]:
    """The names of the rows that mergekit can make, with its recipes."""
    base, *experts = bench.family(bench.shape)
    for row in ROWS:
        if row.mergekit is not None:
            yield row.name(bench), mergekit_recipe(row.mergekit, experts[: row.models], base if row.base else None)


def _measured(row: Row, bench: Bench) -> Measured:
    limit, ours = bench.compare(row.recipe(bench))
    ratio = seconds_of(ours) / seconds_of(limit)
    entry = {
        "limit_s": _rounded(seconds_of(limit)),
        "ours_s": _rounded(seconds_of(ours)),
        "ratio": _rounded(ratio),
        "target": f"{row.target:g}",
        "limit_runs_s": [_rounded(one.seconds) for one in limit],
        "ours_runs_s": [_rounded(one.seconds) for one in ours],
        "ours_cpu_s": _rounded(max(one.cpu_seconds for one in ours)),
        "ours_resident_bytes": max(one.resident for one in ours),
    }
    return Measured(_said(limit, ours, ratio), f"{row.target:g} times", ratio <= row.target, entry)


def _said(limit: list[Run], ours: list[Run], ratio: float) -> str:
    spread = f"{min(one.seconds for one in ours):.3g} to {max(one.seconds for one in ours):.3g}"
    cpu = max(one.cpu_seconds for one in ours)
    return (
        f"limit {seconds_of(limit):.3g} s, ours {seconds_of(ours):.3g} s ({spread}; CPU {cpu:.3g} s), {ratio:.2f} times"
    )


def _rounded(number: float) -> float:
    return float(f"{number:.4g}")
