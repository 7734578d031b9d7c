"""Ties by the library's defaults, by nested configs and by names; and buffers that not all models hold."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import polyak
from polyak.checkpoint import MemoryCheckpoint, holder_of, left_out, ties, ties_embeddings, with_ties

from ..engine.conftest import write_model


def memory(*names: str) -> MemoryCheckpoint:
    return MemoryCheckpoint({name: np.ones((8, 4), np.float32) for name in names})


@pytest.mark.parametrize(
    ("config", "tied"),
    [
        ({"model_type": "gemma2"}, True),
        ({"model_type": "gpt2"}, True),
        ({"model_type": "llama"}, False),
        ({"model_type": "llama", "tie_word_embeddings": True}, True),
        ({"model_type": "gpt2", "tie_word_embeddings": False}, False),
        ({"model_type": "llava", "text_config": {"tie_word_embeddings": True}}, True),
        ({"model_type": "llava", "vision_config": {"tie_word_embeddings": True}}, False),
        ({"model_type": "no such type"}, False),
        ({}, False),
    ],
)
def test_a_config_ties_by_itself_by_its_text_config_or_by_default(config, tied):
    assert ties_embeddings(config) is tied
    assert not ties_embeddings(with_ties(config, tied=False))


@pytest.mark.parametrize(("installed", "tied"), [("0.1", False), ("1000.0.dev1", True), (None, False)])
def test_only_a_library_newer_than_the_table_is_asked_for_a_type_that_it_lacks(installed, tied, monkeypatch):
    def version(name: str) -> str:
        if installed is None:
            raise metadata.PackageNotFoundError(name)
        return installed

    library = SimpleNamespace(CONFIG_MAPPING={"new type": SimpleNamespace(tie_word_embeddings=True)})
    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setitem(sys.modules, "transformers", library)
    ties._default.cache_clear()
    assert ties_embeddings({"model_type": "new type"}) is tied
    assert not ties_embeddings({"model_type": "llama"})
    ties._default.cache_clear()


def test_a_merge_of_a_type_that_no_library_knows_imports_no_torch(tmp_path: Path):
    for name in ("a", "b"):
        write_model(tmp_path / name, {"model.embed_tokens.weight": np.ones((8, 4), np.float32)})
    (tmp_path / "recipe.yaml").write_text("models: [a, b]\nmethod: linear\n")
    code = "import sys, polyak; polyak.merge('recipe.yaml', 'out'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("config", "asked", "stored", "holder"),
    [
        ({"model_type": "gpt2"}, "lm_head.weight", ("transformer.wpe.weight", "transformer.wte.weight"), 1),
        ({"model_type": "bert"}, "cls.predictions.decoder.weight",
         ("bert.embeddings.position_embeddings.weight", "bert.embeddings.word_embeddings.weight"), 1),
        ({"model_type": "t5", "tie_word_embeddings": False}, "encoder.embed_tokens.weight", ("shared.weight",), 0),
        ({"model_type": "t5"}, "decoder.embed_tokens.weight", ("encoder.embed_tokens.weight",), 0),
        ({"model_type": "whisper"}, "proj_out.weight", ("model.decoder.embed_tokens.weight",), 0),
        ({"model_type": "llama"}, "lm_head.weight", ("model.embed_tokens.weight",), None),
        ({"model_type": "gemma"}, "model.norm.weight", ("model.embed_tokens.weight",), None),
    ],
)  # fmt: skip
def test_a_tensor_that_is_left_out_is_found_where_the_library_ties_it(config, asked, stored, holder):
    assert holder_of(asked, memory(*stored), config) == (None if holder is None else stored[holder])


def test_only_classes_with_a_head_leave_one_out():
    embedding = memory("model.embed_tokens.weight")
    tied = {"model_type": "llama", "tie_word_embeddings": True}
    assert left_out(embedding, {**tied, "architectures": ["LlamaForCausalLM"]}) == {
        "lm_head.weight": "model.embed_tokens.weight"
    }
    assert left_out(embedding, {**tied, "architectures": ["LlamaForSequenceClassification"]}) == {}
    assert left_out(embedding, {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}) == {}


def test_a_head_that_one_file_holds_and_the_other_ties_by_default_is_merged(tmp_path: Path):
    rng = np.random.default_rng(0)
    config = {"model_type": "gemma2", "architectures": ["Gemma2ForCausalLM"], "vocab_size": 8}
    tables = [rng.normal(size=(8, 4)).astype(np.float32) for _ in range(2)]
    write_model(tmp_path / "a", {"model.embed_tokens.weight": tables[0], "lm_head.weight": tables[0] + 1}, config)
    write_model(tmp_path / "b", {"model.embed_tokens.weight": tables[1]}, config)
    polyak.merge({"method": "linear", "models": [str(tmp_path / "a"), str(tmp_path / "b")]}, tmp_path / "out")
    from polyak.checkpoint import open as opened

    with opened(tmp_path / "out") as out:
        head = np.empty(32, np.float32)
        out.read_into("lm_head.weight", 0, 32, head.view(np.uint8))
    np.testing.assert_allclose(head.reshape(8, 4), (tables[0] + 1 + tables[1]) / 2, atol=1e-6)
    assert json.loads((tmp_path / "out/config.json").read_text())["tie_word_embeddings"] is False


@pytest.mark.parametrize(("order", "note"), [("ab", "are those of a"), ("ba", "that only a has are left out")])
def test_computed_buffers_need_not_be_in_all_models(tmp_path: Path, order: str, note: str):
    weight, name = {"w.weight": np.ones((2, 2), np.float32)}, "layers.0.rotary_emb.inv_freq"
    write_model(tmp_path / "a", weight | {name: np.ones(4, np.float32)})
    write_model(tmp_path / "b", weight)
    plan = polyak.plan({"method": "linear", "models": [str(tmp_path / model) for model in order]})
    assert [step.out.name for step in plan.steps if step.out.name == name] == ([name] if order == "ab" else [])
    assert any(note in each for each in plan.notes)


def test_a_bias_of_attention_is_no_mask(tmp_path: Path):
    weight = {"w.weight": np.ones((2, 2), np.float32)}
    write_model(tmp_path / "a", weight | {"h.0.attn.bias": np.ones(4, np.float32)})
    write_model(tmp_path / "b", weight)
    with pytest.raises(polyak.errors.Mismatch, match=r"'h\.0\.attn\.bias' is not in b"):
        polyak.plan({"method": "linear", "models": [str(tmp_path / model) for model in "ab"]})
