"""Kills, full disks, busy and taken places: nothing is lost, nothing half-written appears."""

from __future__ import annotations

import errno
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import polyak
from polyak import errors
from polyak.engine import run
from polyak.engine.output import shards as files
from polyak.storage import staging as draft

from .conftest import random_family, recipe_text, tree_digest, write_model

SLOW = Path(__file__).parent / "slow_merge.py"


def start(*arguments: object, pause: float = 0.02, pieces: float = math.inf, **options) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, str(SLOW), str(pause), str(pieces), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def wait_for_journal(family: Path, entries: int = 4) -> None:
    until = time.monotonic() + 300
    while journalled(family) < entries:
        assert time.monotonic() < until, "the merge never got so far"
        time.sleep(0.005)


def kill(process: subprocess.Popen) -> None:
    process.kill()
    process.communicate()


def journalled(family: Path) -> int:
    journal = family / ".out.polyak" / "journal.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def finish(recipe: Path, family: Path, out: str = "out") -> str:
    command = [sys.executable, str(SLOW), "0", "inf", "merge", str(recipe), str(family / out), "--resume"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stderr


def test_ten_kills_and_resumptions_give_the_bytes_of_a_quiet_merge(recipe, family):
    finish(recipe, family, "quiet")
    rng = random.Random(0)
    for _ in range(10):
        before = journalled(family)
        process = start("merge", recipe, family / "out", "--resume", pause=0.05, pieces=3)
        wait_for_journal(family, before + 1)
        time.sleep(rng.uniform(0, 0.1))
        kill(process)
        assert process.returncode == -signal.SIGKILL
        assert not (family / "out").exists()
    assert "resuming" in finish(recipe, family)
    assert tree_digest(family / "out") == tree_digest(family / "quiet")
    assert not (family / ".out.polyak").exists()


def test_a_piece_that_rotted_since_is_merged_again(recipe, family):
    finish(recipe, family, "quiet")
    process = start("merge", recipe, family / "out", pieces=12)
    wait_for_journal(family, 8)
    kill(process)
    written = family / ".out.polyak" / "model" / "model.safetensors"
    data = bytearray(written.read_bytes())
    data[4096:6000] = bytes(6000 - 4096)
    written.write_bytes(data)
    finish(recipe, family)
    assert tree_digest(family / "out") == tree_digest(family / "quiet")


def test_an_interrupt_is_clean_and_says_how_to_go_on(recipe, family):
    process = start("merge", recipe, family / "out", pause=0.05)
    wait_for_journal(family)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "--resume" in err and "Traceback" not in err
    assert not (family / "out").exists()
    assert "resuming" in finish(recipe, family)


def test_unfinished_work_is_not_thrown_away_unasked(recipe, family):
    process = start("merge", recipe, family / "out", pieces=8)
    wait_for_journal(family)
    kill(process)
    with pytest.raises(errors.OutputExists, match="--resume"):
        run(polyak.plan(recipe), family / "out")
    (family / "other.yaml").write_text(recipe_text("linear"))
    with pytest.raises(errors.CannotResume, match="another recipe"):
        run(polyak.plan(family / "other.yaml"), family / "out", resume=True)
    run(polyak.plan(recipe), family / "out", force=True)
    assert (family / "out" / "model.safetensors").exists()


def test_changed_inputs_are_not_resumed(recipe, family):
    process = start("merge", recipe, family / "out", pieces=8)
    wait_for_journal(family)
    kill(process)
    os.utime(family / "m1" / "model.safetensors", ns=(1, 1))
    with pytest.raises(errors.CannotResume, match="changed inputs"):
        run(polyak.plan(recipe), family / "out", resume=True)


def test_two_merges_into_one_place_do_not_mix(recipe, family):
    process = start("merge", recipe, family / "out", pieces=4)
    wait_for_journal(family, 2)
    with pytest.raises(errors.OutputBusy, match="another merge is writing"):
        run(polyak.plan(recipe), family / "out", force=True)
    kill(process)


def test_a_place_that_is_taken_is_refused_and_left_alone(recipe, family):
    (family / "out").mkdir()
    (family / "out" / "thesis.txt").write_text("precious")
    with pytest.raises(errors.OutputExists, match="not empty"):
        run(polyak.plan(recipe), family / "out")
    with pytest.raises(errors.OutputExists, match="without a model"):
        run(polyak.plan(recipe), family / "out", force=True)
    assert (family / "out" / "thesis.txt").read_text() == "precious"


def test_force_replaces_a_model_whole_and_no_stale_shard_survives(recipe, family):
    run(polyak.plan(recipe), family / "out", shard_nbytes=9_000)
    assert (family / "out" / "model.safetensors.index.json").exists()
    run(polyak.plan(recipe), family / "out", force=True)
    left = {p.name for p in (family / "out").iterdir()}
    assert "model.safetensors" in left
    assert not [name for name in left if "index" in name or "-of-" in name]


def test_a_merge_that_fails_leaves_the_old_model_whole(recipe, family, monkeypatch):
    run(polyak.plan(recipe), family / "out")
    before = tree_digest(family / "out")
    (family / "linear.yaml").write_text(recipe_text("linear"))
    monkeypatch.setattr(
        files.ShardWriter, "_write", lambda *a: (_ for _ in ()).throw(errors.OutputError("the disk is full"))
    )
    with pytest.raises(errors.OutputError, match="full"):
        run(polyak.plan(family / "linear.yaml"), family / "out", force=True)
    assert tree_digest(family / "out") == before
    assert not (family / ".out.polyak").exists()


def test_a_death_between_the_two_renames_of_old_kernels_is_repaired(recipe, family, monkeypatch):
    run(polyak.plan(recipe), family / "out")
    before = tree_digest(family / "out")
    monkeypatch.setattr(draft, "exchange", lambda a, b: False)
    rename, calls = os.rename, []

    def dying(a, b):
        calls.append(b)
        if len(calls) == 2:
            raise KeyboardInterrupt
        rename(a, b)

    monkeypatch.setattr(os, "rename", dying)
    (family / "linear.yaml").write_text(recipe_text("linear"))
    with pytest.raises(KeyboardInterrupt):
        run(polyak.plan(family / "linear.yaml"), family / "out", force=True)
    monkeypatch.setattr(os, "rename", rename)
    assert not (family / "out").exists()
    with pytest.raises(errors.OutputExists):
        run(polyak.plan(recipe), family / "out")
    assert tree_digest(family / "out") == before


def test_a_full_disk_is_known_before_the_work(recipe, family, monkeypatch):
    def full(fd, offset, size):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(errors.OutputError, match=r"disk of .* is full \(\d+ bytes free\)"):
        run(polyak.plan(recipe), family / "out")
    assert not (family / "out").exists()
    assert not (family / ".out.polyak").exists()


@pytest.mark.skipif(
    not Path("/sys/module/loop").exists() or os.geteuid() != 0, reason="needs a small file system of its own"
)
def test_a_really_full_disk(recipe, family):
    small = family / "small"
    small.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], capture_output=True, check=False
    ).returncode:
        pytest.skip("this sandbox may not mount a small file system")
    try:
        with pytest.raises(errors.OutputError, match="full"):
            run(polyak.plan(recipe), small / "out")
    finally:
        subprocess.run(["umount", small], check=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission_is_said(recipe, family):
    (family / "locked").mkdir(mode=0o500)
    with pytest.raises(errors.OutputError, match="no permission"):
        run(polyak.plan(recipe), family / "locked" / "out")


@pytest.mark.parametrize("place", ["m0", "m0/merged", ".", "base"])
def test_a_merge_into_its_own_inputs_is_refused(recipe, family, place):
    before = tree_digest(family)
    with pytest.raises(errors.OutputError):
        run(polyak.plan(recipe), family / place, force=True)
    assert tree_digest(family) == before


def test_an_input_that_shrinks_under_the_merge_is_an_error(recipe, family):
    plan = polyak.plan(recipe)
    path = family / "m1" / "model.safetensors"
    os.truncate(path, path.stat().st_size - 3000)
    with pytest.raises(errors.InputChanged, match=r"m1.*ends at byte"):
        run(plan, family / "out")
    assert not (family / "out").exists()


def test_an_input_that_is_written_to_under_the_merge_is_an_error(recipe, family):
    plan = polyak.plan(recipe)
    with (family / "m1" / "model.safetensors").open("r+b") as file:
        file.seek(5000)
        file.write(b"\x01")
    os.utime(family / "m1" / "model.safetensors", ns=(10**18, 10**18))
    with pytest.raises(errors.InputChanged, match="was written to"):
        run(plan, family / "out")
    assert not (family / "out").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.float64])
