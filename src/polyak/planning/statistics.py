"""The statistics of a merge: opened, validated against their models, and assigned to steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from .. import checkpoint as checkpoints
from ..checkpoint import DTYPES, Checkpoint, TensorSpec, fingerprint
from ..errors import Mismatch, RecipeError, Remedy, suggestion
from ..methods import Method, Stat
from ..recipe import Recipe
from ._plan import nested_merge
from .compatibility import Opened
from .steps import Read

# By the statistic's name, then the model's.
StatisticsByName: TypeAlias = Mapping[str, Mapping[str, Checkpoint]]

STATISTICS_KIND, MODEL_DIGEST = "polyak.statistic", "polyak.model"  # keys of a statistic's metadata


def label(statistic: str, model: str) -> str:
    """Label of a statistic of a model in plans, errors and provenance."""
    return f"{statistic} of {model}"


def model_digest(model: Opened, names: Iterable[str]) -> str:
    """The fingerprint of the tensors of a model that a statistic covers.

    Raises:
        Mismatch: the model has no such tensor.
    """
    tensors: list[tuple[str, TensorSpec]] = []
    for name in names:
        if (spec := model.find(name)) is None:
            present = [*model.checkpoint.specs, *model.checkpoint.ties]
            raise Mismatch(f"{model.checkpoint.label} has no tensor {name!r}. {suggestion(name, present)}")
        tensors.append((name, spec))
    return fingerprint(model.checkpoint, tensors)


class Measured:
    """All statistics of a merge, from its recipe and from the caller.

    Args:
        recipe: The recipe, which names statistics by model.
        models: The models.
        statistics: Statistics to use instead of those that the recipe names.
        methods: All methods of the recipe and its rules; a statistic that none of them takes is refused.

    Raises:
        RecipeError: a statistic is unknown, or missing for a model.
        Mismatch: a statistic was measured on another model, or is of another kind.
        CheckpointError: one cannot be opened.
    """

    def __init__(
        self, recipe: Recipe, models: list[Opened], statistics: StatisticsByName, methods: Iterable[Method]
    ) -> None:
        self.notes: list[str] = []
        self._by_kind: dict[str, dict[str, Checkpoint]] = {
            name: dict(by_model) for name, by_model in statistics.items()
        }
        for model in recipe.models:
            for kind, path in model.statistics.items():
                self._by_kind.setdefault(kind, {}).setdefault(model.name, _opened(path, recipe.folder))
        self._models = models
        self._check_kinds(list(methods))
        for kind, by_model in self._by_kind.items():
            for model in models:
                if model.name in by_model:
                    self._check(kind, model, by_model[model.name])

    @property
    def checkpoints(self) -> dict[str, Checkpoint]:
        """All statistics by their labels."""
        return {
            label(kind, name): checkpoint
            for kind, by_model in self._by_kind.items()
            for name, checkpoint in by_model.items()
        }

    def reads(
        self, name: str, shape: tuple[int, ...], method: Method, settings: Mapping[str, Any], models: list[Opened]
    ) -> dict[str, tuple[Read, ...]]:
        """Statistics that a step reads, by the method's parameter; optional ones are left out where no model has one.

        Raises:
            RecipeError: a model has no such statistic.
            Mismatch: only some models have it for this tensor, or it has the wrong shape.
        """
        reads: dict[str, tuple[Read, ...]] = {}
        for key, stat in method.statistics.items():
            if not stat.applies(settings):
                continue
            self._demand(method.name, stat.name)
            specs = {model.name: self._find(stat.name, model, name) for model in models}
            if any(specs.values()) or not stat.optional:
                reads[key] = tuple(
                    self._read(name, stat, model, spec, stat.shape_for(shape, settings))
                    for model, spec in specs.items()
                )
        return reads

    def _check_kinds(self, methods: list[Method]) -> None:
        takers = {stat.name: method.name for method in methods for stat in method.statistics.values()}
        for kind in self._by_kind:
            if kind not in takers:
                names = ", ".join(sorted({repr(method.name) for method in methods}))
                raise RecipeError(f"no method of this recipe ({names}) takes the statistic {kind!r}. "
                                  f"{suggestion(kind, takers)}")  # fmt: skip

    def _demand(self, method: str, kind: str) -> None:
        if lacking := [m.name for m in self._models if m.name not in self._by_kind.get(kind, {})]:
            command = f"polyak measure {kind.replace('_', '-')}"
            raise RecipeError(
                f"method {method!r} needs the statistic {kind!r} of every model; {', '.join(lacking)} "
                f"{'has' if len(lacking) == 1 else 'have'} none. Measure it with `{command}`.",
                remedies=[Remedy.STATISTICS],
            )

    def _check(self, kind: str, model: Opened, statistic: Checkpoint) -> None:
        """Refuse a statistic whose metadata or tensor names do not fit the model."""
        subject = f"the statistic {kind!r} of {model.name} ({statistic.label})"
        if (stated := statistic.metadata.get(STATISTICS_KIND, kind)) != kind:
            raise Mismatch(f"{subject} is {stated!r} by its metadata. Give the file that holds {kind!r}.")
        for name, spec in statistic.specs.items():
            if model.find(name) is None:
                raise Mismatch(
                    f"{subject} is for another model: it has {name!r}, which {model.checkpoint.label} lacks."
                )
            if spec.dtype != DTYPES["F32"]:
                raise Mismatch(
                    f"{subject} holds {name!r} as {spec.dtype}; statistics are F32. Convert or measure again."
                )
        if not statistic.specs:
            raise Mismatch(f"{subject} has no tensors.")
        self._check_digest(subject, model, statistic)

    def _check_digest(self, subject: str, model: Opened, statistic: Checkpoint) -> None:
        stated = statistic.metadata.get(MODEL_DIGEST)
        if stated is None:
            if statistic.stamps:
                self.notes.append(f"{subject} does not state the model that it was measured on.")
            return
        if nested_merge(model.checkpoint) is not None:
            raise Mismatch(
                f"{subject} cannot be validated against a model that has not been written. Merge {model.name} into a "
                "folder first."
            )
        if model_digest(model, statistic.specs) != stated:
            raise Mismatch(
                f"{subject} was measured on another model than {model.checkpoint.label}: the digest of its weights is "
                f"{stated}. Measure it again, or give the model that it belongs to."
            )

    def _find(self, kind: str, model: Opened, name: str) -> TensorSpec | None:
        """The entry of a statistic for a tensor; tied tensors share one."""
        specs = self._by_kind[kind][model.name].specs
        stored = model.find(name)
        return specs.get(name) or (specs.get(stored.name) if stored else None)

    def _read(self, name: str, stat: Stat, model: str, spec: TensorSpec | None, shape: tuple[int, ...] | None) -> Read:
        checkpoint = self._by_kind[stat.name][model]
        subject = f"the statistic {stat.name!r} of {model} ({checkpoint.label})"
        if spec is None:
            raise Mismatch(f"{subject} lacks {name!r}, for which other models have this statistic. Measure it too.")
        if spec.shape != shape:
            expected = "there is no such statistic" if shape is None else f"it must be {list(shape)}"
            raise Mismatch(f"{subject} has {name!r} as {list(spec.shape)}; for this tensor {expected}.")
        return Read(label(stat.name, model), checkpoint, spec)


def _opened(path: str, folder: Path) -> Checkpoint:
    return checkpoints.open(checkpoints.locate(path, folder))
