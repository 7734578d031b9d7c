"""Merges write the bytes whose digests are committed.

After a deliberate change, and for a new method: `python tests/replay/replay.py /tmp/replay.json --commit`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .case import Case
from .compare import differences
from .digests import together
from .replay import COMMITTED, all_cases, replayed

CASES = all_cases()
DIGESTS: dict[str, Any] = json.loads(COMMITTED.read_text())


def rooms(cases: list[Case]) -> dict[str, list[Case]]:
    """Cases by the first two parts of their names: one test per method and per kind of recipe."""
    found: dict[str, list[Case]] = {}
    for case in cases:
        found.setdefault("/".join(case.name.split("/")[:2]), []).append(case)
    return found


QUICK = rooms([case for case in CASES if case.quick and case.portable])


@pytest.mark.slow
@pytest.mark.parametrize("cases", QUICK.values(), ids=QUICK.keys())
def test_merges_write_the_committed_bytes(cases: list[Case], tmp_path: Path):
    failures: dict[str, Exception] = {}
    found = replayed(cases, tmp_path, failures.__setitem__)
    assert failures == {}
    assert {name: together(files) for name, files in found.items()} == {
        case.name: DIGESTS["portable"].get(case.name, "no digest is committed") for case in cases
    }


def test_every_case_and_so_every_registered_method_has_a_committed_digest():
    assert {case.name for case in CASES if case.portable} == set(DIGESTS["portable"])
    assert {case.name for case in CASES if not case.portable} == set(DIGESTS["elsewhere"])


def test_names_of_cases_are_unique():
    assert len({case.name for case in CASES}) == len(CASES)


def test_a_comparison_names_what_differs_and_what_failed():
    old = {"cases": {"a": {"x": "1", "y": "1"}, "b": {"x": "1"}}, "failed": ["d"]}
    new = {"cases": {"a": {"x": "2", "z": "1"}, "d": {}}, "failed": ["b"]}
    assert differences(old, old) == []
    assert differences(old, new) == [
        ("a", "x", "differs"),
        ("a", "y", "gone"),
        ("a", "z", "new"),
        ("b", "", "merged before, failed now"),
        ("d", "", "failed before, merged now"),
    ]
