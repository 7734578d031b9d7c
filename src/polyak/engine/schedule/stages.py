"""Stages of a group of steps: first passes sweep by sweep, then the merge."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ...methods import Order, Request, Sum, Top, call, parameters
from .. import tuning
from ..first_passes.base import RunningPass
from ..step.buffers import Buffers
from ..step.chunks import Chunk, bundles, chunks_of
from ..step.prepared import PreparedStep

Task = Callable[[Buffers], None]
Finish = Callable[[Sequence[Chunk], Buffers], None]  # merges chunks and hands the results on


class Group:
    """A group of steps and its remaining stages.

    A stage is a list of tasks that may run in any order; `next_stage` is called when all of one are done.
    """

    def __init__(
        self, members: Sequence[PreparedStep], finish: Finish | None, is_missing: Callable[[Chunk], bool]
    ) -> None:
        self._members, self._finish, self._is_missing = members, finish, is_missing
        self._waves = _waves(members[0]) if members[0].step.method else []
        self._current: list[tuple[list[str], RunningPass, list[PreparedStep]]] = []
        self._visits: list[list[Any]] = []
        self._merged = False

    @property
    def nbytes(self) -> int:
        """Bytes that are read if every pass takes one sweep."""
        return sum(member.step.nbytes_read for member in self._members) * (
            len(self._waves) + (self._finish is not None)
        )

    def next_stage(self) -> list[Task]:
        """The next tasks; none when the group is finished."""
        if self._merged or not self._missing_chunks():
            return []
        while True:
            self._absorb()
            if not self._current and not self._begin_wave():
                break
            if tasks := self._sweep():
                return tasks
            self._visits = []
            self._settle(list(self._current))
        self._merged = True
        return [self._merge_task(bundle) for bundle in bundles(self._missing_chunks())] if self._finish else []

    def _missing_chunks(self) -> list[Chunk]:
        return [chunk for member in self._members for chunk in chunks_of(member) if self._is_missing(chunk)]

    def _merge_task(self, chunks: list[Chunk]) -> Task:
        def task(buffers: Buffers) -> None:
            assert self._finish is not None
            self._finish(chunks, buffers)

        return task

    def _begin_wave(self) -> bool:
        """Start the passes that can be answered together now; False if there are none left."""
        if not self._waves:
            return False
        from ..first_passes.dispatch import start_pass

        for names in _sharing(self._members[0], self._waves.pop(0)):
            for members in self._by_scope(names[0]):
                requests = [_needed(members[0], name) for name in names]
                self._current.append((names, start_pass(requests, members), members))
        return True

    def _by_scope(self, name: str) -> Iterator[list[PreparedStep]]:
        request = request_of(self._members[0], name)
        if getattr(request, "scope", "tensor") == "model":
            yield list(self._members)
        else:
            yield from ([member] for member in self._members if member.step.out.numel)

    def _sweep(self) -> list[Task]:
        tasks: list[Task] = []
        self._visits = []
        for _, current, _ in self._current:
            chunks = current.sweep()
            visits: list[Any] = [None] * len(chunks)
            self._visits.append(visits)
            numbered = {id(chunk): i for i, chunk in enumerate(chunks)}
            for bundle in bundles(chunks):
                tasks.append(_visit_task(current, bundle, [numbered[id(chunk)] for chunk in bundle], visits))
        return _joined(tasks)

    def _absorb(self) -> None:
        """Take in the sweep that has just ended, and keep what needs another."""
        if not self._visits:
            return
        swept = list(zip(self._current, self._visits, strict=True))
        self._visits = []
        self._settle([entry for entry, visits in swept if entry[1].absorb(visits)])

    def _settle(self, finished: list[tuple[list[str], RunningPass, list[PreparedStep]]]) -> None:
        for entry in finished:
            names, running, members = entry
            for member in members:
                member.answers.update(zip(names, running.answers_for(member), strict=True))
            self._current.remove(entry)


def _visit_task(current: RunningPass, chunks: list[Chunk], numbers: list[int], visits: list[Any]) -> Task:
    def task(buffers: Buffers) -> None:
        for number, chunk in zip(numbers, chunks, strict=True):
            visits[number] = current.visit(chunk, buffers)

    return task


def _joined(tasks: list[Task]) -> list[Task]:
    """Many tasks of tiny tensors become few."""
    if len(tasks) <= tuning.GROUP_STEPS:
        return tasks

    def run(part: list[Task]) -> Task:
        def task(buffers: Buffers) -> None:
            for one in part:
                one(buffers)

        return task

    return [run(tasks[i : i + tuning.GROUP_STEPS]) for i in range(0, len(tasks), tuning.GROUP_STEPS)]


def request_of(prepared: PreparedStep, name: str) -> Request | None:
    """The request of a first pass under the step's settings; None if they make the pass unnecessary."""
    return call(prepared.method.passes[name].ask, prepared.step.settings)


