"""Files of a model folder that are no weights: all of them go along, except those that a rule leaves out by name."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

import polyak
from polyak import errors
from polyak.engine import run
from polyak.recipe import loads

from ..engine.conftest import write_model

CARRIED = [
    "spm.model", "tekken.json", "qwen.tiktoken", "tiktoken.model", "source.spm", "target.spm", "sentencepiece.model",
    "bpe.codes", "vocab.txt", "vocab.pkl", "entity_vocab.json", "normalizer.json", "preprocessor_config.json",
    "open_clip_config.json", "LICENSE", "NOTICE.md", "modeling_own.py", "code/layers.py", "params.json",
    "additional_chat_templates/rag.jinja", "speaker_embeddings/v2/voice.npy", "1_Pooling/config.json",
    "mel_filters.npz", "never/heard/of.this",
]  # fmt: skip
LEFT_OUT = [
    "README.md", "polyak.json", "recipe.yaml", "mergekit_config.yml", "pytorch_model.bin", "tf_model.h5",
    "onnx/model.onnx", "openvino/openvino_model.xml", "weights.npz", "colbert_linear.pt", "optimizer.pt",
    "training_args.bin", "trainer_state.json", "rng_state_0.pth", "checkpoint-500/model.safetensors",
    "global_step10/mp_rank_00_model_states.pt", "runs/events.out.tfevents.1", "eval_results.json", ".gitattributes",
    ".cache/huggingface/x.json", "__pycache__/x.pyc", "model.safetensors.index.json.lock", "heads/other.safetensors",
]  # fmt: skip
TEXT = "method: linear\nmodels: [./a, ./b]\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for value, name in enumerate("ab"):
        write_model(tmp_path / name, {"w.weight": np.full((2, 3), value, np.float32)}, {"model_type": "x"})
        for file in (*CARRIED, *LEFT_OUT):
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).write_text(f"{name} {file}")
    return tmp_path


def test_whatever_is_no_weights_goes_along_and_what_does_not_is_listed(place):
    planned = polyak.plan(loads(TEXT))
    run(planned, "out")
    for file in CARRIED:
        assert Path("out", file).read_text() == f"a {file}"
    listed = [name for names in planned.sidecars.left_out.values() for name in names]
    for file in LEFT_OUT:
        assert not Path("out", file).is_file() or Path("out", file).read_text() != f"a {file}"
        assert any(file == name or (file.startswith(name) and name.endswith("/")) for name in listed), file
    note = next(note for note in planned.notes if note.startswith("not copied from a: "))
    assert all(name in note for name in listed)
    assert "copied from a and never run: code/layers.py, modeling_own.py." in planned.notes


def test_a_result_does_not_hand_on_the_records_of_what_it_is_made_of(place):
    run(polyak.plan(loads(TEXT)), "out")
    run(polyak.plan(loads("method: linear\nmodels: [./out, ./b]\n")), "again")
    assert json.loads(Path("again/polyak.json").read_text())["models"].keys() == {"out", "b"}
    assert "Merge of out, b" in Path("again/README.md").read_text()


def test_nothing_is_taken_from_the_folder_of_a_file_that_lies_alone(place):
    Path("a/config.json").unlink()
    files = "{name: a, path: ./a/model.safetensors}, {name: b, path: ./b/model.safetensors}"
    planned = polyak.plan(loads(f"method: linear\nmodels: [{files}]\n"))
    assert (dict(planned.sidecars.files), dict(planned.sidecars.left_out)) == ({}, {})
    assert "spm.model" in polyak.plan(loads(TEXT)).sidecars.files


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_links_lead_nowhere_else(place):
    secret = place / "secret"
    secret.mkdir()
    (secret / "key.txt").write_text("secret")
    Path("a/inner").symlink_to("code")
    assert "inner/" in polyak.plan(loads(TEXT)).sidecars.left_out["links to folders"]
    Path("a/inner").unlink()
    for link, target in (("a/linked.txt", secret / "key.txt"), ("a/folder", secret)):
        Path(link).symlink_to(target)
        with pytest.raises(errors.CheckpointError, match="is a link out of the folder"):
            polyak.plan(loads(TEXT))
        Path(link).unlink()
    Path("a/loop").symlink_to("..")
    with pytest.raises(errors.CheckpointError, match="is a link out of the folder"):
        polyak.plan(loads(TEXT))


def test_weights_keep_the_name_under_which_their_library_loads_them(place):
    for name in "ab":
        Path(name, "config.json").unlink()
        Path(name, "pytorch_model.bin").unlink()
        Path(name, "model.safetensors").rename(Path(name, "open_clip_model.safetensors"))
    run(polyak.plan(loads(TEXT)), "out")
    with polyak.open("out") as merged:
        assert merged.read("w.weight")[0, 0] == 0.5
    assert [path.name for path in Path("out").glob("*.safetensors")] == ["open_clip_model.safetensors"]
    assert "library_name: open_clip" in Path("out/README.md").read_text()


def write_modules(folder: Path, value: float) -> None:
    """As sentence-transformers saves a router whose routes have weights, in a folder of its own."""
    tensors = {"linear.weight": np.full((2, 2), value, np.float32)}
    for name in ("1_Router/query_0_Dense", "1_Router/document_0_Dense"):
        write_model(folder / name, tensors, {"in_features": 2, "out_features": 2})
    write_model(folder, {"w.weight": np.full((2, 2), value, np.float32)}, {"model_type": "x"})
    (folder / "1_Router/router_config.json").write_text(
        json.dumps({"types": {"query_0_Dense": "x.Dense", "document_0_Dense": "x.Dense"}})
    )
    (folder / "modules.json").write_text(json.dumps([{"path": ""}, {"path": "1_Router"}]))


def test_modules_below_modules_are_merged_under_the_names_of_their_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for value, name in enumerate("ab"):
        write_modules(tmp_path / name, value)
    rules = "rules: [{match: ^1_Router/query, settings: {weight: [3, 1]}}]\n"
    run(polyak.plan(loads(TEXT + rules)), "out", shard_nbytes=16)
    with polyak.open("out") as merged:
        values = {name: merged.read(name)[0, 0] for name in merged.specs}
    assert values == {
        "w.weight": 0.5, "1_Router/query_0_Dense/linear.weight": 0.25, "1_Router/document_0_Dense/linear.weight": 0.5
    }  # fmt: skip
    dense = json.loads(Path("out/1_Router/query_0_Dense/config.json").read_text())
    assert dense == {"in_features": 2, "out_features": 2}
    assert Path("out/1_Router/router_config.json").read_bytes() == Path("a/1_Router/router_config.json").read_bytes()


@pytest.mark.parametrize("path", ["../b", "/tmp", "x/../../b"])
def test_a_module_outside_of_the_folder_is_refused(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    for value, name in enumerate("ab"):
        write_modules(tmp_path / name, value)
    Path("a/modules.json").write_text(json.dumps([{"path": ""}, {"path": path}]))
    with pytest.raises(errors.CheckpointError, match="points out of the folder"):
        polyak.open("a")


def test_a_module_that_a_model_lacks_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for value, name in enumerate("ab"):
        write_modules(tmp_path / name, value)
    with pytest.raises(errors.Mismatch, match="no weights are left of 1_Router/document_0_Dense"):
        polyak.plan(loads(f"{TEXT}skip: ^1_Router/document\n"))
    Path("b/modules.json").write_text("[]")
    with pytest.raises(errors.Mismatch, match=r"'1_Router/document_0_Dense/linear.weight' is not in b"):
        polyak.plan(loads(TEXT))
    Path("a/modules.json").write_text("{")
    with pytest.raises(errors.CheckpointError, match=r"modules\.json is not JSON"):
        polyak.open("a")


def test_a_plain_base_takes_the_modules_of_its_fine_tunes(place):
    write_model(place / "base", {"w.weight": np.zeros((2, 2), np.float32)}, {"model_type": "x"})
    for name in "ab":
        Path(name, "modules.json").write_text(json.dumps([{"path": ""}, {"path": "1_Pooling"}]))
        Path(name, "1_Pooling/config.json").write_text("{}")
        write_model(place / name, {"w.weight": np.ones((2, 2), np.float32)}, {"model_type": "x"})
    text = "base: ./base\nmodels: [./a, ./b]\nmethod: task_arithmetic\n"
    planned = polyak.plan(loads(text))
    assert sorted(planned.sidecars.files) == ["1_Pooling/config.json", "modules.json"]
    assert any("those of a are copied: 1_Pooling/config.json, modules.json." in note for note in planned.notes)
    for name in "ab":
        write_modules(place / name, 1)
    notes = polyak.plan(loads(f"{text}skip: ^1_Router\n")).notes
    assert any("and the result has neither: 1_Router/document_0_Dense, 1_Router/query" in note for note in notes)
