"""Folders of models and of results with links, pipes and planted drafts in them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import polyak
from polyak import checkpoint, recipe
from polyak.averaging import read_run
from polyak.engine import run
from polyak.errors import CheckpointError, OutputExists, PolyakError, RecipeError
from polyak.storage import Handle, own, remove_own

from ..adapters.made import write_adapter
from ..engine.conftest import recipe_text, tree_digest, write_model

SECRET = "a secret of this machine"
BESIDE = (
    "tokenizer.json", "tokenizer_config.json", "vocab.txt", "merges.txt", "generation_config.json", "modules.json",
    "special_tokens_map.json", "chat_template.jinja", "model.py", "additional_chat_templates/x.jinja", "config.json",
)  # fmt: skip


@pytest.fixture
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("home") / "secret"
    path.write_text(SECRET)
    return path


@pytest.mark.parametrize("name", BESIDE)
def test_a_link_out_of_a_models_folder_is_refused(family: Path, recipe: Path, secret: Path, name: str):
    path = family / "base" / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(secret)
    with pytest.raises(CheckpointError, match="is a link out of the folder"):
        run(polyak.plan(recipe), family / "out")
    assert not (family / "out").exists()


@pytest.mark.parametrize(
    ("name", "link"),
    [
        ("base/model.safetensors", "base/model.safetensors"),
        ("base/model.safetensors", "base/named.safetensors"),
        ("adapter/adapter_config.json", "adapter/adapter_config.json"),
        ("adapter/adapter_model.safetensors", "adapter/adapter_model.safetensors"),
        ("adapter/adapter_model.safetensors", "adapter/named.safetensors"),
    ],
)
def test_files_of_tensors_that_lie_elsewhere_are_refused(
    family: Path, name: str, link: str, tmp_path_factory: pytest.TempPathFactory
):
    write_adapter(family / "adapter", 0)
    elsewhere = tmp_path_factory.mktemp("home") / "file"
    (family / name).rename(elsewhere)
    (family / link).symlink_to(elsewhere)
    with pytest.raises(CheckpointError, match="is a link out of the folder"):
        checkpoint.with_lora(checkpoint.open(family / "base"), family / "adapter")


def test_a_link_within_the_folder_is_followed(family: Path, recipe: Path):
    (family / "base" / "template").write_text("hello {{ x }}")
    (family / "base" / "chat_template.jinja").symlink_to("template")
    run(polyak.plan(recipe), family / "out")
    assert (family / "out" / "chat_template.jinja").read_text() == "hello {{ x }}"


def test_a_pipelines_folder_that_lies_elsewhere_is_refused(tmp_path: Path):
    write_model(tmp_path / "elsewhere", {"w": np.ones(2, np.float32)})
    (tmp_path / "pipe").mkdir()
    (tmp_path / "pipe" / "model_index.json").write_text("{}")
    (tmp_path / "pipe" / "unet").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="link out of the folder"):
        checkpoint.open(tmp_path / "pipe")


def test_a_file_that_becomes_a_link_during_the_merge_is_copied_no_more(family: Path, recipe: Path, secret: Path):
    (family / "base" / "vocab.txt").write_text("a\n")
    plan = polyak.plan(recipe)
    (family / "base" / "vocab.txt").unlink()
    os.mkfifo(family / "base" / "vocab.txt")
    with pytest.raises(PolyakError, match=r"vocab\.txt can no longer be copied: it is not a regular file"):
        run(plan, family / "out")
    assert not (family / "out").exists()


def _pipe(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    return path


@pytest.mark.parametrize(
    "name",
    ["base/model.safetensors", "base/config.json", "base/tokenizer.json", "base/model.safetensors.index.json",
     "m0/pytorch_model.bin", "recipe.yaml", "nested.yaml", "points.jsonl", "run/checkpoint-5/trainer_state.json",
     "run/metrics.csv",
     "adapter/adapter_config.json", "adapter/adapter_model.safetensors", "a.pt", "out/polyak.json"],
)  # fmt: skip
def test_a_pipe_is_refused_wherever_it_is(family: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    """Nobody writes into the pipe, so that opening it, or reading from it, would wait for ever."""
    write_adapter(family / "adapter", 0)
    (family / "recipe.yaml").write_text(recipe_text())
    (family / "m0" / "model.safetensors").rename(family / "m0" / "x") if name.startswith("m0") else None
    (family / "run" / "checkpoint-5").mkdir(parents=True)
    (family / "run" / "a-step=5.ckpt").touch() if name.endswith("csv") else None
    shutil.rmtree(family / "run" / "checkpoint-5") if name.endswith("csv") else None
    _pipe(family / name)
    with pytest.raises(
        (PolyakError, OSError), match=r"regular file|cannot be read|no model|is missing|neither|not an adapter|has no"
    ):
        _everything(family, name)


def _everything(family: Path, name: str) -> None:
    from polyak.inspection import verify
    from polyak.tasks.rows import read_rows

    if name == "nested.yaml":
        recipe.read({"models": [{"recipe": "nested.yaml"}, "m0"], "method": "linear"}, family)
    elif name.startswith("points"):
        read_rows(family / name, {"x": "x"})
    elif name.startswith("run"):
        read_run(family / "run")
    elif name.startswith("adapter"):
        checkpoint.with_lora(checkpoint.open(family / "base"), family / "adapter")
    elif name.startswith("out"):
        verify(family / "out")
    elif name.endswith(".pt"):
        checkpoint.open(family / name)
    else:
        run(polyak.plan(family / "recipe.yaml"), family / "out")
        raise RecipeError("has no effect on the merge, which does not read it")


def precious(folder: Path) -> Path:
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "thesis.txt").write_text("years of work")
    (folder / "journal.jsonl").write_text("mine")
    return folder


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    "kind", ["link to a folder", "folder", "link inside", "link inside of ours", "file", "dangling"]
)
def test_a_planted_draft_is_neither_used_nor_removed(
    family: Path, recipe: Path, tmp_path_factory, kind: str, force: bool
):
    place, draft = precious(tmp_path_factory.mktemp("home") / "p"), family / ".out.polyak"
    if kind == "link to a folder":
        draft.symlink_to(place)
    elif kind == "dangling":
        draft.symlink_to(place / "nothing")
    elif kind == "file":
        draft.write_text("mine")
    elif kind == "folder":
        precious(draft)
    else:
        draft.mkdir()
        (draft / "model").symlink_to(place / "model")
        if kind.endswith("ours"):
            (draft / own.MARKER).write_text("copied")
    before = tree_digest(place), tree_digest(family)
    for resume in (False, True):
        with pytest.raises(OutputExists, match=r"not used as a staging folder, nor removed. Move it away"):
            run(polyak.plan(recipe), family / "out", force=force, resume=resume)
    assert (tree_digest(place), tree_digest(family)) == before


def test_a_draft_of_another_user_is_refused(family: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch):
    (family / ".out.polyak").mkdir()
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    with pytest.raises(OutputExists, match="belongs to another user"):
        run(polyak.plan(recipe), family / "out")


def test_an_unfinished_measurement_that_is_not_ours_is_not_removed(tmp_path: Path):
    from polyak.statistics._unfinished import unfinished

    folder = precious(tmp_path / ".unfinished")
    for options in ({"resume": False, "force": True}, {"resume": True, "force": False}):
        with pytest.raises(OutputExists, match="if an earlier version"), unfinished(folder, "key", **options):
            pass
    assert (folder / "model" / "thesis.txt").exists()
    with pytest.raises(OutputExists):
        remove_own(folder)


@pytest.mark.parametrize("change", ["contents", "another file"])
def test_an_input_whose_time_was_put_back_is_noticed(family: Path, recipe: Path, change: str):
    plan, path = polyak.plan(recipe), family / "m1" / "model.safetensors"
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    if change == "contents":
        with path.open("r+b") as file:
            file.write(data)
    else:
        (family / "new").write_bytes(data)
        (family / "new").replace(path)
    os.utime(path, ns=times)
    with pytest.raises(PolyakError, match=r"its time put back|replaced by another file"):
        run(plan, family / "out")
    assert not (family / "out").exists()


def test_a_result_that_is_there_is_done_already(family: Path, recipe: Path):
    done = run(polyak.plan(recipe), family / "out")
    before = tree_digest(family / "out")
    again = run(polyak.plan(recipe), family / "out", resume=True)
    assert (again.digest, again.nbytes_written) == (done.digest, 0)
    assert tree_digest(family / "out") == before
    with pytest.raises(OutputExists):
        run(polyak.plan(recipe), family / "out")


@pytest.mark.parametrize("change", ["input", "recipe", "shards", "config"])
def test_another_result_is_not_taken_for_done(family: Path, recipe: Path, change: str):
    run(polyak.plan(recipe), family / "out")
    options = {"shard_nbytes": 10_000} if change == "shards" else {}
    if change == "input":
        os.utime(family / "m1" / "model.safetensors")
    elif change == "recipe":
        recipe.write_text(recipe_text("linear", base=False))
    elif change == "config":
        (family / "base" / "config.json").write_text(json.dumps({"model_type": "other"}))
    with pytest.raises(OutputExists):
        run(polyak.plan(recipe), family / "out", resume=True, **options)


def test_a_path_that_is_not_utf8_is_refused_at_plan(family: Path):
    odd = Path(os.fsdecode(os.fsencode(family) + b"/m\xff"))
    try:
        (family / "m0").rename(odd)
    except OSError:
        pytest.skip("this file system has no such names")
    (odd / "recipe.yaml").write_text("models: [{path: ., name: odd}, ../m1]\nmethod: linear\n")
    with pytest.raises(CheckpointError, match="is not UTF-8"):
        polyak.plan(odd / "recipe.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "models: [%s, m1]",
        "models: [m0, {path: m1, lora: %s}]",
        "models: [{recipe: %s}, m0]",
        "models: ['hf://%s/x', m0]",
    ],
)
def test_a_component_of_300_characters_is_one_line(family: Path, text: str):
    (family / "r.yaml").write_text(text % ("x" * 300) + "\nmethod: linear\n")
    with pytest.raises(PolyakError) as caught:
        polyak.plan(family / "r.yaml")
    assert "\n" not in str(caught.value)
    (family / "ok.yaml").write_text("models: [m0, m1]\nmethod: linear\n")
    for out in ("y" * 300, "y" * 252):
        with pytest.raises(PolyakError):
            run(polyak.plan(family / "ok.yaml"), family / out)


def test_many_shards_share_a_few_open_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from polyak.storage import handles

    monkeypatch.setattr(handles, "_pool", pool := handles._Pool())
    pool._limit = 4
    files = []
    for i in range(20):
        (tmp_path / str(i)).write_bytes(bytes([i]))
        files.append(Handle(tmp_path / str(i)))
    for _ in range(3):
        for i, file in enumerate(files):
            with file.used() as fd:
                assert os.pread(fd, 1, 0) == bytes([i])
            assert sum(bool(each.fds) for each in files) <= 4
    (tmp_path / "new").write_bytes(b"x")
    (tmp_path / "new").replace(tmp_path / "0")
    with pytest.raises(OSError, match="another file took its place"), files[0].used():
        pass
