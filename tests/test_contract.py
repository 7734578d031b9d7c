"""The public checks, on every method there is; and that nothing escapes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from polyak import methods, testing
from polyak.methods import Law, Method, registry

methods.load_all()

CASES = [
    pytest.param(m, check, id=f"{m.name}-{check.__name__}")
    for m in registry.values()
    for check in testing.checks_for(m)
]


@pytest.mark.parametrize(("method", "check"), CASES)
def test_a_method_does_what_it_claims(method: Method, check: Any):
    check(method)


def test_every_law_has_a_check():
    assert set(testing.LAWS) == set(Law)


def test_every_file_of_the_folder_declares_the_method_of_its_name():
    folder = Path(methods.__file__).parent
    names = {file.stem for file in folder.glob("[!_]*.py")}
    assert names == {m.name for m in registry.values() if m.fn.__module__ == f"{methods.__name__}.{m.name}"}


@pytest.mark.parametrize("method", registry.values(), ids=registry)
def test_a_method_says_where_it_is_from_what_each_argument_is_and_has_a_twin_if_elementwise(method: Method):
    assert method.source
    for name in (*method.inputs, *method.settings):
        assert f"{name}: " in (method.fn.__doc__ or ""), f"the docstring does not explain {name!r}"
    assert method.kernel_form or Law.ELEMENTWISE not in method.laws  # those get whole tensors, and no twin


def test_registering_a_name_twice_is_refused():
    from polyak.errors import DeclarationError

    with pytest.raises(DeclarationError, match="both declare the method 'linear'"):
        methods.method("linear", source="nobody")(registry["linear"].fn)
