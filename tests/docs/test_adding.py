"""The example of a method also works as a separate package."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

from .snippets import snippets

PAGE = Path(__file__).parents[2] / "docs" / "adding-a-method.md"


def test_the_example_is_found_through_its_entry_point(tmp_path):
    files = {s.file: s.text for s in snippets(PAGE.read_text(encoding="utf-8")) if s.file}
    project = tomllib.loads(files["pyproject.toml"])["project"]
    (tmp_path / "long_average.py").write_text(files["long_average.py"])
    installed = tmp_path / f"long_average-{project['version']}.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = [f"{name} = {where}" for name, where in project["entry-points"]["polyak.methods"].items()]
    (installed / "entry_points.txt").write_text("\n".join(["[polyak.methods]", *lines, ""]))
    command = [sys.executable, "-m", "polyak", "methods", "long_average"]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Average the task vectors and rescale" in done.stdout
