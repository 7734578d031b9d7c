"""The command where a process has little: streams, memory, files, a home, or docstrings."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from polyak.display import printable, shown

from ..engine.conftest import random_family, recipe_text, tree_digest, write_model
from .made import entry, header

PYTHON = shlex.quote(sys.executable)  # whose path may have blanks


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("process")
    for name, tensors in random_family().items():
        write_model(folder / name, tensors)
    (folder / "recipe.yaml").write_text(recipe_text())
    return folder


def shell(folder: Path, command: str, **changes: str | None) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in (os.environ | changes).items() if v is not None}
    text = command.replace("polyak", f"{PYTHON} -m polyak")
    return subprocess.run(
        ["bash", "-c", text], cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def assert_one_line(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode not in (0, -6, -11) and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize("streams", ["2>&-", "1>&- 2>&-", "0<&- 1>&- 2>&-", "2>/dev/full"])
def test_a_merge_is_done_whatever_becomes_of_its_messages(models: Path, tmp_path: Path, streams: str):
    done = shell(models, f"polyak merge recipe.yaml {tmp_path}/out {streams}")
    assert done.returncode == 0
    assert (tmp_path / "out" / "model.safetensors").stat().st_size > 1000
    assert not (tmp_path / ".out.polyak").exists()


def test_standard_output_on_a_full_device_is_one_line(models: Path):
    done = shell(models, "polyak inspect base >/dev/full")
    assert_one_line(done)
    assert "standard output: No space left" in done.stderr


@pytest.mark.parametrize("command", ["polyak merge recipe.yaml OUT", "polyak merge hf://a/b m0 -m linear --out OUT"])
def test_a_user_without_a_home_merges(models: Path, tmp_path: Path, command: str):
    done = shell(models, command.replace("OUT", f"{tmp_path}/out"), HOME=None, XDG_CACHE_HOME=None, HF_HOME=None)
    assert done.returncode == 0 if "recipe" in command else done.stderr.startswith("error: hf://a/b ")
    assert "Traceback" not in done.stderr


EACH = """
import sys
from polyak.cli import main
for command in sys.argv[1:]:
    sys.argv = ["polyak", *command.split("|")]
    try:
        main()
    except SystemExit as ended:
        print(f"{sys.argv[1]} ended with {ended.code or 0}")
