"""A problem in ranges of entries, as the engine evaluates it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from ..methods import FirstPass, Law, Masks, Method, Order, Role, Top, answer, call, moved, settings_as_arrays, supplied
from ._kernels import ranked_by_kernel
from ._problems import Problem


class Pieces:
    """A problem with settings bound and first passes answered, to be evaluated in ranges as the engine does.

    Attributes:
        stacks: Tensors, deltas, base and statistics by name; scalars as vectors of one entry, as the engine has them.
        requests: The first passes' requests by name.
        answers: Their answers for the whole tensor.
        arguments: The definition's arguments for the whole tensor.
    """

    def __init__(self, method: Method, problem: Problem, settings: Mapping[str, Any]) -> None:
        self.method, self.bound = method, method.bind(settings, problem.k)
        self.keys, self.models = problem.keys, problem.k
        problem = problem.map(lambda array: array.reshape(*array.shape, 1) if problem.base.ndim == 0 else array)
        self.stacks = _stacks(method, problem)
        statistics = supplied(method.name, method.statistics, problem.statistics, problem.tensors, self.bound)
        self._absent = {name: None for name, stack in statistics.items() if stack is None}
        self.stacks |= {name: stack for name, stack in statistics.items() if stack is not None}
        self._names = {name: "tensor" for name, role in method.inputs.items() if role is Role.NAME}
        settings = settings_as_arrays(method, self.bound, problem.tensors)
        self.arguments: dict[str, Any] = {**self.stacks, **self._absent, **settings, **self._names}
        asks = {name: kind.ask for name, kind in method.inputs.items() if isinstance(kind, FirstPass)}
        self.requests: dict[str, Any] = {name: call(ask, self.bound) for name, ask in asks.items()}
        for name, request in self.requests.items():  # in order: one pass may name the answers of those before it
            self.arguments[name] = None if request is None else answer(request, self.arguments)

    @property
    def answers(self) -> dict[str, Any]:
        return {name: self.arguments[name] for name in self.requests}

    @property
    def entries(self) -> int:
        return math.prod(self.stacks["base"].shape)

    def slab(self, start: int, stop: int) -> dict[str, Any]:
        """The definition's arguments for the entries [start, stop), flat, or in rows if rows are merged separately."""
        answers = {name: moved(whole, start, stop) for name, whole in self.answers.items()}
        return {**self._cut(start, stop), **self._columns, **answers}

    @cached_property
    def _columns(self) -> dict[str, Any]:
        """The settings of slabs."""
        return settings_as_arrays(self.method, self.bound, self._cut(0, self._unit)["tensors"])

    def _cut(self, start: int, stop: int) -> dict[str, Any]:
        """Writable copies of the stacks' entries, and the arguments that all entries share."""
        cut = {n: self._shaped(self._flat(stack)[..., start:stop].copy()) for n, stack in self.stacks.items()}
        return {**cut, **self._absent, **self._names}

    @cached_property
    def kernel_answers(self) -> dict[str, Any]:
        """Answers; rankings are of the kernel's own numbers, with which it compares the thresholds."""
        answers, shape = self.answers, self.stacks["base"].shape
        for name, request in self.requests.items():
            ranked = None
            if isinstance(request, Top | Order):
                ranked = ranked_by_kernel(request, self._tile(0, self.entries, answers))
            if ranked is not None:
                arguments = {**self.arguments, "ranked": ranked.reshape(-1, *shape)}
                answers[name] = answer(replace(request, of=lambda ranked: ranked), arguments)
        return answers

    def tile(self, start: int, stop: int) -> dict[str, Any]:
        """The kernel's arguments for the entries [start, stop)."""
        return self._tile(start, stop, self.kernel_answers)

    def _tile(self, start: int, stop: int, answers: Mapping[str, Any]) -> dict[str, Any]:
        from ..kernels.philox import Stream

        moved_answers = {name: moved(answer, start, stop) for name, answer in answers.items()}
        kinds = self.method.settings
        numbers = {n: np.array(v, np.float32) if kinds[n].per_model else v for n, v in self.bound.items()}
        drawn = {n: Stream(self.keys, start) for n, role in self.method.inputs.items() if role is Role.UNIFORM}
        return {**self._cut(start, stop), **moved_answers, **numbers, **drawn}

    def ranges(self, cuts: Sequence[int], unit: int | None = None) -> Iterator[tuple[int, int]]:
        """Ranges of entries near some cuts that can be evaluated apart: of whole units (default: the method's)."""
        size = unit or self._unit
        return pairwise(sorted({min(-(-cut // size) * size, self.entries) for cut in cuts}))

    def masks(self, start: int, stop: int) -> Masks:
        """The entries of [start, stop) that belong to each model, (k, stop - start), and the scales."""
        assert self.method.masks is not None
        return call(self.method.masks, self.slab(start, stop))

    @property
    def _unit(self) -> int:
        """Number of entries to evaluate together: a row if rows are merged separately; a vector is one row."""
        shape = self.stacks["base"].shape
        return (math.prod(shape[1:]) if len(shape) > 1 else self.entries) if self._by_rows else 1

    @property
    def _by_rows(self) -> bool:
        return Law.ROWS in self.method.laws and Law.ELEMENTWISE not in self.method.laws

    def _shaped(self, flat: Any) -> Any:
        shape = self.stacks["base"].shape
        return flat.reshape(*flat.shape[:-1], -1, *shape[1:]) if self._by_rows and len(shape) > 1 else flat

    def _flat(self, stack: Any) -> Any:
        return stack.reshape(*stack.shape[: stack.ndim - self.stacks["base"].ndim], self.entries)


def _stacks(method: Method, problem: Problem) -> dict[str, Any]:
    """Tensors, deltas and base, under these names and under the method's."""
    arrays = {Role.TENSORS: problem.tensors, Role.BASE: problem.base, Role.UNIFORM: problem.chance}
    arrays[Role.DELTAS] = problem.tensors - problem.base
    named = {name: arrays[role] for name, role in method.inputs.items() if isinstance(role, Role) and role in arrays}
    return named | {"tensors": problem.tensors, "deltas": arrays[Role.DELTAS], "base": problem.base}
