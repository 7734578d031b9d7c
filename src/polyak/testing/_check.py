"""A check is one requirement on a method, tried on many cases; a failure includes a remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..methods import Law, Method
from ._problems import Problem


@dataclass(frozen=True)
class Case:
    """A merge to try a method on.

    Attributes:
        name: Its special property, for messages.
        problem: The inputs.
        settings: Settings that the method accepts with them.
    """

    name: str
    problem: Problem
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def merge(self, method: Method, **changed: Any) -> Any:
        """Merge by the definition, with some settings changed."""
        return self.problem.merge(method, {**self.settings, **changed})


Cases = Callable[[Method, int], Iterator[Case]]


@dataclass(frozen=True)
class Check:
    """One requirement on a method; call it with the method, and a seed for the random numbers of its cases.

    Attributes:
        run: Tries one case; raises an AssertionError if the method fails.
        cases: From the method and a seed to the cases.
        remedy: Advice for the author of a method that fails.
        law: The law that is tested (default: none; every method has to pass).
    """

    run: Callable[[Method, Case], None]
    cases: Cases
    remedy: str
    law: Law | None = None

    @property
    def name(self) -> str:
        return self.run.__name__

    def __call__(self, method: Method, seed: int = 0) -> None:
        """Try every case.

        Raises:
            AssertionError: the first case that fails, with its settings, the difference and the remedy.
        """
        for case in self.cases(method, seed):
            try:
                self.run(method, case)
            except Exception as error:
                raise AssertionError(self._report(method, case, error, seed)) from error

    def _report(self, method: Method, case: Case, error: Exception, seed: int) -> str:
        law = f" (law {self.law.name}: {self.law.value})" if self.law else ""
        problem = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
        return (
            f"method {method.name!r} fails {self.name}{law}, case {case.name!r} with settings {dict(case.settings)}: "
            f"{problem}\n"
            f"Remedy: {self.remedy}\n"
            f"To reproduce: polyak.testing.check_method({method.name}, seed={seed}, only={self.name!r})"
        )


def check(cases: Cases, *, remedy: str, law: Law | None = None) -> Callable[[Callable[[Method, Case], None]], Check]:
    """Make a check of a function that tries one case."""
    return lambda run: Check(run, cases, remedy, law)
