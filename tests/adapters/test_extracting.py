"""Adapters from fine-tunes, and back into models."""

from __future__ import annotations

import json

import ml_dtypes
import numpy as np
import pytest

import polyak
from polyak import adapters
from polyak.errors import CheckpointError, Mismatch, OutputError, SettingError

from ..docs.models import write_tensors
from ..engine.conftest import write_model
from .made import configuration, deltas, tensors

SHAPES = {"q_proj": (12, 8), "k_proj": (6, 8)}
RNG = np.random.default_rng(0)


def noise(*shape):
    return RNG.normal(size=shape).astype(np.float32)


@pytest.fixture
def place(tmp_path):
    """A base, and a tune whose projections moved by rank 2 and whose embedding and norm moved, too."""
    base = {f"layers.{i}.{n}.weight": noise(*s) for i in range(2) for n, s in SHAPES.items()}
    base |= {"embed_tokens.weight": noise(20, 8), "norm.weight": noise(8), "frozen.weight": noise(4, 4)}
    tuned = {n: t + noise(len(t), 2) @ noise(2, t.shape[1]) if "proj" in n else t for n, t in base.items()}
    tuned |= {"embed_tokens.weight": base["embed_tokens.weight"] + noise(20, 1) @ noise(1, 8)}
    tuned |= {"norm.weight": base["norm.weight"] + 1}
    write_tensors(tmp_path / "base/model.safetensors", base)
    write_tensors(tmp_path / "tuned/model.safetensors", tuned)
    return tmp_path


def difference(place):
    with polyak.open(place / "base") as base, polyak.open(place / "tuned") as tuned:
        return {n: tuned.read(n).astype(np.float64) - base.read(n) for n in base.specs}


def extract(place, out="out", **said):
    return adapters.extract(place / "base", place / "tuned", place / out, **said)


def test_a_change_of_low_rank_is_taken_whole_and_the_rest_is_reported(place):
    report = extract(place, rank=2)
    change = difference(place)
    found = deltas(place / "out")
    assert set(found) == {f"layers.{i}.{n}" for i in range(2) for n in SHAPES}
    for name, delta in found.items():
        np.testing.assert_allclose(delta, change[f"{name}.weight"], atol=2e-6)
    assert report.share_lost < 1e-12
    wanted = {name: np.sum(change[name] ** 2) for name in ("embed_tokens.weight", "norm.weight")}
    assert report.left_out == pytest.approx(wanted)
    assert configuration(place / "out")["target_modules"] == ["k_proj", "q_proj"]


def test_less_rank_keeps_the_best_and_energy_chooses_it(place):
    change = difference(place)
    report = extract(place, rank=1)
    s = {n: np.linalg.svd(change[f"{n}.weight"], compute_uv=False) for n in deltas(place / "out")}
    assert {m.name: m.lost for m in report.modules} == pytest.approx(
        {n: np.sum(v[1:] ** 2) for n, v in s.items()}, 1e-5
    )
    by_energy = extract(place, "energy", energy=0.9)
    wanted = {n: 1 if v[0] ** 2 >= 0.9 * np.sum(v**2) else 2 for n, v in s.items()}
    assert {m.name: m.rank for m in by_energy.modules} == wanted


def test_embeddings_and_whole_tensors_can_be_asked_for(place):
    choice = adapters.Choice(modules="proj|embed", whole="norm")
    report = extract(place, rank=2, choice=choice)
    held, change = tensors(place / "out"), difference(place)
    a, b = (held[f"base_model.model.embed_tokens.lora_embedding_{x}"] for x in "AB")
    np.testing.assert_allclose((b @ a).T, change["embed_tokens.weight"], atol=2e-6)
    with polyak.open(place / "tuned") as tuned:
        np.testing.assert_array_equal(held["base_model.model.norm.weight"], tuned.read("norm.weight"))
    assert configuration(place / "out")["modules_to_save"] == ["norm"]
    assert not report.left_out


def test_an_extraction_baked_into_the_base_is_the_tune(place):
    extract(place, rank=2, choice=adapters.Choice(modules="proj|embed", whole="norm"))
    adapters.bake(place / "base", place / "out", place / "baked")
    with polyak.open(place / "baked") as baked, polyak.open(place / "tuned") as tuned:
        assert set(baked.specs) == set(tuned.specs)
        for name in tuned.specs:
            np.testing.assert_allclose(baked.read(name), tuned.read(name), atol=1e-5)


def test_a_scale_bakes_a_part_of_the_update(place):
    extract(place, rank=2)
    adapters.bake(place / "base", place / "out", place / "half", scale=0.5)
    with polyak.open(place / "half") as half, polyak.open(place / "base") as base:
        change = half.read("layers.0.q_proj.weight") - base.read("layers.0.q_proj.weight")
    np.testing.assert_allclose(change, 0.5 * difference(place)["layers.0.q_proj.weight"], atol=1e-5)


def test_transposed_weights_and_convolutions(tmp_path):
    for name, factor in {"base": 0, "tuned": 1}.items():
        low = np.random.default_rng(1)
        update = low.normal(size=(8, 2)) @ low.normal(size=(2, 24))
        kernel = (low.normal(size=(5, 2)) @ low.normal(size=(2, 36))).reshape(5, 4, 3, 3)
        given = {"h.c_attn.weight": factor * update, "cnv.weight": factor * kernel}
        write_tensors(tmp_path / name / "model.safetensors", {n: t.astype(np.float32) for n, t in given.items()})
    extract(tmp_path, rank=2, choice=adapters.Choice(modules="c_attn|cnv", transposed=True))
    held, change = tensors(tmp_path / "out"), difference(tmp_path)
    a, b = (held[f"base_model.model.h.c_attn.lora_{x}.weight"] for x in "AB")
    np.testing.assert_allclose((b @ a).T, change["h.c_attn.weight"], atol=1e-5)
    assert configuration(tmp_path / "out")["fan_in_fan_out"] is True
    a, b = (held[f"base_model.model.cnv.lora_{x}.weight"] for x in "AB")
    assert (a.shape, b.shape) == ((2, 4, 3, 3), (5, 2, 1, 1))
    np.testing.assert_allclose(np.einsum("or,rihw->oihw", b[:, :, 0, 0], a), change["cnv.weight"], atol=1e-5)


