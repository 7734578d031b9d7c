"""Reports of adapters that went wrong when they were merged with one another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import polyak as api
from polyak import adapters, recipe
from polyak.errors import Mismatch, PolyakError, UnsupportedFormat

from ..adapters.made import deltas, relative_error, write_adapter
from ..docs.models import write_tensors
from .adapted import close, llama, tensors, trained
from .reported import reported


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path


def merged(place: Path, weights: dict[str, float], method: str = "task_arithmetic", **more: Any) -> Path:
    models = [{"path": name, "name": name, "weight": weight} for name, weight in weights.items()]
    adapters.merge(recipe.read({"method": method, "models": models, **more}, place), place / "out", force=True)
    return place / "out"


def assert_sum(place: Path, weights: dict[str, float], **more: Any) -> None:
    """The merged update is the weighted sum of the updates, in float64."""
    parts = [(weight, deltas(place / name)) for name, weight in weights.items()]
    expected = {module: sum(w * part[module] for w, part in parts) for module in parts[0][1]}
    assert relative_error(deltas(merged(place, weights, **more)), expected) < 1e-6


@reported(
    "huggingface/peft#3013",
    what="Subtracting one adapter from another gave (A1 - A2)(B1 + B2), with terms of A1 B2 and A2 B1.",
    versions="files only",
    result="`lora merge` subtracts the products exactly, against B A in float64.",
)
def test_a_difference_has_no_cross_terms(place: Path):
    for seed, name in enumerate("ab"):
        write_adapter(place / name, seed)
    assert_sum(place, {"a": 1, "b": -1})


@reported(
    "huggingface/peft#2918",
    what="Adapters that were merged with negative weights came out wrong.",
    versions="files only",
    result="The weight is put on one factor only; sums with negative weights are exact.",
)
def test_negative_weights(place: Path):
    for seed, name in enumerate("abc"):
        write_adapter(place / name, seed)
    assert_sum(place, {"a": -0.5, "b": -0.25, "c": 1.5})


@reported(
    "huggingface/peft#1155",
    what="With the weights [1, 0, 0] the merged adapter was not the first one: weights were applied to A alone.",
    versions="files only",
    result="The merged update is that of the first adapter.",
)
def test_weights_of_zero(place: Path):
    for seed, name in enumerate("abc"):
        write_adapter(place / name, seed)
    out = merged(place, {"a": 1, "b": 0, "c": 0}, "linear")
    assert relative_error(deltas(out), deltas(place / "a")) < 1e-6


@reported(
    "huggingface/peft#3449",
    what="Merging a single rank-stabilised adapter with weight 1 gave another adapter: the scaling was applied twice.",
    versions="files only",
    result="The update is unchanged, also in a sum with a plain adapter.",
)
def test_rank_stabilised_scaling_is_kept(place: Path):
    write_adapter(place / "a", 0, rank=4, use_rslora=True)
    write_adapter(place / "b", 1, rank=4)
    assert relative_error(deltas(merged(place, {"a": 1})), deltas(place / "a")) < 1e-6
    assert_sum(place, {"a": 1, "b": 2})


@reported(
    "huggingface/peft#3761",
    what="DoRA adapters were combined as if they were plain LoRA, in silence.",
    versions="files only",
    result="Refused with the way out: each is baked, and the models are merged; done so, the mean is exact.",
)
def test_dora_is_baked_before_it_is_merged(place: Path):
    shapes, rng = {"layer": (5, 6)}, np.random.default_rng(0)
    write_tensors(place / "base.safetensors", {"layer.weight": rng.standard_normal((5, 6)).astype(np.float32)})
    for seed, name in enumerate("ab"):
        magnitudes = {"base_model.model.layer.lora_magnitude_vector": rng.random(5).astype(np.float32) + 1}
        write_adapter(place / name, seed, shapes=shapes, tensors=magnitudes, use_dora=True)
    with pytest.raises(UnsupportedFormat, match=r"Bake each adapter .*then merge the models"):
        merged(place, {"a": 1, "b": 1})
    for name in "ab":
        adapters.bake(place / "base.safetensors", place / name, place / f"baked-{name}")
    both = [tensors(place / f"baked-{name}")["layer.weight"] for name in "ab"]
    models = [f"./baked-{name}" for name in "ab"]
    api.merge(recipe.read({"method": "linear", "models": models}, place), place / "out")
    np.testing.assert_allclose(tensors(place / "out")["layer.weight"], (both[0] + both[1]) / 2, rtol=1e-6)


@reported(
    "huggingface/peft#3737",
    what="An adapter merged from adapters with `rank_pattern` could not be loaded: size mismatch for lora_A.",
    versions="peft 0.21.2, transformers 5.24.0",
    result="PEFT loads the merged adapter, and its weights are the base plus the sum of the updates.",
)
@pytest.mark.filterwarnings("ignore")
def test_ranks_by_pattern_are_loaded_by_peft(place: Path):
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    config = {
        "r": 4,
        "target_modules": ["q_proj", "v_proj"],
        "rank_pattern": {"v_proj": 2, "layers.1.self_attn.q_proj": 3},
    }
    for seed, name in enumerate("ab"):
        trained(place, llama(), peft.LoraConfig(**config), seed=seed, name=name)
    out = merged(place, {"a": 1, "b": -0.5}, adapter={"base": "base"})
    load = transformers.AutoModelForCausalLM.from_pretrained
    loaded = peft.PeftModel.from_pretrained(load(place / "base"), out).merge_and_unload().state_dict()
    base, parts = tensors(place / "base"), [deltas(place / name) for name in "ab"]
    for module in parts[0]:
        expected = base[f"{module}.weight"] + parts[0][module] - 0.5 * parts[1][module]
        assert close(loaded[f"{module}.weight"].numpy(), expected)


@reported(
    "huggingface/peft#3769",
    what="SVD merges failed for LoRA on Conv1d and Conv3d, whose updates were not made matrices.",
    versions="files only",
    result="`lora merge` with a rank gives the best approximation of that rank, against NumPy's SVD.",
)
def test_convolutions_are_truncated(place: Path):
    shapes = {"line": (6, 4, 3), "volume": (6, 4, 3, 2, 2), "flat": (6, 4, 1, 1)}
    for seed, name in enumerate("ab"):
        write_adapter(place / name, seed, rank=3, shapes=shapes)
    found = deltas(merged(place, {"a": 1, "b": 1}, adapter={"rank": 2}))
    parts = [deltas(place / name) for name in "ab"]
    for module, shape in shapes.items():
        u, s, v = np.linalg.svd((parts[0][module] + parts[1][module]).reshape(shape[0], -1), full_matrices=False)
        assert close(found[module], (u[:, :2] * s[:2] @ v[:2]).reshape(shape))


@reported(
    "oobabooga/textgen#5631",
    what="Adapters of different ranks could not be combined.",
    versions="files only",
    result="`lora merge` gives the exact weighted mean; the ranks add up.",
)
def test_different_ranks(place: Path):
    for seed, (name, rank) in enumerate({"a": 1, "b": 3}.items()):
        write_adapter(place / name, seed, rank=rank)
    expected = {m: (d + 3 * deltas(place / "b")[m]) / 4 for m, d in deltas(place / "a").items()}
    out = merged(place, {"a": 1, "b": 3}, "linear")
    assert relative_error(deltas(out), expected) < 1e-6
    assert json.loads((out / "adapter_config.json").read_text())["r"] == 4


@reported(
    "huggingface/peft#1137",
    what="Several adapters with `modules_to_save` were merged together, although only one of their heads can stay.",
    versions="files only",
    result="Heads are averaged by weight; methods that have no mean of heads are refused until a rule says `linear`.",
)
def test_whole_heads_of_several_adapters(place: Path):
    heads = {name: np.random.default_rng(i).standard_normal((3, 8)).astype(np.float32) for i, name in enumerate("ab")}
    for seed, name in enumerate("ab"):
        whole = {"base_model.model.score.weight": heads[name]}
        write_adapter(place / name, seed, tensors=whole, modules_to_save=["score"])
    mean = (heads["a"] + 3 * heads["b"]) / 4
    out = merged(place, {"a": 1, "b": 3}, "linear")
    name = "base_model.model.score.weight"
    np.testing.assert_allclose(tensors(out / "adapter_model.safetensors")[name], mean, rtol=1e-6)
    ties: dict[str, Any] = {"settings": {"density": 0.5}, "adapter": {"rank": 2}}
    with pytest.raises(PolyakError, match="score"):
        merged(place, {"a": 1, "b": 3}, "ties", **ties)
    out = merged(place, {"a": 1, "b": 3}, "ties", rules=[{"match": "score", "method": "linear"}], **ties)
    np.testing.assert_allclose(tensors(out / "adapter_model.safetensors")[name], mean, rtol=1e-6)


@reported(
    "hiyouga/LlamaFactory#2038",
    what="Several adapters could be put into a base one after another, but not by weight.",
    versions="files only",
    result="`lora:` takes a list with scales: W + 0.3 times one update + 0.7 times the other, exactly.",
)
def test_a_base_with_adapters_by_weight(place: Path):
    weight = np.random.default_rng(5).standard_normal((12, 8)).astype(np.float32)
    write_tensors(place / "base.safetensors", {"layer.weight": weight})
    for seed, name in enumerate("ab"):
        write_adapter(place / name, seed, shapes={"layer": (12, 8)})
    lora = [{"path": "a", "scale": 0.3}, {"path": "b", "scale": 0.7}]
    made = {"method": "passthrough", "models": [{"path": "base.safetensors", "lora": lora}]}
    api.merge(recipe.read(made, place), place / "out")
    expected = weight + 0.3 * deltas(place / "a")["layer"] + 0.7 * deltas(place / "b")["layer"]
    np.testing.assert_allclose(tensors(place / "out")["layer.weight"], expected, atol=1e-5)


@reported(
    "arcee-ai/mergekit#470",
    what="A recipe that names adapters as its models ended in a TypeError about NoneType.",
    versions="files only",
    result="Refused by name with both ways out; `polyak lora merge` of the same adapters works.",
)
def test_adapters_in_the_place_of_models(place: Path, polyak: Any):
    for seed, name in enumerate("ab"):
        write_adapter(place / name, seed)
    lines = [f"- {{model: ./{name}, parameters: {{weight: 0.5}}}}" for name in "ab"]
    (place / "recipe.yaml").write_text("merge_method: linear\nmodels:\n" + "\n".join(lines) + "\n")
    told = polyak("merge", "recipe.yaml", "out", code=4)
    assert "is an adapter, not a model" in told
    assert "`polyak lora merge`" in told
    polyak("lora", "merge", "a", "b", "out")
    expected = {m: (d + deltas(place / "b")[m]) / 2 for m, d in deltas(place / "a").items()}
    assert relative_error(deltas(place / "out"), expected) < 1e-6


@reported(
    "kohya-ss/sd-scripts#1522",
    what="Flux adapters of another trainer were read as having no modules (`dim: [], alpha: []`), then a traceback.",
    versions="files only",
    result="Refused as the form of diffusers, with the calls that fuse it, by `lora merge` and `merge` alike.",
)
def test_flux_adapters_in_a_file(place: Path):
    name = "transformer.single_transformer_blocks.0.attn.to_k"
    for file in ("a.safetensors", "b.safetensors"):
        factors = {f"{name}.lora_A.weight": np.ones((2, 8)), f"{name}.lora_B.weight": np.ones((8, 2))}
        write_tensors(place / file, {key: value.astype(np.float32) for key, value in factors.items()})
    weights = {"a.safetensors": 0.3, "b.safetensors": 0.7}
    with pytest.raises(UnsupportedFormat, match=r"form of diffusers.*fuse_lora"):
        merged(place, weights)
    with pytest.raises(UnsupportedFormat, match=r"form of diffusers.*fuse_lora"):
        api.merge(recipe.read({"method": "linear", "models": list(weights)}, place), place / "out")


@reported(
    "huggingface/peft#1676",
    what="It was unclear what becomes of the heads of adapters for different tasks.",
    versions="files only",
    result="Refused if the heads differ in shape, naming them; `skip: score`, as the error says, merges the rest.",
)
def test_heads_of_different_tasks(place: Path):
    for seed, name in enumerate("ab"):
        head = np.ones((2 + seed, 8), np.float32)
        write_adapter(place / name, seed, tensors={"base_model.model.score.weight": head}, modules_to_save=["score"])
    with pytest.raises(Mismatch, match=r"'score.weight' is \[2, 8\] in a but \[3, 8\] in b(.|\n)*`skip: REGEX`"):
        merged(place, {"a": 1, "b": 1})
    assert_sum(place, {"a": 1, "b": 1}, skip="score")
