"""The generated tables of extensions (learners, statistics, averages ...): from their declarations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from _methods import NONE, table

from polyak import learn, statistics, tasks, training
from polyak.averaging import live
from polyak.checkpoint import formats
from polyak.declare import REQUIRED, Registry, Setting, argument_help


def built_in(registry: Registry[Any]) -> Mapping[str, Any]:
    """The declarations of polyak itself, by name: installed packages do not change the pages."""
    registry.load_all()
    return {name: declared for name, declared in sorted(registry.items()) if registry.is_built_in(name)}


def learners_table() -> str:
    """The learners, with their sources."""
    rows = ([f"`{name}`", one.summary, one.source] for name, one in built_in(learn.registry).items())
    return table(["learner", "what it does", "source"], rows)


def statistics_table() -> str:
    """The statistics, with their settings."""
    return table(
        ["statistic", "what it measures", "settings", "source"],
        (
            [f"`{name}`", one.summary, _settings(one.settings), one.source]
            for name, one in built_in(statistics.registry).items()
        ),
    )


def averages_table() -> str:
    """The averages that are kept while a model trains, with their settings."""
    rows = (
        [f"`{name}`", one.summary, _settings(one.settings), one.source] for name, one in built_in(live.registry).items()
    )
    return table(["average", "what it is", "settings", "source"], rows)


def training_table() -> str:
    """The training recipes, with their sources."""
    rows = ([f"`{name}`", one.summary, one.source] for name, one in built_in(training.registry).items())
    return table(["recipe", "what it does", "source"], rows)


def keys_of_training() -> str:
    """The keys of each training recipe, common ones first."""
    parts: list[str] = []
    for name, one in built_in(training.registry).items():
        rows = ([f"`{key}`", text, _own_default(default)] for key, (text, default) in one.described_keys.items())
        parts += [f"Keys of `{name}`:", table(["key", "meaning", "default"], rows)]
    return "\n\n".join(parts)


def _own_default(value: Any) -> str:
    if value is REQUIRED:
        return "required"
    if value is None or value in ("", ()):
        return NONE
    return f"`{', '.join(map(str, value))}`" if isinstance(value, tuple) else f"`{value}`"


def _settings(settings: Mapping[str, Setting]) -> str:
    return (
        ", ".join(f"`{one.name}`" if one.default is REQUIRED else _with_default(one) for one in settings.values())
        or NONE
    )


def _with_default(setting: Setting) -> str:
    value = f"{setting.default:.3g}" if isinstance(setting.default, float) else setting.default
    return f"`{setting.name}={value}`"


def kinds_table() -> str:
    """The kinds of task."""
    kinds = built_in(tasks.registry).items()
    return table(["kind", "examples"], ([f"`{name}`", kind.summary] for name, kind in kinds))


def keys_of_kinds() -> str:
    """The keys of each kind of task."""
    parts: list[str] = []
    for name, kind in built_in(tasks.registry).items():
        described = argument_help(kind.fn)
        rows = ([f"`{key}`", one.values, _default(one.default), described[key]] for key, one in kind.keys.items())
        parts.append(f"### `{name}`\n\n{kind.summary}\n\n{table(['key', 'value', 'default', 'meaning'], rows)}")
    return "\n\n".join(parts)


def _default(value: object) -> str:
    if value is REQUIRED:
        return "required"
    if value is None or value in ((), ""):
        return NONE
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return (
        f"`{', '.join(f'{one:g}' if isinstance(one, int | float) else str(one) for one in value)}`"
        if isinstance(value, tuple)
        else f"`{value}`"
    )


def formats_table() -> str:
    """The formats of checkpoints."""
    every = dict.fromkeys(built_in(formats.registry).values())
    return table(["suffixes", "format"], ([", ".join(f"`{s}`" for s in one.suffixes), one.summary] for one in every))
