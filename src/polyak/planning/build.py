"""Make the plan of a recipe: open its models, match their tensors, resolve all settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from .. import checkpoint as checkpoints
from ..checkpoint import (
    DTYPE_NAMES,
    HEADS_FOLDER,
    MASKS_FOLDER,
    Checkpoint,
    DType,
    TensorSpec,
    beneath,
    mask_spec,
    scale_spec,
)
from ..errors import Mismatch, RecipeError, Remedy, SettingError, suggestion, told_at
from ..methods import Law, Method
from ..reading import compiled
from ..recipe import Recipe, Source, sought, with_shared
from ._plan import NestedMerge, Plan
from .buffers import buffer_notes, partial_buffers
from .classes import unlike
from .compatibility import Opened, check
from .names import meet
from .open_models import Open, OpenedModels
from .output.sidecars import result_sidecars
from .resolve import Treatment
from .slices import Part, parts_of
from .statistics import Measured, StatisticsByName
from .steps import PlanPart, Read, Sidecars, Step, file_of
from .tokens.check import compare
from .tokens.vocabulary import align


def plan(
    recipe: Recipe,
    replacements: Mapping[str, Checkpoint] | None = None,
    statistics: StatisticsByName | None = None,
    *,
    opening: Open | None = None,
    tensors_only: bool = False,
) -> Plan:
    """Plan a merge: read headers, resolve names, shapes and settings, and report all errors that they reveal.

    Args:
        recipe: The recipe.
        replacements: Checkpoints to use for models of the recipe, by name, and for the base under `base`, instead
            of their sources.
        statistics: Statistics to use, by their name and then the model's, instead of those that the recipe names.
        opening: Opens a source with all its layers (default: `open_source`).
        tensors_only: Leave out sidecars and notes, which an earlier plan with other numbers has.

    Raises:
        RecipeError: a method, setting or base is missing, unknown or out of range.
        CheckpointError: a model cannot be read, or the models do not fit together.
    """
    with told_at(recipe.door):
        return _plan(recipe, replacements, statistics, opening or open_source, tensors_only)


def _plan(
    recipe: Recipe,
    replacements: Mapping[str, Checkpoint] | None,
    statistics: StatisticsByName | None,
    opening: Open,
    tensors_only: bool,
) -> Plan:
    _refuse_adapters_and_searches(recipe)
    recipe = with_shared(recipe)
    opened_models = OpenedModels(opening, recipe.folder, replacements or {})
    donor, renamings = _open(recipe, opened_models)
    vocabulary = align(recipe.vocabulary, opened_models, donor)
    divided = parts_of(recipe, opened_models)
    if divided.layers and any(model.statistics for part in divided.parts for model in part.recipe.models):
        raise RecipeError("models of slices cannot have `statistics:`: their layers have other numbers in the result.")
    builders = [_Builder(part, i, vocabulary.kept) for i, part in enumerate(divided.parts)]
    steps = [step for builder in builders for step in builder.build(statistics or {})]
    if all(step.file for step in steps):
        raise Mismatch("there is nothing to merge: no model has a tensor that is neither skipped nor a head.")
    opened = opened_models.in_order()
    side, notes = Sidecars(), list[str]()
    if not tensors_only:
        side, notes = result_sidecars(donor, divided, steps, vocabulary)
        side = _with_template(side, recipe, opened)
        notes = [*renamings, *notes, *_notes(recipe, opened, steps, builders)]
    measured = {name: statistic for builder in builders for name, statistic in builder.measured.checkpoints.items()}
    parts = tuple(PlanPart(part.name, part.recipe) for part in divided.parts)
    models = {model.name: model.checkpoint for model in opened}
    return Plan(recipe, tuple(steps), models, side, tuple(notes), measured, parts)


def _open(recipe: Recipe, opened_models: OpenedModels) -> tuple[Opened, list[str]]:
    """Open the models; returns the donor of config and tokenizer, and notes on models that were renamed."""
    donor = opened_models.donor(recipe)
    opened_models.fill(recipe)
    return donor, list(meet(recipe, opened_models))


def _with_template(side: Sidecars, recipe: Recipe, models: Sequence[Opened]) -> Sidecars:
    if recipe.chat_template is None:
        return side
    from .output.chat import with_template

    return with_template(side, recipe.chat_template, models)


def _refuse_adapters_and_searches(recipe: Recipe) -> None:
    if recipe.adapter is not None:
        raise RecipeError("`adapter:` is for recipes whose models are adapters: use `polyak lora merge`.")
    if searched := sought(recipe):
        raise RecipeError(
            f"{searched[0].place} is still a search range ({len(searched)} in all). `polyak search RECIPE --task "
            "TASK -o FOUND.yaml` writes a recipe with the numbers filled in, which can be merged."
        )


def _notes(
    recipe: Recipe, opened: Sequence[Opened], steps: Sequence[Step], builders: Sequence[_Builder]
) -> Iterator[str]:
    """Notes on tokens, on classes, on rules that drop settings, and on statistics."""
    if not recipe.vocabulary:
        yield from compare(opened, steps, recipe.door)
    yield from unlike(opened, steps, recipe.door)
    for builder in builders:
        yield from (*builder.notes, *builder.measured.notes)


def open_source(source: Source | None, folder: Path) -> Checkpoint:
    """Open a source with all its layers: the plan applies `layers` and `stack`.

    Raises:
        CheckpointError: it cannot be opened.
        RecipeError: it has neither a path nor a recipe.
    """
    if source is None or (source.path is None and source.recipe is None):
        raise RecipeError("a model needs `path:` or `recipe:`.")
    if source.recipe is not None:
        checkpoint: Checkpoint = NestedMerge(plan(source.recipe), f"the nested {source.recipe.method} merge")
    else:
        opened = checkpoints.open(checkpoints.locate(source.path or "", folder), key=source.key)
        checkpoint = checkpoints.refuse_factors(opened)
    if source.strip_prefix:
        checkpoint = checkpoints.stripped(checkpoint, source.strip_prefix)
    for lora in source.lora:
        checkpoint = checkpoints.with_lora(checkpoint, checkpoints.locate(lora.path, folder), scale=lora.scale)
    if prefix := source.add_prefix:
        checkpoint = checkpoints.renamed(checkpoint, lambda name: prefix + name)
    return checkpoint


def _has_masks(method: Method, settings: Mapping[str, object]) -> bool:
    """True if the merge also writes a mask for every model."""
    return method.masks is not None and settings["masks"] is True


class _Builder:
    """Makes the steps of one part."""

    def __init__(self, part: Part, number: int, kept: frozenset[str]) -> None:
        self._part, self._number, self._kept_tables = part, number, kept
        self._recipe, self._models, self._base = part.recipe, list(part.models), part.base
        self._reference = self._base or self._models[0]
        self._skip = compiled(self._recipe.skip) if self._recipe.skip else None
        self._heads = compiled(self._recipe.heads) if self._recipe.heads else None

    def build(self, statistics: StatisticsByName) -> list[Step]:
        names = self._shared_names()
        self._partial = partial_buffers(self._everyone, [n for n in names if not self._is_skipped(n)])
        apart = self._kept_tables | self._partial.keys()
        check(self._models, self._base, [n for n in names if not self._is_skipped(n) and n not in apart])
        treatment = Treatment(self._recipe, names)
        notes = [*treatment.notes, *buffer_notes(self._partial, self._reference)]
        self.notes = [f"{self._part.name}: {note}" if self._part.name else note for note in notes]
        self._check_methods(treatment)
        whole = list(self._part.whole[-len(self._models) :])
        self.measured = Measured(self._recipe, whole, statistics, treatment.methods)
        tied = {n for n in names if all(m.ties(n) for m in self._everyone)}
        steps = [step for name in names if name not in tied and (step := self._step(name, treatment))]
        steps += self._head_steps()
        steps += [mask_or_scale for step in steps for pair in step.masks for mask_or_scale in pair]
        return [replace(step, part=self._number) for step in steps]

    @property
    def _everyone(self) -> list[Opened]:
        return [*([self._base] if self._base else []), *self._models]

    def _shared_names(self) -> list[str]:
        """The names of all tensors except heads: those of the base or first model in its order, then others."""
        names: dict[str, None] = {}
        for model in self._everyone:
            names.update(dict.fromkeys([*model.checkpoint.specs, *model.checkpoint.ties]))
        return [n for n in names if not (self._heads and self._heads.search(n))]

    def _is_skipped(self, name: str) -> bool:
        return self._skip is not None and self._skip.search(name)

    def _check_methods(self, treatment: Treatment) -> None:
        for method in treatment.methods:
            try:
                method.check_count(len(self._models))
            except SettingError as error:
                raise SettingError(f"{self._part.name}: {error}" if self._part.name else str(error)) from None
            if method.needs_base and self._base is None:
                where = f"{self._part.name}: " if self._part.name else ""
                raise RecipeError(
                    f"{where}method {method.name!r} works on differences from a base model.", remedies=[Remedy.BASE]
                )

    def _step(self, name: str, treatment: Treatment) -> Step | None:
        if self._is_skipped(name):
            return self._kept(name)
        if name in self._kept_tables or name in self._partial:
            return self._copied(self._reference, name)
        spec = self._reference.find(name)
        assert spec is not None
        if not spec.dtype.floating:
            return self._buffer(name)
        number, method, settings = treatment.of(name)
        method, settings = method.for_tensor(name, spec.shape, settings, len(self._models))
        out = TensorSpec(name, self._out_dtype(spec), spec.shape)
        kept = self._needed(method, settings)
        reads = tuple(self._read(self._models[i], name) for i in kept)
        if len(kept) < len(self._models):
            settings = {
                k: tuple(v[i] for i in kept) if method.settings[k].per_model else v for k, v in settings.items()
            }
        base = self._read(self._base, name) if self._base and method.uses_base else None
        models = [self._models[i] for i in kept]
        statistics = self.measured.reads(name, spec.shape, method, settings, models) if method.statistics else {}
        masks = self._masks(out) if _has_masks(method, settings) else ()
        return Step(out, "merge", reads, base, method, settings, number, statistics=statistics, masks=masks)

    def _masks(self, out: TensorSpec) -> tuple[tuple[Step, Step], ...]:
        """Steps of a tensor's mask and scale for each model, in the file of the model; an empty tensor has none."""
        if not out.numel:
            return ()
        files = [file_of(model.name, MASKS_FOLDER) for model in self._models]
        specs = mask_spec(out), scale_spec(out)
        return tuple((Step(specs[0], "mask", (), file=f), Step(specs[1], "mask", (), file=f)) for f in files)

    def _needed(self, method: Method, settings: Mapping[str, object]) -> list[int]:
        """Indices of the models that must be read: some methods need not read models of weight zero."""
        everyone = list(range(len(self._models)))
        weight = settings.get("weight")
        if Law.ZERO_IS_ABSENT not in method.laws or not isinstance(weight, tuple) or _has_masks(method, settings):
            return everyone
        needed = [i for i in everyone if weight[i] != 0]
        least = max(1, method.models[0])
        return needed if len(needed) >= least else everyone if needed else everyone[:least]

    def _out_dtype(self, spec: TensorSpec) -> DType:
        name = self._recipe.dtype
        if name is None:
            return spec.stored
        if name not in DTYPE_NAMES:
            raise RecipeError(f"dtype {name!r} is unknown. {suggestion(name, DTYPE_NAMES)}")
        return DTYPE_NAMES[name]

    @staticmethod
    def _read(model: Opened, name: str) -> Read:
        spec = model.find(name)
        assert spec is not None
        # Renaming views matter to the plan alone: steps read, and digests name, the stored tensor.
        checkpoint, stored = beneath(model.checkpoint, spec.name)
        return Read(model.name, checkpoint, checkpoint.specs[stored])

    def _kept(self, name: str) -> Step | None:
        """Copy a skipped tensor from the base; without a base it is left out."""
        return None if self._base is None else self._copied(self._base, name)

    def _copied(self, model: Opened, name: str) -> Step | None:
        if model.find(name) is None or model.ties(name):
            return None
        read = self._read(model, name)
        return Step(TensorSpec(name, read.spec.dtype, read.spec.shape), "copy", (read,))

    def _buffer(self, name: str) -> Step:
        """Copy a tensor of integers or booleans, which are not averaged."""
        donor = {"first": self._models[0], "last": self._models[-1], None: self._base}[self._recipe.buffers]
        reads = tuple(self._read(m, name) for m in ([donor] if donor else self._models))
        out = TensorSpec(name, reads[0].spec.dtype, reads[0].spec.shape)
        return Step(out, "copy" if donor else "same", reads)

    def _head_steps(self) -> list[Step]:
        if self._heads is None:
            return []
        steps: list[Step] = []
        for model in self._models:
            for name, spec in model.checkpoint.specs.items():
                if self._heads.search(name):
                    out = TensorSpec(name, spec.dtype, spec.shape)
                    steps.append(Step(out, "copy", (self._read(model, name),), file=file_of(model.name, HEADS_FOLDER)))
        if not steps:
            raise RecipeError(f"`heads: {self._recipe.heads}` matches no tensor of any model.")
        return steps