def test_a_number_that_is_not_finite_names_tensor_model_and_place(tmp_path, value, dtype):
    family = random_family(dtype=dtype)
    family["m1"]["layers.1.w"][3, 5] = value
    for name, tensors in family.items():
        write_model(tmp_path / name, tensors)
    (tmp_path / "recipe.yaml").write_text(recipe_text())
    with pytest.raises(errors.NotFinite, match=r"'layers\.1\.w' of m1 .*\[3, 5\]"):
        run(polyak.plan(tmp_path / "recipe.yaml"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_ties_ends_on_a_small_tensor_in_which_more_is_not_finite_than_survives(tmp_path, value):
    mask = np.triu(np.full((8, 8), value, np.float32), 1)
    for name in ("base", "m0", "m1"):  # a mask that all share, as some models store one
        write_model(tmp_path / name, {"w": np.ones((4, 4), np.float32), "mask": mask})
    recipe = "base: ./base\nmethod: ties\nsettings: {density: 0.2}\nmodels: [./m0, ./m1]\n"
    (tmp_path / "recipe.yaml").write_text(recipe)
    command = [sys.executable, "-m", "polyak", "merge", "recipe.yaml", "out"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 4, ended.stderr
    assert "'mask' of m0" in ended.stderr
    assert f"holds {value} at [0, 1]" in ended.stderr
    assert not (tmp_path / "out").exists()


def test_an_overflow_of_the_result_names_the_tensor_and_the_remedy(tmp_path):
    for i in range(2):
        write_model(tmp_path / f"m{i}", {"w": np.full((4,), 60000, np.float16)})
    (tmp_path / "recipe.yaml").write_text("models: [./m0, ./m1]\nmethod: linear\nsettings: {normalize: false}\n")
    with pytest.raises(errors.NotFinite, match=r"merge of 'w' by 'linear'.*F16.*dtype"):
        run(polyak.plan(tmp_path / "recipe.yaml"), tmp_path / "out")
