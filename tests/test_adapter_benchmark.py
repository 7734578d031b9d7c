"""The benchmark of adapters runs, and keeps results in the form that the page is made from."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_a_run_keeps_what_it_measured(tmp_path):
    pytest.importorskip("peft")
    script, results = ROOT / "benchmarks" / "adapter_speed.py", tmp_path / "results.json"
    command = [sys.executable, script, "--shape", "tiny", "--runs", "1", "--work", tmp_path, "--results", results]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found, kept = json.loads(results.read_text()), json.loads((ROOT / "benchmarks" / "adapters.json").read_text())
    assert found.keys() == kept.keys()
    ours, theirs, best = found["rows"]
    assert ours["modules"] == 14
    assert best["error"] <= ours["error"] <= theirs["error"] + 1e-6
    assert "times as long" in done.stdout
