"""Reader of models, slices and modules of mergekit's recipes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from ...errors import SettingError
from ...reading import Place, Table, each, mapping
from .._keys import source_layers
from .._model import Model, Module, Recipe, Source
from .._scope import Scope
from .._values import frozen
from .methods import Translation
from .models import Reference, names, read_reference, without_nulls
from .values import NONE, Parameters, PartsByName, joined

if TYPE_CHECKING:
    from ...methods import Method

# mergekit's names of modules, with patterns of their tensors, in the order in which they are matched.
_MODULES = {
    "multi_modal_projector": r"(?:^|\.)(?:multi_modal_projector|mm_projector|visual\.(?:deepstack_)?merger)",
    "vision_tower": r"(?:^|\.)(?:vision_tower|vision_model|visual)\.",
    "vision_model": r"(?:^|\.)vision_model\.",
    "encoder": r"(?:^|\.)encoder\.",
    "decoder": r"(?:^|\.)decoder\.|^proj_out\.",
    "shared": r"^(?:shared|lm_head)\.",
    "text_decoder": r".*",
}


@dataclass(frozen=True)
class Entry:
    """One model with its parameters and its place in the file."""

    reference: Reference
    own: PartsByName
    place: Place
    layers: tuple[int, int] | None = None


@dataclass(frozen=True)
class Group:
    """Models that are merged together: all of a file, or those of one slice."""

    entries: Sequence[Entry]
    base: Reference | None
    everyone: PartsByName
    place: Place
    sliced: bool = False


Slices: TypeAlias = Sequence[Group]
Inputs: TypeAlias = Group | Slices | Mapping[str, Group | Slices]


class PartReader:
    """Reads the models, slices or modules that are merged by one method."""

    def __init__(self, method: Method, translation: Translation, parameters: Parameters, scope: Scope) -> None:
        self._method, self._translation, self._parameters, self._scope = method, translation, parameters, scope
        self.called: dict[str, str] = {}

    def read(self, table: Table, base: Reference | None, everyone: PartsByName) -> tuple[Inputs, Sequence[Reference]]:
        """Read `models`, `slices` or `modules`.

        Returns:
            The models, slices or modules, and references to all models.
        """
        if "modules" not in table:
            inputs: Inputs = self._models_or_slices(table, base, everyone)
            groups = list(_groups(inputs))
        else:
            if conflicting := [key for key in ("models", "slices") if key in table]:
                raise table.place.expected("given one of models, slices and modules", f"{conflicting[0]} and modules")
            inputs = table.take("modules", lambda value, where: self._read_modules(value, where, base, everyone))
            groups = [group for module in inputs.values() for group in _groups(module)]
        references = [entry.reference for group in groups for entry in group.entries]
        bases = [group.base for group in groups if group.base]
        distinct = {reference.written: reference for reference in [*references, *bases]}
        self.called = dict(zip(distinct, names(distinct.values()), strict=True))
        return inputs, references

    def recipe(self, inputs: Inputs) -> Recipe:
        """The recipe that computes the same result as mergekit."""
        if isinstance(inputs, Mapping):
            parts = [
                (_matching(name), self._part(inner) if isinstance(inner, Group) else self.recipe(inner))
                for name, inner in sorted(inputs.items(), key=_rank)
            ]
            return Recipe(self._method.name, modules=tuple(Module(match, recipe) for match, recipe in parts))
        if isinstance(inputs, Group):
            return self._merge(inputs)
        _refuse_dropped_sources(inputs)
        return Recipe(self._method.name, slices=tuple(self._part(inner) for inner in inputs))

    def _models_or_slices(self, table: Table, base: Reference | None, everyone: PartsByName) -> Group | Slices:
        if "slices" not in table:
            table.known_keys.append("slices")
            return Group(table.take("models", each(self._read_entry)), base, everyone, table.place)
        if "models" in table:
            raise table.place.expected("given one of models, slices and modules", "models and slices")
        return table.take("slices", each(lambda value, where: self._read_slice(value, where, base, everyone)))

    def _read_modules(
        self, value: object, place: Place, base: Reference | None, everyone: PartsByName
    ) -> Mapping[str, Group | Slices]:
        modules: dict[str, Group | Slices] = {}
        for name, module in mapping(value, place).items():
            table = Table(without_nulls(module), place / name)
            own = table.take("parameters", self._parameters.read, NONE)
            modules[name] = self._models_or_slices(table, base, joined(own, everyone))
            self._finish(table)
        if not modules:
            raise place.expected("a mapping of one or more modules", value)
        return modules

    def _read_slice(self, value: object, place: Place, base: Reference | None, everyone: PartsByName) -> Group:
        table = Table(without_nulls(value), place)
        if "residual_weight" in table:
            raise (place / "residual_weight").error("has no effect in mergekit", "Leave it out.")
        own = table.take("parameters", self._parameters.read, NONE)
        base = table.take("base_model", lambda inner, where: read_reference(inner, where, self._scope), base)
        entries = table.take("sources", each(lambda inner, where: self._read_entry(inner, where, sliced=True)))
        self._finish(table)
        return Group(entries, base, joined(own, everyone), place, sliced=True)

    def _read_entry(self, value: object, place: Place, *, sliced: bool = False) -> Entry:
        table = Table(without_nulls(value), place)
        reference = table.take("model", lambda inner, where: read_reference(inner, where, self._scope))
        own = table.take("parameters", lambda inner, where: self._parameters.read(inner, where, of_model=True), NONE)
        layers = table.take("layer_range", source_layers) if sliced else None
        self._finish(table)
        return Entry(reference, own, place / "parameters" if own else place, layers)

    def _finish(self, table: Table) -> None:
        self._parameters.refuse_outside(table)
        table.finish()

    def _part(self, group: Group) -> Recipe:
        """A slice or module; if there is nothing to merge its only model with, a copy of it, as in mergekit."""
        only, kind = group.entries[0].reference, self._translation.base
        is_base = group.base is not None and only.source == group.base.source and kind != "model"
        if len(group.entries) > 1 or not (is_base or (group.sliced and kind == "first")):
            return self._merge(group)
        model = Model(self.called[only.written], replace(only.source, layers=group.entries[0].layers))
        return Recipe("passthrough", models=(model,), folder=self._scope.folder)

    def _merge(self, group: Group) -> Recipe:
        entries = self._arranged(group)
        owns = [(entry.own, entry.place) for entry in entries]
        shared = self._parameters.of_everyone(group.everyone, owns, group.place / "parameters")
        needed = group.base and (not group.sliced or self._translation.base in ("ancestor", "optional"))
        recipe = Recipe(
            method=self._method.name,
            models=tuple(self._model(entry, group.everyone) for entry in entries),
            base=_base_source(group) if needed else None,
            settings=frozen(shared),
            folder=self._scope.folder,
        )
        return _with_shared_settings_of_models(recipe, self._method)

    def _model(self, entry: Entry, everyone: PartsByName) -> Model:
        settings = frozen(self._parameters.of_model(entry.own, everyone, entry.place))
        reference = entry.reference
        return Model(self.called[reference.written], replace(reference.source, layers=entry.layers), settings)

    def _arranged(self, group: Group) -> list[Entry]:
        """The models that polyak's method takes, in its order."""
        listed, base, kind = group.entries, group.base, self._translation.base
        sources = [entry.reference.source for entry in listed]
        _refuse_repeated(group)
        if base is None and kind not in ("model", "optional"):
            raise group.place.error(f"has no 'base_model', which mergekit's {self._method.name!r} needs")
        if group.sliced and base and base.source not in sources and kind not in ("model", "optional"):
            raise (group.place / "sources").error(
                f"have no layers of the base {base.written!r}, which mergekit's {self._method.name!r} needs"
            )
        entries = self._with_base(group, sources)
        try:
            self._method.check_count(len(entries))
        except SettingError as error:
            where = f"{group.place.path}.sources" if group.sliced else "models"
            raise SettingError(f"{group.place.file}: {where}: {error}") from None
        return entries

    def _with_base(self, group: Group, sources: Sequence[Source]) -> list[Entry]:
        listed, base, kind = group.entries, group.base, self._translation.base
        if kind == "model":
            added = [Entry(base, NONE, group.place / "base_model")] if base and base.source not in sources else []
            return [*listed, *([] if group.sliced else added)]
        others = [entry for entry in listed if base is None or entry.reference.source != base.source]
        # As in mergekit, parameters of the base are dropped, unless it is a model like any other.
        if base is None or kind != "first":
            return others
        return [Entry(base, NONE, group.place / "base_model", _base_source(group).layers), *others]


