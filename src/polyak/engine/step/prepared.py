"""A step with everything that its tiles share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ...kernels.philox import Stream, stream
from ...methods import KernelCall, Law, Method, Role, Sum, SumCall, call, moved
from ...native import is_available
from ...planning import Plan, Step
from .device import Device


def prepared_steps(plan: Plan, device: Device | None = None) -> list[PreparedStep]:
    """Prepare the steps of a plan; masks are carried out with the step that they belong to."""
    return [PreparedStep(step, plan.recipe.seed, device) for step in plan.steps if step.kind != "mask"]


@dataclass
class PreparedStep:
    """A step with what its tiles share: settings as arrays, and the answers of its first passes."""

    step: Step
    seed: int
    device: Device | None = None  # where it is merged if that takes the whole tensor; None is the CPU, by NumPy
    answers: dict[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        method = self.step.method
        per_model = [n for n, s in method.settings.items() if s.per_model] if method else []
        self.flat: dict[str, Any] = {
            name: np.array(value, np.float32) if name in per_model else value
            for name, value in self.step.settings.items()
        }
        ones = (1,) * len(self.shape)
        self.columns = {name: v.reshape(-1, *ones) if name in per_model else v for name, v in self.flat.items()}
        self.models = tuple(read.model for read in self.step.reads)
        self.stream = stream(self.seed, self.models, self.step.out.name) if method and method.is_random else None

    @property
    def method(self) -> Method:
        assert self.step.method is not None
        return self.step.method

    @property
    def shape(self) -> tuple[int, ...]:
        """The form of a tile: flat, or rows of the tensor for methods that merge rows apart."""
        laws = self.step.method.laws if self.step.method else {Law.ELEMENTWISE}
        rows = Law.ROWS in laws and Law.ELEMENTWISE not in laws and len(self.step.out.shape) > 1
        return (-1, *self.step.out.shape[1:]) if rows else (-1,)

    def answers_for(self, start: int, stop: int) -> dict[str, Any]:
        """The first passes' answers as entries [start, stop) see them."""
        return {name: moved(answer, start, stop) for name, answer in self.answers.items()}

    @property
    def answers_of_the_model(self) -> dict[str, Any]:
        """Those of first passes that no tensor can answer by itself."""
        requests = {name: call(kind.ask, self.step.settings) for name, kind in self.method.passes.items()}
        scopes = {name: getattr(request, "scope", "tensor") for name, request in requests.items()}
        return {name: answer for name, answer in self.answers.items() if scopes[name] == "model"}

    @cached_property
    def kernel_form(self) -> Callable[..., Any] | None:
        """The method's compiled form; None if there is none, or if this installation cannot run its kernels."""
        form = self.method.kernel_form
        return form if form is not None and is_available(form) else None

    @cached_property
    def kernel_call(self) -> KernelCall | None:
        """The method's kernel with settings and answers of first passes bound, if it is one call."""
        form = self.kernel_form
        if form is None or not self.method.is_fusable:
            return None
        return call(form, self.answers | self.flat | self._random_numbers)

    def sum_call(self, request: Sum) -> SumCall:
        """The kernel of a sum with settings and answers of earlier first passes bound."""
        assert request.kernel is not None
        values = self.answers | self.flat | self._random_numbers | {"models": len(self.models)}
        return call(request.kernel, values)

    @property
    def _random_numbers(self) -> dict[str, Stream | None]:
        """The random numbers of the whole tensor, as the method calls them."""
        return {name: self.uniform(0) for name, role in self.method.inputs.items() if role is Role.UNIFORM}

    def uniform(self, start: int) -> Stream | None:
        return Stream(self.stream.keys, start) if self.stream else None
