"""Models and tasks that are written once."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    pytest.importorskip("torch")
    from . import problems

    folder = tmp_path_factory.mktemp("learn")
    problems.write_world(folder)
    return folder


@pytest.fixture(scope="session")
def golden(tmp_path_factory):
    """The models of the golden vectors, and a task whose calibration examples are theirs."""
    pytest.importorskip("torch")
    from . import problems

    folder = tmp_path_factory.mktemp("golden")
    problems.write_golden(folder)
    parts = {"calibration": [0, 3], "validation": [3, 6], "test": [6, 9]}
    splits = {split: {"data": "task-0.jsonl", "rows": rows} for split, rows in parts.items()}
    return folder, problems.task(folder, factory=problems.Linear, splits=splits)
