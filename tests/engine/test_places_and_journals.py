"""Odd places for a result, journals that rotted, and inputs that are cut while a merge is running."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import polyak
from polyak import errors
from polyak.engine import run, tuning
from polyak.inspection.verification import verify

from .conftest import random_family, recipe_text, tree_digest, write_model
from .test_bad_days import finish, kill, start, wait_for_journal


def test_a_result_goes_to_the_folder_that_a_link_points_to(recipe, family):
    (family / "disk" / "out").mkdir(parents=True)
    (family / "out").symlink_to("disk/out")
    (family / "later").symlink_to("disk/later")
    for name in ("out", "later"):
        run(polyak.plan(recipe), family / name)
        assert (family / name).is_symlink()
    assert tree_digest(family / "disk/out") == tree_digest(family / "disk/later")
    run(polyak.plan(recipe), family / "out", shard_nbytes=9_000, force=True)
    assert (family / "out").is_symlink()
    assert (family / "disk/out/model.safetensors.index.json").exists()
    assert not list((family / "disk").glob(".*"))


def test_a_link_to_an_input_or_to_itself_is_refused(recipe, family):
    before = tree_digest(family)
    (family / "out").symlink_to("m1")
    with pytest.raises(errors.OutputError, match="is where m1 lies"):
        run(polyak.plan(recipe), family / "out", force=True)
    (family / "round").symlink_to("round")
    with pytest.raises(errors.OutputError, match="link to itself"):
        run(polyak.plan(recipe), family / "round", force=True)
    assert tree_digest(family) == before


@pytest.mark.parametrize("place", ["thesis.txt", "thesis.txt/out", "thesis.txt/a/b"])
@pytest.mark.parametrize("force", [False, True])
def test_a_file_is_never_replaced_by_a_folder(recipe, family, place, force):
    (family / "thesis.txt").write_text("precious")
    with pytest.raises(errors.OutputExists, match=r"thesis\.txt is a file, not a folder.*another folder"):
        run(polyak.plan(recipe), family / place, force=force)
    assert (family / "thesis.txt").read_text() == "precious"


@pytest.mark.parametrize("how", ["cut", "deleted", "written"])
def test_an_input_that_changes_in_the_middle_of_a_merge_ends_it_with_one_message(recipe, family, how):
    process = start("merge", recipe, family / "out", pause=0.05)
    wait_for_journal(family)
    path = family / "m1" / "model.safetensors"
    if how == "cut":
        os.truncate(path, 5000)
    elif how == "deleted":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes())
    _, said = process.communicate(timeout=60)
    assert process.returncode == 4
    assert "m1" in said
    assert said.count("error:") == 1 and "Traceback" not in said
    assert not (family / "out").exists()


def test_a_termination_leaves_work_that_is_resumed(recipe, family):
    finish(recipe, family, "quiet")
    process = start("merge", recipe, family / "out", pause=0.05)
    wait_for_journal(family)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode != 0 and not (family / "out").exists()
    assert "resuming" in finish(recipe, family)
    assert tree_digest(family / "out") == tree_digest(family / "quiet")


LINES = [
    b"", b"5\n", b"[]\n", b"null\n", b"{}\n", b'{"step":0}\n', b'{"step":99,"piece":0,"out":"","reads":[]}\n',
    b'{"step":-1,"piece":0,"out":"","reads":[]}\n', b'{"step":0,"piece":99,"out":"00","reads":[]}\n',
    b'{"step":"x","piece":0,"out":"00","reads":[]}\n', b'{"step":0,"piece":0,"out":"zz","reads":[]}\n',
    b'{"step":0,"piece":-1,"out":"00","reads":["00"]}\n', b'{"step":0,"piece":0,"out":5,"reads":5}\n', b"\xff\xfe\n",
]  # fmt: skip


def flipped(line: bytes) -> st.SearchStrategy[bytes]:
    bits = st.integers(0, 8 * len(line) - 1)
    return bits.map(lambda i: line[: i // 8] + bytes([line[i // 8] ^ 1 << i % 8]) + line[i // 8 + 1 :])


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_damaged_journal_loses_time_and_nothing_else(killed, small_pieces, data):
    family, recipe, wanted = killed
    draft, out = family / ".out.polyak", family / "out"
    shutil.rmtree(draft, ignore_errors=True)
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(family / "saved", draft)
    lines = (draft / "journal.jsonl").read_bytes().splitlines(keepends=True)
    at = data.draw(st.integers(0, len(lines) - 1))
    lines[at] = data.draw(st.sampled_from(LINES) | st.just(lines[at][:-9]) | flipped(lines[at]))
    (draft / "journal.jsonl").write_bytes(b"".join(lines))
    try:
        run(polyak.plan(recipe), out, resume=True, workers=1)
    except errors.CannotResume:
        run(polyak.plan(recipe), out, force=True, workers=1)
    assert tree_digest(out) == wanted
    assert not draft.exists()


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> tuple[Path, Path, dict[str, str]]:
    """What a merge left that was killed in the middle, and what it would have written."""
    family = tmp_path_factory.mktemp("killed")
    for name, tensors in random_family().items():
        write_model(family / name, tensors)
    recipe = family / "recipe.yaml"
    recipe.write_text(recipe_text())
    finish(recipe, family, "quiet")
    process = start("merge", recipe, family / "out", pieces=10)
    wait_for_journal(family, 6)
    kill(process)
    (family / ".out.polyak").rename(family / "saved")
    return family, recipe, tree_digest(family / "quiet")


@pytest.fixture
def small_pieces(monkeypatch):
    """Pieces as small as those of the slow merge."""
    monkeypatch.setattr(tuning, "CHUNK", 1024)


def test_one_flipped_bit_of_an_input_or_the_result_is_noticed_afterwards(recipe, family):
    run(polyak.plan(recipe), family / "out")
    for folder in ("m1", "out"):
        path = family / folder / "model.safetensors"
        data = bytearray(path.read_bytes())
        data[-2] ^= 1
        path.write_bytes(data)
    found = verify(family / "out", inputs=True)
    assert len(found.differing) == 1 and "was changed" in found.differing[0]
    assert "unchanged" not in found.inputs["m1"]
    assert found.inputs["m0"] == "unchanged"


@pytest.mark.parametrize("path", ["a" * 2000, "a\0b", "nowhere"])
def test_an_input_whose_recorded_path_is_none_is_not_found(recipe, family, path):
    run(polyak.plan(recipe), family / "out")
    provenance = json.loads((family / "out" / "polyak.json").read_text())
    provenance["models"]["m1"]["path"] = path
    (family / "out" / "polyak.json").write_text(json.dumps(provenance))
    assert verify(family / "out", inputs=True).inputs == {"base": "unchanged", "m0": "unchanged", "m1": "not found",
                                                          "m2": "unchanged"}  # fmt: skip


def test_work_after_a_torn_entry_is_kept(killed, small_pieces):
    family, recipe, wanted = killed
    shutil.rmtree(family / "out", ignore_errors=True)
    shutil.copytree(family / "saved", family / ".out.polyak", dirs_exist_ok=True)
    journal = family / ".out.polyak" / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-9])
    before = journal.read_bytes().count(b"\n")
    process = start("merge", recipe, family / "out", "--resume", pieces=6)
    wait_for_journal(family, before + 3)
    kill(process)
    report = run(polyak.plan(recipe), family / "out", resume=True)
    assert report.resumed >= before + 2  # of the lines, the first is the plan's key
    assert tree_digest(family / "out") == wanted