def _needed(prepared: PreparedStep, name: str) -> Request:
    request = request_of(prepared, name)
    assert request is not None  # passes that are not needed are in no wave
    return request


def _sharing(prepared: PreparedStep, names: Sequence[str]) -> list[list[str]]:
    """Put passes together that can share their sweeps."""
    from ..first_passes.dispatch import can_share

    shared: list[list[str]] = []
    for name in names:
        for others in shared:
            if can_share(_needed(prepared, others[0]), _needed(prepared, name)):
                others.append(name)
                break
        else:
            shared.append([name])
    return shared


def _waves(prepared: PreparedStep) -> list[list[str]]:
    """First passes in the order in which they can be answered; those of one wave do not need each other.

    Passes that the settings make unnecessary are answered with None at once.
    """
    waves: list[list[str]] = []
    earlier: dict[str, int] = {}
    for name in prepared.method.passes:
        request = request_of(prepared, name)
        if request is None or name in prepared.answers:
            continue
        needs = [earlier[p] for p in _named_by(request) if p in earlier]
        wave = max(needs, default=-1) + 1
        earlier[name] = wave
        waves += [[] for _ in range(wave + 1 - len(waves))]
        waves[wave].append(name)
    return waves


def _named_by(request: Request) -> tuple[str, ...]:
    match request:
        case Top(of=of):
            return (*(parameters(of) if of else ()), *request.needs)
        case Order(of=of):
            return parameters(of) if of else ()
        case Sum(term=term):
            return parameters(term)
        case _:
            return ()


def unneeded_passes(prepared: PreparedStep) -> dict[str, None]:
    """The passes that these settings make unnecessary: the method is given None for them."""
    if prepared.step.method is None:
        return {}
    return {name: None for name in prepared.method.passes if request_of(prepared, name) is None}


def has_model_scope(prepared: PreparedStep) -> bool:
    """True if an unanswered first pass runs over the whole model."""
    if prepared.step.method is None:
        return False
    requests = [request_of(prepared, name) for name in prepared.method.passes if name not in prepared.answers]
    return any(getattr(request, "scope", None) == "model" for request in requests)


def grouped(
    prepared: Sequence[PreparedStep], finish: Finish | None, is_missing: Callable[[Chunk], bool]
) -> list[Group]:
    """Group steps: those whose passes run over the whole model by what they ask, small ones together."""
    for member in prepared:
        member.answers.update(unneeded_passes(member))
    whole: dict[str, list[PreparedStep]] = {}
    groups: list[list[PreparedStep]] = []
    room = 0
    for member in prepared:
        if has_model_scope(member):
            whole.setdefault(ranking_key(member), []).append(member)
            continue
        size, key = member.step.out.numel, _key(member)
        if groups and size <= room and len(groups[-1]) < tuning.GROUP_STEPS and _key(groups[-1][0]) == key:
            groups[-1].append(member)
            room -= size
        else:
            groups.append([member])
            room = tuning.GROUP - size
    return [Group(members, finish, is_missing) for members in (*whole.values(), *groups)]


def ranking_key(member: PreparedStep) -> str:
    """Steps whose passes run over the model together: those that ask the same, whatever their other settings.

    A `scale` that changes over the depth does not cut a model into layers that are ranked apart.
    """
    named = {name for kind in member.method.passes.values() for name in parameters(kind.ask)}
    settings = {name: value for name, value in member.step.settings.items() if name in named}
    return f"{member.method.name} {member.models} {settings}"


def _key(member: PreparedStep) -> object:
    """Steps of one group share their waves, so they must share the method and the passes that it needs."""
    return (member.step.kind, member.step.method and member.step.method.name, tuple(member.answers))
