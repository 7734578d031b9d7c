"""Adapters of many architectures against PEFT: their modules are often called otherwise than the stored tensors."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from polyak import adapters, recipe
from polyak.checkpoint.naming.structure import Facts
from polyak.errors import UnsupportedFormat

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

from .architectures import ARCHITECTURES, model_of  # noqa: E402

# PEFT cannot find the linear layers of Wav2Vec2, and refuses one of Mamba's.
FUSED = {
    "mixtral",
    "qwen3_moe",
}  # whose experts PEFT adapts as one parameter: an update per expert, in one pair of factors
TARGETS = {"mamba": ["in_proj", "x_proj"], "wav2vec2": ["q_proj", "v_proj", "intermediate_dense"]}
pytestmark = pytest.mark.filterwarnings("ignore")  # PEFT's and transformers' own


@pytest.fixture(autouse=True)
def _quiet() -> None:
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)


def _distance(folder: Path, wanted: Any) -> float:
    """The largest difference of a saved model from a model of the same class."""
    got = type(wanted).from_pretrained(folder).state_dict()
    state = wanted.state_dict()
    assert got.keys() == state.keys()
    return max(float((got[name].double() - state[name].double()).abs().max()) for name in got)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_adapter_of_peft_is_put_into_its_base(name: str, tmp_path: Path) -> None:
    model = model_of(name)
    model.save_pretrained(tmp_path / "base")
    config = peft.LoraConfig(r=4, target_modules=TARGETS.get(name, "all-linear"), init_lora_weights=False)
    tuned = peft.get_peft_model(type(model).from_pretrained(tmp_path / "base"), config)
    tuned.save_pretrained(tmp_path / "adapter")
    adapters.bake(tmp_path / "base", tmp_path / "adapter", tmp_path / "baked")
    assert _distance(tmp_path / "baked", tuned.merge_and_unload()) < 1e-6


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_extracted_adapter_is_loaded_by_peft(name: str, tmp_path: Path) -> None:
    model = model_of(name)
    model.save_pretrained(tmp_path / "base")
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    model.save_pretrained(tmp_path / "tuned")
    report = adapters.extract(tmp_path / "base", tmp_path / "tuned", tmp_path / "adapter", rank=4)
    adapters.bake(tmp_path / "base", tmp_path / "adapter", tmp_path / "baked")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Found missing adapter keys")
        loaded = peft.PeftModel.from_pretrained(type(model).from_pretrained(tmp_path / "base"), tmp_path / "adapter")
    factors = [key for key in loaded.state_dict() if ".lora_A." in key]
    assert len(factors) == len(report.modules)
    assert _distance(tmp_path / "baked", loaded.merge_and_unload()) < 1e-6


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_merge_of_adapters_is_loaded_by_peft(name: str, tmp_path: Path) -> None:
    base = model_of(name)
    base.save_pretrained(tmp_path / "base")
    expected = {key: value.double() for key, value in base.state_dict().items()}
    weights = {"first": 0.75, "second": -0.25}
    for adapter, weight in weights.items():
        config = peft.LoraConfig(r=4, target_modules=TARGETS.get(name, "all-linear"), init_lora_weights=False)
        tuned = peft.get_peft_model(type(base).from_pretrained(tmp_path / "base"), config)
        tuned.save_pretrained(tmp_path / adapter)
        for key, value in tuned.merge_and_unload().state_dict().items():
            expected[key] = expected[key] + weight * (value.double() - base.state_dict()[key].double())
    models = [{"path": adapter, "weight": weight} for adapter, weight in weights.items()]
    data = {"models": models, "method": "linear", "settings": {"normalize": False}, "adapter": {"rank": 8}}
    if name in FUSED:
        with pytest.raises(UnsupportedFormat, match=r"target_parameters.*Bake each adapter"):
            adapters.merge(recipe.read(data, tmp_path), tmp_path / "merged")
        return
    adapters.merge(recipe.read(data, tmp_path), tmp_path / "merged")
    loaded = peft.PeftModel.from_pretrained(type(base).from_pretrained(tmp_path / "base"), tmp_path / "merged")
    merged = loaded.merge_and_unload().state_dict()
    assert merged.keys() == expected.keys()
    assert max(float((merged[key].double() - expected[key]).abs().max()) for key in merged) < 1e-6


def test_the_table_of_architectures_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "adapters.md").read_text(encoding="utf-8")
    kinds: dict[str, list[str]] = {}
    for name, (kind, _, _) in ARCHITECTURES.items():
        kinds.setdefault(kind, []).append(f"`{name}`")
    for kind, names in kinds.items():
        assert f"| {kind} | {', '.join(names)} |" in page


def test_the_snapshot_has_the_rules_of_the_installed_library() -> None:
    import transformers

    from polyak.checkpoint.naming.facts import snapshot
    from polyak.checkpoint.naming.library import read_rules

    if transformers.__version__ != snapshot().version:
        pytest.skip(f"the snapshot is of transformers {snapshot().version}")
    assert snapshot().rules == read_rules()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_snapshot_has_the_structure_of_the_installed_library(name: str) -> None:
    from transformers.conversion_mapping import get_model_conversion_mapping

    from polyak.checkpoint.naming.facts import snapshot
    from polyak.checkpoint.naming.structure import kinds_of, parts_of, rules_of, starred

    model = model_of(name)
    parts = list(parts_of(type(model).__name__, model.config.to_dict(), snapshot()))
    wanted = [rule.compiled_sources.pattern for rule in get_model_conversion_mapping(model)]
    assert [rule.pattern for rule in rules_of(parts, snapshot())] == wanted
    kinds = kinds_of(parts, snapshot())
    for path, module in model.named_modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Embedding) and "out_proj" not in path:
            kind = "linear" if isinstance(module, torch.nn.Linear) else "embedding"
            assert kinds.get(starred(f"{path}.weight"), "linear") == kind


@pytest.mark.parametrize("name", ["llama", "llava", "qwen2_moe"])
def test_a_newer_library_is_asked_itself(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    from polyak import checkpoint
    from polyak.checkpoint.naming import facts

    if transformers.__version__ != facts.snapshot().version:
        pytest.skip(f"the snapshot is of transformers {facts.snapshot().version}")
    model_of(name).save_pretrained(tmp_path)
    base = checkpoint.open(tmp_path)
    shipped = checkpoint.run_time_of(base)
    facts._installed.cache_clear()
    monkeypatch.setattr(facts, "snapshot", lambda: Facts(version="0.1"))  # so that no fact of it can help
    asked = checkpoint.run_time_of(base)
    facts._installed.cache_clear()
    assert shipped is not None
    assert asked is not None
    assert (asked.rules, asked.kinds, asked.names) == (shipped.rules, shipped.kinds, shipped.names)
    assert asked.blocks == shipped.blocks


def test_the_first_of_several_classes_without_a_head_is_the_one_of_a_model_type() -> None:
    from polyak.checkpoint.naming.library import read_bases

    assert read_bases()["funnel"] == "FunnelModel"  # the library names FunnelBaseModel besides
    assert all(type(name) is str for name in read_bases().values())
