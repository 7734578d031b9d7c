"""What every test may rely on."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

from . import marks, skips

ROOT = Path(__file__).parents[1]


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(marks)
    config.pluginmanager.register(skips)
    settings.register_profile("polyak", deadline=None)  # a busy machine takes longer
    settings.load_profile("polyak")


@pytest.fixture(autouse=True, scope="session")
def _every_kernel_variant_is_declared():
    """Fail what asks for a variant of polyak's own kernels that a wheel would not contain."""
    from polyak.kernels.variants import variants
    from polyak.native import Kernel, _library
    from polyak.native._signature import LAYOUT, spelled

    declared = {f"{kernel.identity}({spelled(key)})" for kernel, key in variants()}
    load, is_forced = Kernel._load, os.environ.get(_library.VARIABLE, "") not in {"", _library.NONE}

    def checked(self: Kernel, key):
        variant = f"{self.identity}({spelled(key)})"
        is_plain = all(kind[2] == LAYOUT for kind in key if isinstance(kind, tuple))  # others run on copies
        if self.__module__.startswith("polyak.") and is_plain and variant not in declared:
            raise AssertionError(f"{variant} is not declared: annotate its kernel, or see kernels/variants.py.")
        if is_forced and variant in declared and _library.find(self.identity, key) is None:
            raise AssertionError(f"{variant} is not in the library, so it would be compiled here.")
        return load(self, key)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Kernel, "_load", checked)
        yield


@pytest.fixture(autouse=True, scope="session")
def _nothing_waits_for_the_disk():
    """No test sees what a power cut would lose, and each merge would wait nine times for a disk. Processes do wait."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("fsync", "fdatasync"):
            patch.setattr(os, name, os.fstat, raising=False)  # which refuses what is no open file, too
        yield


@pytest.fixture(autouse=True)
def _modules_of_users_are_forgotten(monkeypatch: pytest.MonkeyPatch):
    """Tests of commands run in one process; a user's module of one test must not be that of another."""
    monkeypatch.delitem(sys.modules, "nets", raising=False)
    yield
    sys.modules.pop("nets", None)


@pytest.fixture
def polyak(place, monkeypatch, capsys):
    """The command, in this process and in the folder `place` of the module that asks: importing torch is slow."""
    from polyak.cli import main

    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(ROOT)

    def run(*arguments, code=0):
        monkeypatch.setattr(sys, "argv", ["polyak", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert (ended.value.code or 0) == code, said.err
        return said.out if code == 0 else said.err

    return run