def _groups(inputs: Inputs) -> Sequence[Group]:
    assert not isinstance(inputs, Mapping)
    return [inputs] if isinstance(inputs, Group) else inputs


def _base_source(group: Group) -> Source:
    """Source of the base; in a slice, with the layers that the slice takes of it."""
    assert group.base
    layers = next((e.layers for e in group.entries if e.reference.source == group.base.source), None)
    return replace(group.base.source, layers=layers)


def _refuse_repeated(group: Group) -> None:
    sources = [entry.reference.source for entry in group.entries]
    for i, source in enumerate(sources):
        if source not in sources[:i]:
            continue
        place = (group.place / ("sources" if group.sliced else "models"))[i]
        if group.entries[i].layers == group.entries[sources.index(source)].layers:
            raise place.error("is listed twice", "Remove one of them.")
        raise place.error(
            "takes other layers of a model that is listed already, and mergekit would use those of the last alone",
            "To stack them, give each a slice of its own; to merge them, write the recipe in polyak's own form.",
        )


def _refuse_dropped_sources(slices: Slices) -> None:
    first, last = slices[0], slices[-1]
    if len(last.entries) > len(first.entries):
        raise (last.place / "sources").error(
            f"has {len(last.entries)} models and the first slice {len(first.entries)}: mergekit would make final norm "
            "and head of fewer models than the last slice has",
            "Give both slices as many sources, or write the recipe in polyak's form, which uses all of the last.",
        )


def _rank(item: tuple[str, object]) -> int:
    order = list(_MODULES)
    return order.index(item[0]) if item[0] in order else -1


def _matching(name: str) -> str:
    return _MODULES.get(name, rf"(?:^|\.){re.escape(name)}\.")


def _with_shared_settings_of_models(recipe: Recipe, method: Method) -> Recipe:
    """Move settings that only mergekit allows per model to the recipe: the scale of passthrough, of one model."""
    lifted = {k: v for model in recipe.models for k, v in model.settings.items() if not method.settings[k].per_model}
    models = (
        replace(model, settings=frozen({k: v for k, v in model.settings.items() if k not in lifted}))
        for model in recipe.models
    )
    return replace(recipe, models=tuple(models), settings=frozen({**recipe.settings, **lifted}))