"""


def test_python_without_docstrings_and_assertions_runs_it(models: Path, tmp_path: Path):
    """In one process, since Python compiles all modules again under this option, and kernels: this merge needs one."""
    merge = f"merge|m0|m1|-m|linear|-o|{tmp_path}/out"
    commands = [merge, "methods", "plan|recipe.yaml", "merge|--help", "lora|--help"]
    command = [sys.executable, "-OO", "-c", EACH, *commands]
    done = subprocess.run(command, cwd=models, capture_output=True, text=True, timeout=300, check=False)
    assert re.findall(r"(?m)^(\w+) ended with (\d+)$", done.stdout) == [
        (text.partition("|")[0], "0") for text in commands
    ], done.stderr


def test_too_little_memory_is_one_line(models: Path, tmp_path: Path):
    big = {"w": np.zeros((4096, 8192), np.float32)}
    for name in ("a", "b"):
        write_model(tmp_path / name, big)
    (tmp_path / "r.yaml").write_text("models: [a, b]\nbase: a\nmethod: tsv_m\n")
    done = shell(tmp_path, "ulimit -v 700000; polyak merge r.yaml out")
    assert_one_line(done)
    assert not (tmp_path / "out").exists()


def test_sixty_four_open_files_are_enough_for_two_hundred_shards(tmp_path: Path):
    rng = np.random.default_rng(0)
    names = [f"layers.{i}.w" for i in range(200)]
    for model in ("a", "b"):
        folder = tmp_path / model
        for i, name in enumerate(names):
            write_model(folder, {name: rng.standard_normal((8, 8), np.float32)})
            (folder / "model.safetensors").rename(folder / f"s{i}.safetensors")
        index = {"weight_map": {name: f"s{i}.safetensors" for i, name in enumerate(names)}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "r.yaml").write_text("models: [a, b]\nmethod: linear\n")
    whole = shell(tmp_path, "polyak merge r.yaml whole --shard-size 256B")
    done = shell(tmp_path, "ulimit -n 64; polyak merge r.yaml out --shard-size 256B")
    assert (whole.returncode, done.returncode) == (0, 0), done.stderr
    assert tree_digest(tmp_path / "out") == tree_digest(tmp_path / "whole")
    assert len(list((tmp_path / "out").glob("*.safetensors"))) == 200


def test_names_cannot_command_a_terminal(tmp_path: Path):
    name = "w\x1b]0;owned\x07\x1b[2J\nerror: forged\u202e"
    path = header(tmp_path / "a.safetensors", {name: entry(), "__metadata__": {"\x1b[31mred": "\x9b1m"}}, 4)
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "polyak", "inspect", str(path)]
    subprocess.run(command, stdout=follower, stderr=follower, timeout=300, check=True)
    os.close(follower)
    written = os.read(leader, 10_000).decode()
    assert "\x1b" not in written and "\x9b" not in written and "\nerror" not in written and "\u202e" not in written
    assert r"\x1b]0;owned\x07" in written


def test_what_a_terminal_obeys_is_escaped_and_the_rest_is_kept():
    assert printable("a\tb\nc\x1b[1m\x85\ud800\u2066é😀") == "a\tb\nc\\x1b[1m\\x85\\ud800\\u2066é😀"
    assert shown("layers.0.wé") == "layers.0.wé" and shown("a\nb") == r"'a\nb'"


def test_a_module_of_the_folder_does_not_take_the_place_of_a_library(models: Path, tmp_path: Path):
    (tmp_path / "torch.py").write_text("import pathlib; pathlib.Path('owned').touch()\n")
    (tmp_path / "own_nets.py").write_text("import torch\ndef make(): return torch.nn.Linear(1, 1)\n")
    code = "from polyak.tasks.loading import import_function as f; import sys; sys.path.remove(''); f('own_nets:make')"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert not (tmp_path / "owned").exists(), done.stderr


def test_a_disk_that_fills_inside_the_journal_is_one_line_and_resumes(family: Path, recipe: Path, monkeypatch):
    import errno

    import polyak
    from polyak.engine import run
    from polyak.errors import OutputError

    write, room = os.write, [60]

    def full(fd: int, data: bytes) -> int:
        if not os.readlink(f"/proc/self/fd/{fd}").endswith("journal.jsonl"):
            return write(fd, data)
        if room[0] <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        part = data[: room[0]]
        room[0] -= len(part)
        return write(fd, part)

    plan = polyak.plan(recipe)
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OutputError, match="is full"):
        run(plan, family / "out")
    monkeypatch.undo()
    run(polyak.plan(recipe), family / "out", force=True)
    run(polyak.plan(recipe), family / "other")
    assert tree_digest(family / "out") == tree_digest(family / "other")


@pytest.mark.slow
@pytest.mark.parametrize(
    "line", [b"[]", b"{}", b"not json", b'{"step":-1,"piece":0,"out":"","reads":[]}',
    b'{"step":0,"piece":99,"out":"","reads":[]}',
             b'{"step":0,"piece":0,"out":7,"reads":[]}', b'{"step":0,"piece":0,"out":"zz","reads":null}', b"[" * 5000],
)  # fmt: skip
def test_a_tampered_journal_is_ignored_or_refused(family: Path, recipe: Path, line: bytes):
    from zlib import crc32

    import polyak
    from polyak.engine import run
    from polyak.errors import CannotResume
    from polyak.storage import Draft

    plan = polyak.plan(recipe)
    draft = Draft(family / "out")
    draft.open(f"{plan.digest}/5000000000/xxh3-128", resume=False, force=False)
    draft.close()
    with (draft.home / "journal.jsonl").open("ab") as file:
        file.write(b'["%08x",%s]\n' % (crc32(line), line))
    try:
        run(plan, family / "out", resume=True)
    except CannotResume as error:
        assert "Start over with --force" in str(error)
    run(polyak.plan(recipe), family / "out", force=True)
