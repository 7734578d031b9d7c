"""References to models in mergekit's recipes: `path[@revision][+adapter[@revision]]`, or the same as mappings."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from ...reading import Place, Table, is_mapping, text
from .._model import BASE, Lora, Source
from .._scope import Scope
from ..native import default_name

_HUB = re.compile(r"\w[\w.-]*/\w[\w.-]*")


@dataclass(frozen=True)
class Reference:
    """A model as written in a file, and its source."""

    written: str
    source: Source


def read_reference(value: object, place: Place, scope: Scope) -> Reference:
    """Read the name of a model.

    Text is split at the first `+` with existing paths on both sides, else at the last `+`; text that is itself an
    existing path is not split.
    """
    if not is_mapping(value):
        written = text(value, place)
        model, adapter = _split(written, scope)
        return _reference(model, adapter, place, scope)
    table = Table(without_nulls(value), place)
    if "override_architecture" in table:
        raise (place / "override_architecture").error("cannot be used: polyak merges by the names of tensors")
    reference = _reference(table.take("model", _read_path), table.take("lora", _read_path, None), place, scope)
    table.finish()
    return reference


def names(references: Iterable[Reference]) -> list[str]:
    """Names of models: the last component of their paths, or the whole reference where that is not unique.

    A model whose path ends in `base` is called `./base`: `base` is the name of the base.
    """
    listed = list(references)
    short = [default_name(reference.source.path or reference.written) for reference in listed]
    taken = [*short, "", "", BASE, BASE]
    chosen = (
        reference.written if taken.count(name) > 1 else name for reference, name in zip(listed, short, strict=True)
    )
    return [f"./{name}" if name == BASE else name for name in chosen]


def _read_path(value: object, place: Place) -> str:
    """`path@revision`, from that or from {path, revision}."""
    if not is_mapping(value):
        return text(value, place)
    table = Table(without_nulls(value), place)
    path, revision = table.take("path", text), table.take("revision", text, None)
    table.finish()
    return path if revision is None else f"{path}@{revision}"


def without_nulls(data: object) -> object:
    """Remove keys whose value is null: mergekit reads them as missing."""
    if not isinstance(data, Mapping):
        return data
    return {key: value for key, value in cast("Mapping[Any, Any]", data).items() if value is not None}


def _split(written: str, scope: Scope) -> tuple[str, str | None]:
    if "+" not in written or _exists(written, scope):
        return written, None
    for plus in (i for i, character in enumerate(written) if character == "+"):
        if _exists(written[:plus], scope) and _exists(written[plus + 1 :], scope):
            return written[:plus], written[plus + 1 :]
    model, _, adapter = written.rpartition("+")
    return model, adapter


def _reference(model: str, adapter: str | None, place: Place, scope: Scope) -> Reference:
    if (merge := scope.merges.get(text(model, place))) is not None:
        source = Source(recipe=merge(place))
    else:
        source = Source(_located(model, place, scope))
    if adapter is None:
        return Reference(model, source)
    lora = Lora(_located(text(adapter, place), place, scope))
    return Reference(f"{model}+{adapter}", replace(source, lora=(lora,)))


def _located(written: str, place: Place, scope: Scope) -> str:
    """Locate a model: relative to the current directory or to the recipe, else on the Hub if it looks like a name."""
    path, at, revision = ("", "", "") if _exists(written, scope) else written.rpartition("@")
    if not at:
        return _local(written, scope) or (f"hf://{written}" if _HUB.fullmatch(written) else scope.rebased(written))
    if (path and _exists(path, scope)) or not _HUB.fullmatch(path) or not revision:
        raise place.error(f"is {written!r}, but only models on the Hub (org/name@revision) have revisions")
    return f"hf://{written}"


def _exists(path: str, scope: Scope) -> bool:
    return _local(path, scope) is not None


def _local(path: str, scope: Scope) -> str | None:
    """Resolve a path that exists; the current directory comes first, as in mergekit."""
    from_recipe = scope.here(path)
    if _is_there(path):
        same = _is_there(from_recipe) and from_recipe.samefile(path)
        return scope.rebased(path) if same else str(Path(path).absolute())
    return scope.rebased(path) if _is_there(from_recipe) else None


def _is_there(path: str | Path) -> bool:
    return os.path.exists(path)  # noqa: PTH110  Path.exists raises where a name is too long
