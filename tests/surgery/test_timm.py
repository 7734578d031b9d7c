"""Image models in folders of timm: a config without `model_type`, and batch normalisation with counts.

timm needs torchvision, which has no build for every torch. Where it is missing, the folder is written as timm's
`save_for_hf` writes it, and read by the rule of timm's `local-dir:` models: `model.safetensors`, every name in it.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")

from .encoders import RECIPE, assert_mean, averaged  # noqa: E402

PRETRAINED = {"input_size": [1, 16, 16], "mean": [0.449], "std": [0.226], "num_classes": 3, "classifier": "fc"}
CONFIGS: dict[str, dict[str, Any]] = {
    "today": {"architecture": "test_resnet", "num_classes": 3, "num_features": 8, "pretrained_cfg": PRETRAINED},
    "before pretrained_cfg": {"architecture": "test_resnet", "num_features": 8, **PRETRAINED},
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def network(seed: int) -> Any:
    torch.manual_seed(seed)
    layers = [("conv1", torch.nn.Conv2d(1, 8, 3, bias=False)), ("bn1", torch.nn.BatchNorm2d(8))]
    layers += [("pool", torch.nn.AdaptiveAvgPool2d(1)), ("flatten", torch.nn.Flatten()), ("fc", torch.nn.Linear(8, 3))]
    return trained(torch.nn.Sequential(OrderedDict(layers)), (4, 1, 16, 16))


def trained(model: Any, shape: tuple[int, ...]) -> Any:
    """The model after a batch: the averages and counts of its batch normalisation are its own."""
    model.train()(torch.randn(shape))
    return model.eval()


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_merge_keeps_the_config_that_timm_reads(place, polyak, kind):
    for seed, name in enumerate("ab"):
        (place / name).mkdir()
        safetensors.save_file(network(seed).state_dict(), place / name / "model.safetensors")
        torch.save({}, place / name / "pytorch_model.bin")  # `safe_serialization="both"`
        (place / name / "config.json").write_text(json.dumps(CONFIGS[kind], indent=2))
    polyak("merge", "recipe.yaml", "out", "--quiet")
    assert json.loads(Path("out/config.json").read_text()) == CONFIGS[kind]
    assert "library_name: timm" in Path("out/README.md").read_text()
    assert not Path("out/pytorch_model.bin").exists()
    assert "pytorch_model.bin (weights that are not merged)" in polyak("plan", "recipe.yaml")
    a, b, merged = (safetensors.load_file(f"{name}/model.safetensors") for name in ("a", "b", "out"))
    assert_mean(merged, a, b)
    loaded = network(0)
    loaded.load_state_dict(merged)
    assert torch.isfinite(loaded(torch.ones(1, 1, 16, 16))).all()


@pytest.mark.parametrize("kind", CONFIGS)
def test_timm_loads_a_merge_of_its_models(place, polyak, kind):
    timm = pytest.importorskip("timm", reason="timm is not installed")
    from timm.models import save_for_hf

    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        model = trained(timm.create_model("test_resnet", num_classes=3, in_chans=1), (4, 1, 32, 32))
        save_for_hf(model, place / name, safe_serialization="both")
        if kind != "today":
            config = json.loads((place / name / "config.json").read_text())
            flat = {"architecture": config["architecture"], "num_features": config["num_features"]}
            (place / name / "config.json").write_text(json.dumps(flat | config["pretrained_cfg"]))
    polyak("merge", "recipe.yaml", "out", "--quiet")
    a, b, merged = (timm.create_model(f"local-dir:{name}", pretrained=True).eval() for name in ("a", "b", "out"))
    assert_mean(merged.state_dict(), a.state_dict(), b.state_dict())
    assert merged.pretrained_cfg["num_classes"] == 3
    image = torch.ones(1, 1, 32, 32)
    torch.testing.assert_close(merged(image), averaged(a, b)(image))
