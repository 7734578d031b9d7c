"""The examples of extensions work as packages of somebody else, found through their entry points."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from .snippets import snippets

DOCS = Path(__file__).parents[2] / "docs"
EXTENSIONS = {
    "method": (["methods", "long_average"], "Average the task vectors and rescale"),
    "statistic": (["measure", "input-power", "--help"], "Exponent of the inputs' magnitudes."),
    "learner": (["learn", "list"], "score_softmax: Average models with weights softmax"),
    "task": (
        ["evaluate", "line.npz", "--task", "task.yaml"],
        "this kind of task needs a function that makes the module",
    ),
    "average": (
        ["-c", "from polyak.averaging import live; print(live.resolve('growing').summary)"],
        "Average whose weights grow linearly",
    ),
    "format": (["inspect", "line.npz"], "layer.weight"),
    "training-recipe": (["train", "list"], "seeds: Train copies of one model that differ in their seeds"),
}


def page_of(extension: str) -> Path:
    """The page about an extension."""
    article = "an" if extension[0] in "aeiou" else "a"
    return DOCS / f"adding-{article}-{extension}.md"


def install(page: str, folder: Path) -> list[str]:
    """Put the page's package into a folder, as pip would; the names of its modules."""
    files = {s.file: s.text for s in snippets(page_of(page).read_text(encoding="utf-8")) if s.file}
    project = tomllib.loads(files["pyproject.toml"])["project"]
    ((group, entries),) = project["entry-points"].items()
    installed = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    installed.mkdir()
    about = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (installed / "METADATA").write_text(about)
    lines = [f"{name} = {where}" for name, where in entries.items()]
    (installed / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines, ""]))
    for module in entries.values():
        (folder / f"{module}.py").write_text(files[f"{module}.py"])
    return list(entries.values())


@pytest.mark.parametrize("page", EXTENSIONS)
def test_an_extension_of_one_file_is_found_through_its_entry_point(page, tmp_path):
    if page in ("statistic", "task"):
        pytest.importorskip("torch")
    assert len(install(page, tmp_path)) == 1  # the cost of adding one
    if page == "task":
        install("format", tmp_path)
    np.savez(tmp_path / "line.npz", **{"layer.weight": np.ones((1, 2), np.float32)})
    (tmp_path / "task.yaml").write_text("kind: regression\ndata: rows.csv\n")
    (tmp_path / "rows.csv").write_text("inputs,target\n1,2\n")
    arguments, printed = EXTENSIONS[page]
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    called = arguments if arguments[0] == "-c" else ["-m", "polyak", *arguments]
    done = subprocess.run(
        [sys.executable, *called], cwd=tmp_path, env=os.environ | {"PYTHONPATH": path},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == (7 if page == "task" else 0), done.stderr
    assert printed in done.stdout + done.stderr
