from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("accelerate")


@pytest.fixture
def points(tmp_path: Path) -> Path:
    """A folder with the small problem."""
    from . import problem

    problem.write(tmp_path)
    return tmp_path
