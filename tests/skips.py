"""In CI a test may be skipped only for a reason that allowed_skips.txt holds: what is skipped unseen is not tested."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

ALLOWED = Path(__file__).with_name("allowed_skips.txt")
_new: set[str] = set()


def pytest_runtest_logreport(report: Any) -> None:
    _note(report)


def pytest_collectreport(report: Any) -> None:
    _note(report)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _new and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if _new:
        terminalreporter.section(f"skips that {ALLOWED.name} does not allow", red=True)
        for line in sorted(_new):
            terminalreporter.write_line(line)


def _note(report: Any) -> None:
    if os.environ.get("CI") != "true" or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2].removeprefix("Skipped: ")
    line = f"{report.nodeid.partition('::')[0]}: {reason}"
    if line not in ALLOWED.read_text(encoding="utf-8").splitlines():
        _new.add(line)
