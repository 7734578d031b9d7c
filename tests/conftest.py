"""What every test may rely on."""

from __future__ import annotations

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
