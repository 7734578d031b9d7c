"""Runs commands in this process: starting Python for each takes longer than the work."""

from __future__ import annotations

import sys

import pytest

from polyak.cli import main


@pytest.fixture
def polyak(capsys, monkeypatch):
    def run(place, *arguments, code=0):
        monkeypatch.chdir(place)
        monkeypatch.setattr(sys, "argv", ["polyak", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
            sys.exit(0)
        printed = capsys.readouterr()
        assert (ended.value.code or 0) == code, printed.err
        return printed.err if code else printed.out

    return run
