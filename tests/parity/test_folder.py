"""What lies beside the tensors: config, tokenizer, heads that are tied; and the commands themselves."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

pytest.importorskip("mergekit", reason="mergekit is not installed; `make parity` does it")
if version("mergekit") != "0.1.5":
    pytest.skip(f"mergekit is {version('mergekit')}, not 0.1.5", allow_module_level=True)

import torch
from transformers import AutoModel, AutoModelForCausalLM

from .both import tensors, with_polyak
from .compare import assert_same_tensors
from .families import HEADS, LAYERS, bert, initial, moved, write_model
from .recipes import METHODS

HALVES = """
base_model: ./base
models: [{model: ./base}, {model: ./expert-1}]
parameters: {weight: 0.5}
dtype: float32
"""
WRITTEN_BY = ("transformers_version", "torch_dtype", "dtype")  # the last two are one key with an old and a new name


def read(file: Path) -> dict:
    return json.loads(file.read_text())


@pytest.mark.parametrize("shape", HEADS)
@pytest.mark.parametrize("donor", ["base", "first"])
def test_the_config_is_the_donors(families, run_both, shape, donor):
    text = f"merge_method: linear\n{HALVES}out_dtype: bfloat16\n"
    if donor == "first":  # without a base mergekit's donor is random, unless there is one model
        text = METHODS["passthrough"] + "out_dtype: bfloat16\n"
    theirs, ours = (read(out / "config.json") for out in run_both(families(shape), text))
    assert ours["written_as"] == theirs["written_as"] == ("base" if donor == "base" else "expert-2")
    assert ours.get("dtype", ours.get("torch_dtype")) == theirs.get("dtype", theirs.get("torch_dtype")) == "bfloat16"
    differing = {key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key)} - {*WRITTEN_BY}
    assert not differing


def test_the_tokenizer_is_the_donors(families, run_both):
    family = families("llama")
    for out in run_both(family, f"merge_method: linear\n{HALVES}"):
        for name in ("tokenizer.json", "tokenizer_config.json"):
            assert (out / name).read_text() == (family / "base" / name).read_text()


def test_without_a_base_the_first_model_gives_config_and_tokenizer(families, run_both):
    family = families("llama")
    theirs, ours = run_both(family, METHODS["linear"])
    assert read(ours / "config.json")["written_as"] == "expert-1"
    assert (ours / "tokenizer_config.json").read_text() == (family / "expert-1" / "tokenizer_config.json").read_text()
    assert read(theirs / "config.json")["written_as"] in ("expert-1", "expert-2", "expert-3")


@pytest.fixture
def partly_tied(tmp_path: Path) -> Path:
    """A base whose head is its embedding, and an expert with a head of its own."""
    from .families import llama

    base = initial(llama(tie_word_embeddings=True), "llama", seed=0)
    write_model(tmp_path / "family" / "base", base, torch.float32)
    expert = initial(llama(tie_word_embeddings=False), "llama", seed=1)
    write_model(tmp_path / "family" / "expert-1", expert, torch.float32)
    write_model(tmp_path / "family" / "expert-2", moved(base, 1e-2, seed=2), torch.float32)
    return tmp_path / "family"


def test_a_head_that_is_tied_in_every_model_is_not_written(partly_tied, run_both):
    text = f"merge_method: linear\n{HALVES}".replace("expert-1", "expert-2")
    theirs, ours = run_both(partly_tied, text)
    assert_same_tensors(tensors(ours), tensors(theirs), [tensors(partly_tied / "base")])
    assert "lm_head.weight" not in tensors(ours)
    assert [read(out / "config.json")["tie_word_embeddings"] for out in (ours, theirs)] == [True, True]


def test_a_head_that_is_tied_in_some_models_is_merged_with_their_embedding(partly_tied, run_both):
    theirs, ours = run_both(partly_tied, f"merge_method: linear\n{HALVES}")
    assert_same_tensors(tensors(ours), tensors(theirs), [tensors(partly_tied / n) for n in ("base", "expert-1")])
    assert "lm_head.weight" in tensors(ours)
    # mergekit leaves the config as it was, and transformers then ignores the head that it wrote.
    assert read(theirs / "config.json")["tie_word_embeddings"] is True
    assert read(ours / "config.json")["tie_word_embeddings"] is False
    head = AutoModelForCausalLM.from_pretrained(ours).lm_head.weight
    torch.testing.assert_close(head.detach(), tensors(ours)["lm_head.weight"], rtol=0, atol=0)


@pytest.mark.parametrize("head", ["BertModel", "BertForMaskedLM"])
def test_models_that_mergekit_fails_on_are_merged(tmp_path, run_both, monkeypatch, head):
    """Its list of BERT's tensors cannot be read for the one, and asks for a pooler that the other does not have."""
    monkeypatch.setitem(HEADS, "bert", head)
    family = tmp_path / "family"
    base = initial(bert(), "bert", seed=0)
    write_model(family / "base", base, torch.float32)
    write_model(family / "expert-1", moved(base, 1e-2, seed=1), torch.float32)
    with pytest.raises((TypeError, RuntimeError)):
        run_both(family, f"merge_method: linear\n{HALVES}")
    out = with_polyak(tmp_path / "recipe.yml", tmp_path / "out")
    loaded, problems = AutoModel.from_pretrained(out, output_loading_info=True)
    assert len(loaded.encoder.layer) == LAYERS
    first, second = tensors(family / "base"), tensors(family / "expert-1")
    for name, found in tensors(out).items():
        torch.testing.assert_close(found, (first[name] + second[name]) / 2, msg=name)
    assert not problems["mismatched_keys"]


def test_the_commands_read_the_same_file(families, tmp_path):
    family = families("llama")
    recipe = tmp_path / "recipe.yml"
    recipe.write_text(METHODS["ties"] + "dtype: float32\nout_dtype: bfloat16\n")
    theirs = ["mergekit.scripts.run_yaml", recipe, tmp_path / "theirs", "--quiet", "--no-write-model-card"]
    ours = ["polyak", "merge", recipe, tmp_path / "ours", "--quiet"]
    for command in (theirs, ours):
        subprocess.run([sys.executable, "-m", *map(str, command)], cwd=family, check=True, capture_output=True)
    assert_same_tensors(tensors(tmp_path / "ours"), tensors(tmp_path / "theirs"), [tensors(family / "base")])
