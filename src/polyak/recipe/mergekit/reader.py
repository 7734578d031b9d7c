"""Reader of mergekit's recipes, as of mergekit 0.1.5, which writes out all of its defaults.

Source: https://github.com/arcee-ai/mergekit. docs/coming-from-mergekit.md lists intended differences.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ...reading import Place, Table, one_of, text
from .._model import Recipe, with_shared
from .._scope import Scope
from ..native import no_method, resolve_method
from .methods import TRANSLATIONS, Translation
from .models import read_reference, without_nulls
from .parts import PartReader
from .tokens import VocabularyReader
from .values import NONE, Parameters

if TYPE_CHECKING:
    from ...methods import Method

_REFUSED = {
    "genome": "mergekit-evolve files are not supported yet",
    "gate_mode": "mergekit-moe files are not supported yet",
    "experts": "mergekit-moe files are not supported yet",
}


def read(data: object, place: Place, scope: Scope) -> Recipe:
    """Translate a recipe of mergekit into one that computes the same result.

    Raises:
        RecipeError: mergekit would refuse it, polyak does not support it, or a key is unknown.
    """
    table = Table(without_nulls(data), place)
    table.take("name", text, None)  # mergekit reads it in files of several documents, and drops it in others
    for key, reason in _REFUSED.items():
        if key in table:
            raise (place / key).error(f"cannot be used: {reason}")
    method, translation = table.take("merge_method", _read_method)
    parameters = Parameters(method, translation)
    everyone = table.take("parameters", parameters.read, NONE)
    base = table.take("base_model", lambda value, where: read_reference(value, where, scope), None)
    reader = PartReader(method, translation, parameters, scope)
    inputs, mentioned = reader.read(table, base, everyone)
    dtype, out_dtype = (table.take(key, _read_dtype, None) for key in ("dtype", "out_dtype"))
    tokens = VocabularyReader(scope, base, mentioned, reader.called)
    vocabulary, template = tokens.vocabulary(table), table.take("chat_template", text, None)
    parameters.refuse_outside(table)
    table.finish()
    recipe = replace(reader.recipe(inputs), base=base.source if base else None, dtype=out_dtype or dtype)
    return with_shared(
        replace(recipe, vocabulary=vocabulary, chat_template=template, folder=scope.folder, door="mergekit")
    )


def _read_method(value: object, place: Place) -> tuple[Method, Translation]:
    name = text(value, place)
    if name not in TRANSLATIONS:
        raise no_method(name, TRANSLATIONS, place)
    return resolve_method(name, place), TRANSLATIONS[name]


def _read_dtype(value: object, place: Place) -> str:
    written = text(value, place).removeprefix("torch.")
    return one_of(("float16", "bfloat16", "float32", "float64"))(written, place)