def test_bfloat16_models_are_compared_in_float32(place):
    for name in ("base", "tuned"):
        with polyak.open(place / name) as model:
            halves = {n: model.read(n).astype(ml_dtypes.bfloat16) for n in model.specs}
        write_tensors(place / name / "model.safetensors", halves)
    extract(place, energy=1.0)
    for name, delta in deltas(place / "out").items():
        np.testing.assert_allclose(delta, difference(place)[f"{name}.weight"], atol=1e-5)


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ({}, "a rank, or an energy"),
        ({"rank": 0}, "at least 1; got 0"),
        ({"rank": 9}, "rank 9 is more than any matrix can have, which is 8"),
        ({"energy": 0.0}, "above 0"),
        ({"energy": float("nan")}, "above 0"),
        ({"rank": 1, "dtype": "int4"}, "unknown dtype 'int4'"),
        ({"rank": 1, "choice": adapters.Choice(modules="nothing")}, "'nothing' is found in the name of no matrix"),
        ({"rank": 1, "choice": adapters.Choice(modules="(")}, "not a regular expression"),
        ({"rank": 1, "choice": adapters.Choice(whole="nothing")}, "'nothing' is found in the name of no tensor"),
    ],
)
def test_what_cannot_be_done_is_refused(place, said, word):
    with pytest.raises(SettingError, match=word.replace("(", r"\(")):
        extract(place, **said)
    assert not (place / "out").exists()


def test_models_that_do_not_differ_or_do_not_fit_are_refused(place):
    with pytest.raises(Mismatch, match="no matrix"):
        adapters.extract(place / "base", place / "base", place / "out", rank=1)
    write_tensors(place / "small/model.safetensors", {"layers.0.q_proj.weight": noise(12, 9)})
    with pytest.raises(Mismatch, match="q_proj"):
        adapters.extract(place / "base", place / "small", place / "out", rank=1)
    with pytest.raises(CheckpointError, match="does not exist"):
        adapters.extract(place / "base", place / "nowhere", place / "out", rank=1)
    with pytest.raises(OutputError):
        adapters.extract(place / "base", place / "tuned", place / "tuned", rank=1, force=True)
    assert (place / "tuned/model.safetensors").exists()


def test_nan_is_named(place):
    with polyak.open(place / "tuned") as model:
        broken = {n: model.read(n).copy() for n in model.specs}
    broken["layers.1.k_proj.weight"][0, 0] = np.nan
    write_tensors(place / "tuned/model.safetensors", broken)
    with pytest.raises(CheckpointError, match=r"layers\.1\.k_proj\.weight.*tuned"):
        extract(place, rank=1)
    assert not (place / "out").exists()


def test_heads_and_longer_embeddings_of_a_fine_tune_are_kept_whole(tmp_path):
    rng = np.random.default_rng(0)
    layer = {"model.layers.0.q_proj.weight": rng.normal(size=(8, 8)).astype(np.float32)}
    base = layer | {
        name: rng.normal(size=(6, 8)).astype(np.float32) for name in ("lm_head.weight", "model.embed_tokens.weight")
    }
    tuned = {name: values + 0.1 * rng.normal(size=values.shape).astype(np.float32) for name, values in layer.items()}
    tuned |= {"model.embed_tokens.weight": rng.normal(size=(7, 8)), "score.weight": rng.normal(size=(3, 8))}
    write_model(tmp_path / "base", base)
    write_model(tmp_path / "tuned", {name: values.astype(np.float32) for name, values in tuned.items()})
    adapters.extract(tmp_path / "base", tmp_path / "tuned", tmp_path / "out", rank=2)
    config = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert config["modules_to_save"] == ["model.embed_tokens", "score"]
    assert config["target_modules"] == ["q_proj"]


@pytest.mark.filterwarnings("ignore")  # PEFT's and transformers' own
def test_peft_puts_a_head_that_the_base_lacks_onto_the_base(tmp_path):
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.LlamaConfig(**sizes, vocab_size=12, num_labels=3, pad_token_id=0)
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    tuned = transformers.LlamaForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=3).eval()
    for name, parameter in tuned.named_parameters():
        parameter.data += torch.randn_like(parameter) / 8 if "_proj" in name else 0
    tuned.save_pretrained(tmp_path / "tuned")
    extract(tmp_path, rank=16)
    assert configuration(tmp_path / "out")["modules_to_save"] == ["score"]
    torch.manual_seed(1)  # a head that differs from the fine-tune's until the adapter is there
    base = transformers.LlamaForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=3).eval()
    tokens = torch.tensor([[1, 2, 3, 4]])
    expected, before = tuned(tokens).logits, base(tokens).logits
    assert not torch.allclose(before, expected, atol=1e-2)
    loaded = peft.PeftModel.from_pretrained(base, tmp_path / "out").eval()
    torch.testing.assert_close(loaded(tokens).logits, expected, rtol=1e-4, atol=1e-5)
