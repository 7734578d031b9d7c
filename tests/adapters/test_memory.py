"""Merges of adapters stay within a budget, or say that they cannot."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from polyak import adapters, recipe
from polyak.cli import app
from polyak.errors import BudgetError

from .made import write_adapter

LARGE = {f"model.layers.{i}.q_proj": (1024, 768) for i in range(2)}
SCRIPT = """
import sys, threading, time
from pathlib import Path
from polyak import adapters, recipe

def anonymous():
    return 1024 * int(next(l for l in open("/proc/self/status") if l.startswith("RssAnon")).split()[1])

def watch():
    while True:
        peaks.append(anonymous())
        time.sleep(0.001)

peaks = []
threading.Thread(target=watch, daemon=True).start()
asked = recipe.read({"models": ["a", "b"], "method": sys.argv[2], "adapter": {"rank": 4}}, Path(sys.argv[1]))
adapters.merge(asked, Path(sys.argv[1]) / "out", memory=int(sys.argv[3]))
print(max(peaks))
"""


def asked(place: Path, method: str):
    return recipe.read({"models": ["a", "b"], "method": method, "adapter": {"rank": 4}}, place)


def least(place: Path, method: str) -> int:
    """The bytes that one worker needs, as the refusal says."""
    with pytest.raises(BudgetError) as caught:
        adapters.merge(asked(place, method), place / "out", memory=1_000_000)
    found = re.search(r"needs about (\d+) bytes of memory with one worker; --memory allows 1000000", str(caught.value))
    assert found
    return int(found[1])


@pytest.mark.parametrize("method", ["linear", "ties"])
def test_a_budget_of_what_one_worker_needs_is_kept(tmp_path: Path, method: str):
    for seed, name in enumerate("ab"):
        write_adapter(tmp_path / name, seed, 64, LARGE)
    budget = least(tmp_path, method)
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), method, str(budget)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 10_000_000 < int(done.stdout) <= budget
    one = (tmp_path / "out" / "adapter_model.safetensors").read_bytes()
    adapters.merge(asked(tmp_path, method), tmp_path / "out", workers=2, force=True)
    assert (tmp_path / "out" / "adapter_model.safetensors").read_bytes() == one


def test_the_command_takes_a_budget_and_knows_no_resumption(tmp_path: Path):
    for seed, name in enumerate("ab"):
        write_adapter(tmp_path / name, seed)
    each = [str(tmp_path / name) for name in "ab"]
    refused = CliRunner().invoke(app, ["lora", "merge", *each, str(tmp_path / "out"), "--memory", "1MB"])
    assert isinstance(refused.exception, BudgetError)
    assert CliRunner().invoke(app, ["lora", "merge", *each, str(tmp_path / "out"), "--memory", "1GB"]).exit_code == 0
    unknown = CliRunner().invoke(app, ["lora", "merge", *each, str(tmp_path / "again"), "--resume"])
    assert unknown.exit_code == 2
    assert not (tmp_path / "again").exists()
