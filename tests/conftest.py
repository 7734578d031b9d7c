"""What every test may rely on."""

from __future__ import annotations

import sys

import pytest


@pytest.fixture(autouse=True)
def _modules_of_users_are_forgotten(monkeypatch: pytest.MonkeyPatch):
    """Tests of commands run in one process; a user's module of one test must not be that of another."""
    monkeypatch.delitem(sys.modules, "nets", raising=False)
    yield
    sys.modules.pop("nets", None)
