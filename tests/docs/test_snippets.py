"""What the pages say can be typed is typed, and what they say is printed is compared."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .models import write_all
from .snippets import assert_prints, snippets

ROOT = Path(__file__).parents[2]
# `docs/reference` is written when the site is built.
COMMITTED = [*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "symptoms").glob("*.md")]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(COMMITTED)]


def runs(page: Path) -> bool:
    return any(s.language in ("bash", "python") for s in snippets(page.read_text(encoding="utf-8")))


RUNNABLE = [page for page in PAGES if runs(page)]


@pytest.mark.parametrize("page", RUNNABLE, ids=lambda p: p.name)
def test_every_snippet_runs_and_prints_what_the_page_says(page: Path, tmp_path: Path):
    imported = re.findall(r"^(?:import|from) (torch|transformers)", page.read_text(encoding="utf-8"), re.MULTILINE)
    if lacking := [name for name in imported if importlib.util.find_spec(name) is None]:
        pytest.skip(f"the page's snippets import {', '.join(lacking)}, which is not installed")
    write_all(tmp_path)
    (tmp_path / "my-mergekit-recipe.yml").write_text(MERGEKIT, encoding="utf-8")
    command = [sys.executable, str(Path(__file__).with_name("snippets.py")), str(page)]
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr


MERGEKIT = """
merge_method: linear
models:
  - {model: ./maths, parameters: {weight: 1}}
  - {model: ./code, parameters: {weight: 1}}
"""


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_blocks_that_are_not_run_are_of_kinds_that_need_no_running(page: Path):
    kinds = {s.language for s in snippets(page.read_text(encoding="utf-8")) if not s.file}
    assert kinds <= {"bash", "python", "text", "sh", "yaml", "toml", ""}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_and_make_targets_exist(page: Path):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!#)([^)#]+)(?:#[^)]*)?\)", text):
        assert "://" in target or (page.parent / target).exists(), f"{page.name} links to {target}"
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for name in re.findall(r"(?:`|^)make ([a-z-]+)", text, re.MULTILINE):
        assert name in targets, f"{page.name} speaks of `make {name}`"


def test_the_comparison_notices_another_word_and_takes_dots_for_anything():
    assert_prints("a 1\nb 2\n", "a ...\nb 2", "here")
    with pytest.raises(AssertionError, match="here says"):
        assert_prints("a 1\nb 2\n", "a ...\nb 3", "here")
