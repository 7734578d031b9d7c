"""Half a minute of the campaign: `make fuzz` runs longer ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .targets import made

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_half_a_minute_of_mutated_files_breaks_no_promise(tmp_path: Path):
    """In a process of its own, since the campaign bounds the memory of its process."""
    command = [
        sys.executable,
        "-c",
        "import sys; sys.path.insert(0, sys.argv.pop(1)); from tests.fuzz.__main__ import main; main()",
    ]
    done = subprocess.run([*command, str(ROOT), "30"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (counts,) = (line for line in done.stdout.splitlines() if " of " in line)
    (tmp_path / "kinds").mkdir()
    for name in made(tmp_path / "kinds"):
        accepted, _, runs = counts.partition(f"{name} ")[2].partition(",")[0].partition(" of ")
        assert 0 <= int(accepted) < int(runs), counts
