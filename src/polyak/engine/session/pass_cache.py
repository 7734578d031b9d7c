"""Cached answers of first passes, for further merges of the same models with other settings.

The answer of a first pass depends on the settings that its request and its functions name, on the models, and on
earlier answers; a threshold of TIES is the same for all weights.  An answer over the whole model depends on those of
all tensors that are ranked together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple, TypeAlias

import xxhash

from ...methods import parameters
from .. import tuning
from ..schedule.stages import ranking_key, request_of
from ..step.prepared import PreparedStep

Place: TypeAlias = tuple[int, str | None, str]
Key: TypeAlias = tuple[Any, ...]


class PassCache:
    """Answers of first passes, and what each merged tensor was made with."""

    def __init__(self) -> None:
        self._answers: dict[tuple[Place, str], dict[Key, Any]] = {}
        self._made: dict[Place, Key] = {}
        self._keys: dict[int, dict[str, Key]] = {}

    def changed(self, prepared: Sequence[PreparedStep]) -> dict[int, PreparedStep]:
        """Those steps that must be merged again, by their `id`; all are given the answers that are known.

        Steps that need not be merged are among the members of passes over the whole model all the same.
        """
        ranked = _Ranked(prepared)
        self._keys = {id(one): _keys(one, ranked) for one in prepared}
        changed: dict[int, PreparedStep] = {}
        for one in prepared:
            place, keys = _place(one), self._keys[id(one)]
            for name, key in keys.items():
                answers = self._answers.get((place, name), {})
                if key in answers:
                    one.answers[name] = answers[key]
            if self._made.get(place) != _recipe_of(one, keys):
                changed[id(one)] = one
        return changed

    def forget(self, prepared: Mapping[int, PreparedStep]) -> None:
        """These tensors are about to change."""
        for one in prepared.values():
            self._made.pop(_place(one), None)

    def keep(self, prepared: Mapping[int, PreparedStep]) -> None:
        """These steps have been merged; they are those that `changed` has returned last."""
        for number, one in prepared.items():
            place, keys = _place(one), self._keys[number]
            self._made[place] = _recipe_of(one, keys)
            for name, key in keys.items():
                if name in one.answers:
                    answers = self._answers.setdefault((place, name), {})
                    answers.pop(key, None)
                    answers[key] = one.answers[name]
                    if len(answers) > tuning.CACHED_ANSWERS:
                        answers.pop(next(iter(answers)))


def _place(one: PreparedStep) -> Place:
    return one.step.part, one.step.file, one.step.out.name


def _recipe_of(one: PreparedStep, keys: Mapping[str, Key]) -> Key:
    """All that a merged tensor depends on, where models and seed stay the same."""
    step = one.step
    if step.method is None:
        return (step.kind, *_sources(one))
    return (step.method.name, *_sources(one), *sorted(step.settings.items()), *keys.items())


def _sources(one: PreparedStep) -> Key:
    """The models, and the checkpoints themselves: a nested merge with other numbers is another one."""
    return (*one.models, *(read.checkpoint for read in one.step.every_read))


class _Ranked:
    """The steps whose passes over the whole model rank them together."""

    def __init__(self, prepared: Iterable[PreparedStep]) -> None:
        self._members: dict[str, list[PreparedStep]] = {}
        self._digests: dict[tuple[str, str], str] = {}
        self._asked: dict[tuple[str, int], list[_Asked]] = {}
        for one in prepared:
            if one.step.method is not None and one.step.method.passes:
                self._members.setdefault(ranking_key(one), []).append(one)

    def asked_of(self, one: PreparedStep) -> list[_Asked]:
        """See `_asked_of`; most tensors of a plan share their settings, one object."""
        key = one.method.name, id(one.step.settings)
        if key not in self._asked:
            self._asked[key] = _asked_of(one)
        return self._asked[key]

    def digest(self, one: PreparedStep, name: str) -> str:
        """Digest of everything that a pass over the whole model depends on, for all steps ranked together."""
        key = ranking_key(one), name
        if key not in self._digests:
            each = [(_place(member), _depends(member, name)) for member in self._members[key[0]]]
            self._digests[key] = xxhash.xxh3_128_hexdigest(repr(each).encode())
        return self._digests[key]


def _keys(one: PreparedStep, ranked: _Ranked) -> dict[str, Key]:
    """Cache key per pass: everything that its answer depends on. Passes that are not needed have none."""
    if one.step.method is None or not one.method.passes:
        return {}
    keys: dict[str, Key] = {}
    for name, depends, whole in ranked.asked_of(one):
        own = one.method.name, *_sources(one), *depends
        keys[name] = (*own, ranked.digest(one, name)) if whole else own
    return keys


def _depends(one: PreparedStep, name: str) -> Key:
    """The settings on which the answer of a pass depends, with their values."""
    settings = one.step.settings
    named = {key for each in _passes_behind(one, name) for fn in _functions(one, each) for key in parameters(fn)}
    return tuple((key, settings[key]) for key in sorted(named) if key in settings)


class _Asked(NamedTuple):
    """A pass that is needed under some settings."""

    name: str
    depends: Key
    whole: bool


def _asked_of(one: PreparedStep) -> list[_Asked]:
    """The passes that are needed, what their answers depend on, and whether that goes over the whole model."""
    requests: list[_Asked] = []
    for name in one.method.passes:
        if request_of(one, name) is not None:
            scopes = [getattr(request_of(one, each), "scope", "") for each in _passes_behind(one, name)]
            requests.append(_Asked(name, _depends(one, name), "model" in scopes))
    return requests


def _passes_behind(one: PreparedStep, name: str) -> list[str]:
    """A pass and the earlier ones that it needs, directly or not."""
    names = [name]
    for each in names:
        named = {key for fn in _functions(one, each) for key in parameters(fn)}
        names += [key for key in one.method.passes if key in named and key not in names]
    return names


def _functions(one: PreparedStep, name: str) -> list[Callable[..., Any]]:
    """All functions that take part in answering a pass: the method's `ask` and the functions of its request."""
    request = request_of(one, name)
    values = [getattr(request, field.name) for field in fields(request)] if request is not None else []
    return [one.method.passes[name].ask, *(fn for fn in values if callable(fn))]
