"""The rows of the table: what is merged how, with which data.  Every setting was fixed before anything was scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Data: TypeAlias = Literal["none", "unlabelled", "labelled", "test inputs", "training"]
Statistic: TypeAlias = Literal["", "fisher", "gram"]


@dataclass(frozen=True)
class Row:
    """One way to make a model of the experts.

    Attributes:
        name: What the table calls it.
        data: What it sees beside the models.
        method: Of the recipe; where something is learned, of the recipe that is learned from.
        settings: Of the method; `{search: ...}` is what a search finds.
        weight: A search for the weight of each model, if there is to be one.
        has_base: Whether the recipe has the base.
        statistic: Measured of each expert on its own task.
        learner: What learns the weights.
        how: Settings of the learner.
        is_random: Whether the merge itself draws, so that it is repeated though it sees no data.
        irrelevant: Whether models that learned shuffled labels are in the pool.
    """

    name: str
    data: Data = "none"
    method: str = "task_arithmetic"
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    weight: Mapping[str, Any] | None = None
    has_base: bool = True
    statistic: Statistic = ""
    learner: str = ""
    how: Mapping[str, Any] = field(default_factory=dict[str, Any])
    is_random: bool = False
    irrelevant: bool = False

    @property
    def is_searched(self) -> bool:
        """Whether `polyak search` fills the recipe in."""
        return self.weight is not None or any(isinstance(one, Mapping) for one in self.settings.values())

    @property
    def is_repeated(self) -> bool:
        """Whether another seed gives another model."""
        return self.is_random or self.data != "none"


@dataclass(frozen=True)
class Effort:
    """How long learners learn.

    Attributes:
        steps: Of AdaMerging; the paper has 500.
        rate: Its learning rate; the paper has 0.001, for more steps.
        batch: Examples of each task and step.
        iterations: Of Frank-Wolfe.
        inner: Updates of the weights of a soft step.
        examples: Of each task, for Frank-Wolfe.
        measured: Of each task, for statistics.
        trials: Of searches.
        descent: Iterations of WUDI.
    """

    steps: int = 40
    rate: float = 0.02
    batch: int = 8
    iterations: int = 6
    inner: int = 3
    examples: int = 24
    measured: int = 128
    trials: int = 24
    descent: int = 300


AVERAGE, TASK_ARITHMETIC, TIES, DARE = "average", "task arithmetic", "TIES", "DARE, 90 % dropped"
FISHER, REGMEAN = "Fisher", "RegMean"
LAYER_WISE, HARD, SOFT = "AdaMerging, layer-wise", "Frank-Wolfe, hard", "Frank-Wolfe, soft"
WITH_IRRELEVANT = " + irrelevant models"


def rows(effort: Effort) -> tuple[Row, ...]:
    """All of them, in the order of the table."""
    return (*_without_data(), *_spectral(effort), *_measured(), *_learned(effort), *_with_irrelevant(effort))


def _without_data() -> tuple[Row, ...]:
    return (
        Row(AVERAGE, method="linear", has_base=False),
        Row(TASK_ARITHMETIC, settings={"scale": 0.3}),
        Row(TIES, method="ties", settings={"density": 0.2}),
        Row(DARE, method="dare_linear", settings={"density": 0.1, "scale": 0.3}, is_random=True),
    )


def _spectral(effort: Effort) -> tuple[Row, ...]:
    return (
        Row("TSV-M", method="tsv_m"),
        Row("Iso-C", method="iso_c"),
        Row("Iso-CTS", method="iso_cts"),
        Row("WUDI", method="wudi", settings={"vector_1d": "mean", "iterations": effort.descent}),
        Row("CART", method="cart"),
        Row("DC-Merge", method="dc_merge"),
    )


def _measured() -> tuple[Row, ...]:
    return (
        Row(FISHER, "unlabelled", "fisher", {"normalize": True, "floor": 0.0}, has_base=False, statistic="fisher"),
        Row(REGMEAN, "unlabelled", "regmean", has_base=False, statistic="gram"),
    )


def _learned(effort: Effort) -> tuple[Row, ...]:
    steps = {"steps": effort.steps, "lr": effort.rate, "batch_size": effort.batch}
    return (
        Row("AdaMerging, task-wise", "unlabelled", learner="adamerging", how={**steps, "granularity": "task"}),
        Row(LAYER_WISE, "unlabelled", learner="adamerging", how=steps),
        Row("AdaMerging++, layer-wise", "unlabelled", learner="adamerging", how={**steps, "trim": True}),
        Row("AdaMerging, on test inputs", "test inputs", learner="adamerging", how={**steps, "split": "test"}),
        Row(HARD, "labelled", learner="frank_wolfe", how=_walk(effort)),
        Row(SOFT, "labelled", learner="frank_wolfe", how=_soft(effort)),
        Row("greedy soup", "labelled", learner="greedy_soup"),
        Row("task arithmetic, scale searched", "labelled", settings={"scale": {"search": [0.05, 1.0]}}),
        Row("task arithmetic, weights searched", "labelled", weight={"search": [0.0, 1.0]}),
    )


def _walk(effort: Effort) -> dict[str, Any]:
    return {"iterations": effort.iterations, "examples": effort.examples}


def _soft(effort: Effort) -> dict[str, Any]:
    inner = {"inner_steps": effort.inner, "iterations": max(effort.iterations // 3, 1)}
    return {**_walk(effort), "variant": "soft", **inner}


def _with_irrelevant(effort: Effort) -> tuple[Row, ...]:
    hard, soft = _walk(effort), _soft(effort)
    return (
        Row(AVERAGE + WITH_IRRELEVANT, method="linear", has_base=False, irrelevant=True),
        Row(TASK_ARITHMETIC + WITH_IRRELEVANT, settings={"scale": 0.3}, irrelevant=True),
        Row(HARD + WITH_IRRELEVANT, "labelled", learner="frank_wolfe", how=hard, irrelevant=True),
        Row(SOFT + WITH_IRRELEVANT, "labelled", learner="frank_wolfe", how=soft, irrelevant=True),
    )
