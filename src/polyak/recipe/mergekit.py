"""mergekit's recipes, as of its version 0.1.5, with every default of that tool written out.

Source: https://github.com/arcee-ai/mergekit.  What differs on purpose stands in docs/coming-from-mergekit.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..errors import SettingError
from ._mergekit_methods import TRANSLATIONS, Translation
from ._mergekit_models import Reference, names, read_reference, without_nulls
from ._mergekit_values import NONE, Given, Parameters
from ._model import Model, Recipe
from ._reader import Place, Table, each, one_of, text
from ._scope import Scope
from ._values import frozen
from .native import no_method, resolve_method

if TYPE_CHECKING:
    from ..methods import Method

_MARKS = frozenset({"merge_method", "genome", "gate_mode", "experts"})
_REFUSED = {
    "slices": "merging ranges of layers is not supported yet",
    "modules": "merging the parts of a model in different ways is not supported yet",
    "tokenizer": "merging vocabularies is not supported yet",
    "chat_template": "choosing a chat template is not supported yet; that of the base or first model is kept",
    "name": "recipes of several documents are not supported yet; nest one recipe in the other with `recipe:`",
    "genome": "mergekit-evolve files are not supported yet",
    "gate_mode": "mergekit-moe files are not supported yet",
    "experts": "mergekit-moe files are not supported yet",
}


def recognises(data: Mapping[Any, Any]) -> bool:
    """Whether this looks like one of mergekit's files."""
    return "method" not in data and not _MARKS.isdisjoint(data)


def read(data: object, place: Place, scope: Scope) -> Recipe:
    """Translate what mergekit would read into a recipe that computes the same.

    Raises:
        RecipeError: mergekit would refuse it, or polyak cannot do it yet, or a key is unknown.
    """
    table = Table(without_nulls(data), place)
    for key, reason in _REFUSED.items():
        if key in table:
            raise (place / key).error(f"cannot be used: {reason}")
    method, translation = table.take("merge_method", _read_method)
    parameters = Parameters(method, translation)
    everyone = table.take("parameters", parameters.read, NONE)
    base = table.take("base_model", lambda value, where: read_reference(value, where, scope), None)
    listed = table.take("models", each(lambda value, where: _read_entry(value, where, scope, parameters)))
    dtype, out_dtype = (table.take(key, _read_dtype, None) for key in ("dtype", "out_dtype"))
    table.take("tokenizer_source", lambda value, where: _check_tokenizer(value, where, scope, base, listed), None)
    table.finish()
    entries = _arranged(listed, base, method, translation, place)
    shared = parameters.of_everyone(everyone, [(entry.own, entry.place) for entry in entries], place / "parameters")
    recipe = Recipe(
        method=method.name,
        models=_models(entries, parameters, everyone),
        base=base.source if base else None,
        settings=frozen(shared),
        dtype=out_dtype or dtype,
        folder=scope.folder,
    )
    return _with_shared_settings_of_models(recipe, method)


@dataclass(frozen=True)
class _Entry:
    """One model: what it is, what the file says of it, and where."""

    reference: Reference
    own: Given
    place: Place


def _read_method(value: object, place: Place) -> tuple[Method, Translation]:
    name = text(value, place)
    if name not in TRANSLATIONS:
        raise no_method(name, TRANSLATIONS, place)
    return resolve_method(name, place), TRANSLATIONS[name]


def _read_dtype(value: object, place: Place) -> str:
    written = text(value, place).removeprefix("torch.")
    return one_of(("float16", "bfloat16", "float32", "float64"))(written, place)


def _read_entry(value: object, place: Place, scope: Scope, parameters: Parameters) -> _Entry:
    table = Table(without_nulls(value), place)
    reference = table.take("model", lambda one, where: read_reference(one, where, scope))
    own = table.take("parameters", lambda one, where: parameters.read(one, where, of_model=True), NONE)
    table.finish()
    return _Entry(reference, own, place / "parameters" if own else place)


def _arranged(
    listed: Sequence[_Entry], base: Reference | None, method: Method, translation: Translation, place: Place
) -> list[_Entry]:
    """The models that our method sees, in its order."""
    sources = [entry.reference.source for entry in listed]
    for i, source in enumerate(sources):
        if source in sources[:i]:
            raise listed[i].place.error("is a model that is listed before")
    if base is None and translation.base not in ("model", "optional"):
        raise place.error(f"has no 'base_model', which mergekit's {method.name!r} needs")
    others = [entry for entry in listed if base is None or entry.reference.source != base.source]
    entries = list(listed) if translation.base == "model" else others
    if base and (translation.base == "first" or (translation.base == "model" and base.source not in sources)):
        # Parameters of the base are dropped, as in mergekit, unless it is a model like any other.
        added = _Entry(base, NONE, place / "base_model")
        entries = [added, *entries] if translation.base == "first" else [*entries, added]
    try:
        method.check_count(len(entries))
    except SettingError as error:
        raise SettingError(f"{place.file}: models: {error}") from None
    return entries


def _models(entries: Sequence[_Entry], parameters: Parameters, everyone: Given) -> tuple[Model, ...]:
    called = names(entry.reference for entry in entries)
    return tuple(
        Model(name, entry.reference.source, frozen(parameters.of_model(entry.own, everyone, entry.place)))
        for name, entry in zip(called, entries, strict=True)
    )


def _with_shared_settings_of_models(recipe: Recipe, method: Method) -> Recipe:
    """Lift what only mergekit lets a model have to the recipe: the scale of passthrough, which has but one model."""
    lifted = {k: v for one in recipe.models for k, v in one.settings.items() if not method.settings[k].per_model}
    models = (
        replace(one, settings=frozen({k: v for k, v in one.settings.items() if k not in lifted}))
        for one in recipe.models
    )
    return replace(recipe, models=tuple(models), settings=frozen({**recipe.settings, **lifted}))


def _check_tokenizer(
    value: object, place: Place, scope: Scope, base: Reference | None, listed: Sequence[_Entry]
) -> None:
    """Allow what happens anyway: the tokenizer of the base, or of the first model where there is no base."""
    if value == "union":
        raise place.error("cannot be used: the union of vocabularies is not supported yet")
    if value == "base" and base is None:
        raise place.error("is 'base', but there is no base_model")
    donor = base or listed[0].reference
    if value != "base" and read_reference(value, place, scope).source != donor.source:
        raise place.error(f"cannot be used: the tokenizer comes from {donor.written!r}; another is not supported yet")
