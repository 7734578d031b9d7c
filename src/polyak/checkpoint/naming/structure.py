"""The model classes that a model consists of, and the name rules that apply to each part."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

from .rules import Rule, rule_of

Config = Mapping[str, Any]


@dataclass
class Facts:
    """Facts about the classes of a version of transformers, as plain data.

    Attributes:
        version: The version.
        rules: Name rules by class name or model type, and under `legacy` those of all models.
        classes: By class name: its base-model `prefix`, the classes nested in it (`parts`: path to class, model
            type and key of the config), and the `kinds` of parameters that are no weights of linear layers.
        bases: By model type: its class without a head.
    """

    version: str = ""
    rules: dict[str, list[dict[str, Any]]] = field(default_factory=dict[str, "list[dict[str, Any]]"])
    classes: dict[str, dict[str, Any]] = field(default_factory=dict[str, "dict[str, Any]"])
    bases: dict[str, str] = field(default_factory=dict[str, str])


class Part(NamedTuple):
    """A model class within a model: its path, where `*` stands for a number, and its model type."""

    path: str
    name: str
    model_type: str


class UnknownArchitecture(LookupError):
    """The facts do not cover an architecture."""


def architecture_of(config: Config, facts: Facts) -> str:
    """The class of a model from its config.json.

    Raises:
        UnknownArchitecture: it is in none of the facts.
    """
    names: Any = config.get("architectures") or [facts.bases.get(str(config.get("model_type")))]
    name = cast("list[Any]", names)[0] if isinstance(names, list) else None
    if not isinstance(name, str) or name not in facts.classes:
        raise UnknownArchitecture(str(name))
    return name


def parts_of(name: str, config: Config, facts: Facts, path: str = "", parent: str = "") -> Iterator[Part]:
    """A model and the models nested in it, in the order of its modules.

    Args:
        name: Its class.
        config: Its config.json.
        facts: The facts.
        path: Its path within the whole model.
        parent: The model type of the model around it, if its own config does not say.

    Raises:
        UnknownArchitecture: a nested model is in none of the facts.
    """
    if name not in facts.classes:
        raise UnknownArchitecture(name)
    own = str(config.get("model_type") or parent)
    yield Part(path, name, own)
    for below, (usual, usual_type, key) in facts.classes[name]["parts"].items():
        inner = config if key is None else config.get(key)
        inner = cast("Config", inner) if isinstance(inner, Mapping) else {}
        kind = own if key is None else str(inner.get("model_type") or usual_type)
        same = key is None or kind == usual_type
        yield from parts_of(usual if same else facts.bases.get(kind, kind), inner, facts, _joined(path, below), kind)


def rules_of(parts: list[Part], facts: Facts) -> list[Rule]:
    """The name rules of a model in the order in which transformers applies them, each limited to its part.

    A part is skipped if the model around it has rules of the same class or type, since those reach into it.
    """
    prefix = str(facts.classes[parts[0].name]["prefix"])
    seen: dict[str, list[str]] = {}
    rules: list[Rule] = []
    for path, name, model_type in parts:
        if _inside(path, seen.get(name, [])):
            continue
        key = name if name in facts.rules else model_type
        if key not in facts.rules or (key != name and _inside(path, seen.get(model_type, []))):
            continue
        scope = path.removeprefix(prefix).removeprefix(".") if path else None
        rules += [rule_of(data, scope, prefix) for data in facts.rules[key]]
        for identifier in {name, key}:
            seen.setdefault(identifier, []).append(path)
    return rules + [rule_of(data, None, "") for data in facts.rules.get("legacy", [])]


def kinds_of(parts: list[Part], facts: Facts) -> dict[str, str]:
    """Kinds of the parameters that are no weights of linear layers, by name at run time with `*` for numbers."""
    return {
        _joined(part.path, name): kind
        for part in parts
        for name, kind in facts.classes[part.name]["kinds"].items()
    }  # fmt: skip


def starred(name: str) -> str:
    """A name with `*` for every number between dots."""
    return re.sub(r"(?<=\.)\d+(?=\.|$)", "*", name)


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _inside(path: str, outer: list[str]) -> bool:
    return any(around == "" or path.startswith(f"{around}.") for around in outer)
