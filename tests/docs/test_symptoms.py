"""Each page of symptoms begins with the messages that the program prints: they are provoked and compared."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from polyak.cli import main
from polyak.storage import staging as draft

from .models import write_all
from .snippets import snippets

PAGES = Path(__file__).parents[2] / "docs" / "symptoms"
TIES = "base: ./base\nmodels: [./maths, ./code]\nmethod: ties\n"
Say = Callable[..., str]
PROVOKED: dict[str, list[Callable[[Say, pytest.MonkeyPatch], str]]] = {}


def provokes(page: str):
    """Note what provokes the next message of a page."""

    def note(fn: Callable[[Say, pytest.MonkeyPatch], str]) -> Callable[[Say, pytest.MonkeyPatch], str]:
        PROVOKED.setdefault(page, []).append(fn)
        return fn

    return note


@provokes("out-of-memory")
def too_small_a_budget(say, patch):
    return say("merge", TIES, "--memory", "100MB")


@provokes("slow")
def kernels_that_are_not_in_the_cache(say, patch):
    # A process of its own: kernels that this one has loaded are not compiled again.
    Path("recipe.yaml").write_text("models: [./maths, ./code]\nmethod: linear\n")
    command = [sys.executable, "-m", "polyak", "merge", "recipe.yaml", "merged"]
    environment = os.environ | {"NUMBA_CACHE_DIR": str(Path("cache").resolve())}
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stderr
    return "".join(line for line in printed.splitlines(keepends=True) if not line.startswith("merging: "))


@provokes("chance-level-output")
def models_of_different_ancestry(say, patch):
    return say("plan", "models: [./maths, ./stranger]\nmethod: linear\n", "--probe").splitlines()[-1]


@provokes("shape-mismatch")
def another_vocabulary(say, patch):
    return say("plan", "models: [./maths, ./more-words]\nmethod: linear\n")


@provokes("shape-mismatch")
def heads_of_tasks(say, patch):
    return say("plan", "base: ./base\nmodels: [./reviews, ./topics]\nmethod: ties\n")


@provokes("not-finite")
def an_input_with_nan(say, patch):
    return say("merge", "models: [./maths, ./diverged]\nmethod: linear\n")


@provokes("not-finite")
def a_result_that_its_dtype_cannot_hold(say, patch):
    return say("merge", "models: [./maths]\nmethod: passthrough\nsettings: {scale: 1.0e+7}\ndtype: float16\n")


@provokes("cannot-write")
def something_is_there(say, patch):
    Path("merged").mkdir()
    Path("merged/notes.txt").touch()
    return say("merge", TIES)


@provokes("cannot-write")
def what_is_there_is_no_model(say, patch):
    return say("merge", TIES, "--force")


@provokes("cannot-write")
def over_an_input(say, patch):
    return say("merge", TIES, "--force", out="base")


@provokes("cannot-write")
def an_unfinished_merge(say, patch):
    with patch.context() as broken:
        broken.setattr(draft.Draft, "publish", _dies)
        assert "the system gives no more memory" in say("merge", TIES, out="new")
    return say("merge", TIES, out="new")


def _dies(*_):
    raise MemoryError


@provokes("cannot-write")
def an_unfinished_merge_of_something_else(say, patch):
    return say("merge", TIES + "seed: 1\n", "--resume", out="new")


@provokes("cannot-write")
def another_merge_at_work(say, patch):
    with Path(".new.polyak/lock").open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return say("merge", TIES, "--resume", out="new")


@provokes("cannot-write")
def a_full_disk(say, patch):
    return _refused(say, patch, errno.ENOSPC)


@provokes("cannot-write")
def no_permission(say, patch):
    return _refused(say, patch, errno.EACCES)


def _refused(say: Say, patch: pytest.MonkeyPatch, number: int) -> str:
    def pwrite(*_):
        raise OSError(number, os.strerror(number))

    with patch.context() as broken:
        broken.setattr(os, "pwrite", pwrite)
        return say("merge", TIES, out="elsewhere")


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted(path.stem for path in PAGES.glob("*.md")))
def test_a_page_begins_with_the_messages_that_the_program_prints(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_all(tmp_path)

    def say(command: str, recipe: str, *options: str, out: str = "merged") -> str:
        Path("recipe.yaml").write_text(recipe)
        place = [out] if command == "merge" else []
        monkeypatch.setattr(sys, "argv", ["polyak", command, "recipe.yaml", *place, *options])
        with pytest.raises(SystemExit):
            main()
        printed = capsys.readouterr()
        # A machine whose kernels are not compiled yet says so first; a slow one shows progress.
        passing = ("compiling kernels", "merging: ")
        said = [line for line in printed.err.splitlines(keepends=True) if not line.startswith(passing)]
        return "".join(said) or printed.out

    stated = [as_compared(s.text) for s in messages(page)]
    printed = [as_compared(provoke(say, monkeypatch).replace(f"{tmp_path}/", "/models/")) for provoke in PROVOKED[page]]
    assert stated == printed


def messages(page: str):
    """The blocks of text before the first heading below the title."""
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    return [s for s in snippets(text.partition("\n## ")[0]) if s.language == "text"]


def as_compared(message: str) -> str:
    """Without the exact number of bytes, which depends on the machine."""
    return re.sub(r"\d{6,}", "N", message.strip())


def test_every_page_of_symptoms_is_provoked():
    assert set(PROVOKED) == {path.stem for path in PAGES.glob("*.md")}
