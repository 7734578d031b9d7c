"""Checks of a method's declaration and docstring."""

from __future__ import annotations

import inspect

from ..methods import Law, Method
from ._asserts import assert_that
from ._cases import plain
from ._check import Case, check
from ._kernels import has_kernel


@check(plain, remedy="pass `source=` to `@method`: authors, year, title, identifier")
def check_source_is_named(method: Method, _: Case) -> None:
    assert_that(bool(method.source.strip()), "it does not say where it was published")


@check(plain, remedy="explain each parameter in a line `name: ...` under `Args:` in the docstring")
def check_parameters_are_explained(method: Method, _: Case) -> None:
    explained = _section(method, "Args:")
    missing = [name for name in (*method.inputs, *method.settings) if f"\n{name}: " not in explained]
    assert_that(not missing, f"the docstring does not explain {', '.join(missing)}")


@check(
    plain,
    remedy="add a section `Departures:` to the docstring: where the default differs from the paper and from the "
    "authors' code, or `None known.`",
)
def check_departures_are_told(method: Method, _: Case) -> None:
    assert_that(bool(_section(method, "Departures:").strip()), "the docstring does not tell departures from the source")


@check(plain, remedy="register a kernel, or drop ELEMENTWISE from `laws`")
def check_elementwise_has_a_kernel(method: Method, _: Case) -> None:
    """Tiles of a method without a kernel are merged by its definition, many times slower."""
    assert_that(has_kernel(method) or Law.ELEMENTWISE not in method.laws, "it claims ELEMENTWISE and has no kernel")


def _section(method: Method, title: str) -> str:
    """The text of a section of the docstring, dedented, each line after a line break."""
    lines = (inspect.getdoc(method.fn) or "").splitlines()
    if title not in lines:
        return ""
    below = lines[lines.index(title) + 1 :]
    end = next((at for at, line in enumerate(below) if line and not line.startswith(" ")), len(below))
    return "".join(f"\n{line}" for line in inspect.cleandoc("\n" + "\n".join(below[:end])).splitlines())
