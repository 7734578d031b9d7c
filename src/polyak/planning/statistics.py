"""The statistics of a merge: opened, validated against their models, and assigned to steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from .. import checkpoint as checkpoints
from ..checkpoint import DTYPES, Checkpoint, TensorSpec, fingerprint
from ..errors import Mismatch, RecipeError, suggestion
from ..methods import Method, Stat
from ..recipe import Recipe
from ._plan import nested_merge
from .compatibility import Opened
from .steps import Read

# By the statistic's name, then the model's.
Given: TypeAlias = Mapping[str, Mapping[str, Checkpoint]]

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
            known = [*model.checkpoint.specs, *model.checkpoint.ties]
            raise Mismatch(f"{model.checkpoint.label} has no tensor {name!r}. {suggestion(name, known)}")
        tensors.append((name, spec))
    return fingerprint(model.checkpoint, tensors)


class Measured:
    """All statistics of a merge, from its recipe and from the caller.

    Args:
        recipe: The recipe, which names statistics by model.
        models: The models.
        given: Statistics to use instead of those that the recipe names.
        methods: All methods of the recipe and its rules; a statistic that none of them takes is refused.

    Raises:
        RecipeError: a statistic is unknown, or missing for a model.
        Mismatch: a statistic was measured on another model, or is of another kind.
        CheckpointError: one cannot be opened.
    """

    def __init__(self, recipe: Recipe, models: list[Opened], given: Given, methods: Iterable[Method]) -> None:
        self.notes: list[str] = []
        self._by_kind: dict[str, dict[str, Checkpoint]] = {name: dict(found) for name, found in given.items()}
        for model in recipe.models:
            for kind, path in model.statistics.items():
                self._by_kind.setdefault(kind, {}).setdefault(model.name, _opened(path, recipe.folder))
        self._models = models
        self._check_kinds(list(methods))
        for kind, found in self._by_kind.items():
            for model in models:
                if model.name in found:
                    self._check(kind, model, found[model.name])

    @property
    def checkpoints(self) -> dict[str, Checkpoint]:
        """All statistics by their labels."""
        return {
            label(kind, name): checkpoint for kind, found in self._by_kind.items() for name, checkpoint in found.items()
        }

    def reads(
        self, name: str, shape: tuple[int, ...], method: Method, settings: Mapping[str, Any], models: list[Opened]
    ) -> dict[str, tuple[Read, ...]]:
        """Statistics that a step reads, by the method's parameter; optional ones are left out where no model has one.

        Raises:
            RecipeError: a model has no such statistic.
            Mismatch: only some models have it for this tensor, or it has the wrong shape.
        """
        found: dict[str, tuple[Read, ...]] = {}
        for key, stat in method.statistics.items():
            if not stat.applies(settings):
                continue
            self._demand(method.name, stat.name)
            each = {model.name: self._find(stat.name, model, name) for model in models}
            if any(each.values()) or not stat.optional:
                found[key] = tuple(
                    self._read(name, stat, model, spec, stat.shape_for(shape, settings)) for model, spec in each.items()
                )
        return found

    def _check_kinds(self, methods: list[Method]) -> None:
        wanted = {stat.name: method.name for method in methods for stat in method.statistics.values()}
        for kind in self._by_kind:
            if kind not in wanted:
                said = ", ".join(sorted({repr(method.name) for method in methods}))
                raise RecipeError(f"no method of this recipe ({said}) takes the statistic {kind!r}. "
                                  f"{suggestion(kind, wanted)}")  # fmt: skip

    def _demand(self, method: str, kind: str) -> None:
        if lacking := [m.name for m in self._models if m.name not in self._by_kind.get(kind, {})]:
            command = f"polyak measure {kind.replace('_', '-')}"
            raise RecipeError(
                f"method {method!r} needs the statistic {kind!r} of every model; {', '.join(lacking)} "
                f"{'has' if len(lacking) == 1 else 'have'} none. Measure it with `{command}` and give "
                f"the model `statistics: {{{kind}: PATH}}`."
            )

    def _check(self, kind: str, model: Opened, found: Checkpoint) -> None:
        """Refuse a statistic whose metadata or tensor names do not fit the model."""
        said = f"the statistic {kind!r} of {model.name} ({found.label})"
        if (stated := found.metadata.get(STATISTICS_KIND, kind)) != kind:
            raise Mismatch(f"{said} is {stated!r} by its metadata. Give the file that holds {kind!r}.")
        for name, spec in found.specs.items():
            if model.find(name) is None:
                raise Mismatch(f"{said} is for another model: it has {name!r}, which {model.checkpoint.label} lacks.")
            if spec.dtype != DTYPES["F32"]:
                raise Mismatch(f"{said} holds {name!r} as {spec.dtype}; statistics are F32. Convert or measure again.")
        if not found.specs:
            raise Mismatch(f"{said} has no tensors.")
        self._check_digest(said, model, found)

    def _check_digest(self, said: str, model: Opened, found: Checkpoint) -> None:
        stated = found.metadata.get(MODEL_DIGEST)
        if stated is None:
            if found.stamps:
                self.notes.append(f"{said} does not state the model that it was measured on.")
            return
        if nested_merge(model.checkpoint) is not None:
            raise Mismatch(
                f"{said} cannot be validated against a model that has not been written. Merge {model.name} into a "
                "folder first."
            )
        if model_digest(model, found.specs) != stated:
            raise Mismatch(
                f"{said} was measured on another model than {model.checkpoint.label}: the digest of its weights is "
                f"{stated}. Measure it again, or give the model that it belongs to."
            )

    def _find(self, kind: str, model: Opened, name: str) -> TensorSpec | None:
        """The entry of a statistic for a tensor; tied tensors share one."""
        specs = self._by_kind[kind][model.name].specs
        held = model.find(name)
        return specs.get(name) or (specs.get(held.name) if held else None)

    def _read(self, name: str, stat: Stat, model: str, spec: TensorSpec | None, wanted: tuple[int, ...] | None) -> Read:
        checkpoint = self._by_kind[stat.name][model]
        said = f"the statistic {stat.name!r} of {model} ({checkpoint.label})"
        if spec is None:
            raise Mismatch(f"{said} lacks {name!r}, for which other models have this statistic. Measure it too.")
        if spec.shape != wanted:
            must = "there is no such statistic" if wanted is None else f"it must be {list(wanted)}"
            raise Mismatch(f"{said} has {name!r} as {list(spec.shape)}; for this tensor {must}.")
        return Read(label(stat.name, model), checkpoint, spec)


def _opened(path: str, folder: Path) -> Checkpoint:
    return checkpoints.open(checkpoints.locate(path, folder))
