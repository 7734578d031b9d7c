"""The public checks, on every method there is; and that nothing escapes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from polyak import methods, testing
from polyak.methods import Law, Method, registry
from polyak.testing._kernels import has_kernel

methods.load_all()


@pytest.mark.slow
@testing.parametrize_with_checks(registry.values())
def test_a_method_does_what_it_claims(check: Callable[[], None]):
    check()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("method", [m for m in registry.values() if has_kernel(m)], ids=lambda method: method.name)
def test_a_kernel_equals_its_definition_with_other_words_and_inputs(method: Method, seed: int):
    testing.check_method(method, seed=seed, only="check_kernel_equals_definition")


def test_every_law_has_a_check():
    assert set(testing.LAWS) == set(Law)


def test_every_file_of_the_folder_declares_the_method_of_its_name():
    folder = Path(methods.__file__).parent
    names = {file.stem for file in folder.glob("[!_]*.py")}
    assert names == {m.name for m in registry.values() if m.fn.__module__ == f"{methods.__name__}.{m.name}"}


def test_registering_a_name_twice_is_refused():
    from polyak.errors import DeclarationError

    with pytest.raises(DeclarationError, match="both declare the method 'linear'"):
        methods.method("linear", source="nobody")(registry["linear"].fn)
