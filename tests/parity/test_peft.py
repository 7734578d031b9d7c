"""Merged and extracted adapters against PEFT: what it loads, what it computes, and how exact its own merges are."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polyak import adapters, recipe
from polyak.checkpoint import open as opened
from polyak.checkpoint import with_lora

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

pytestmark = pytest.mark.filterwarnings("ignore")  # PEFT's and transformers' own
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}


def _llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**SIZES, vocab_size=50, num_key_value_heads=2))


def _gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=50, n_positions=16))


def _bert() -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(BertConfig(**SIZES, vocab_size=50, max_position_embeddings=16, num_labels=3))


def _convolutions() -> Any:
    class Convolutions(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide = torch.nn.Conv2d(4, 6, 3)
            self.pointwise = torch.nn.Conv2d(6, 5, 1)

        def forward(self, input_ids: Any) -> Any:
            images = torch.nn.functional.one_hot(input_ids[:, :16] % 4, 4).float().mT.reshape(-1, 4, 4, 4)
            return {"logits": self.pointwise(self.wide(images))}

    return Convolutions()


# Settings of two adapters each.
CASES: dict[str, tuple[Any, list[dict[str, Any]]]] = {
    "llama": (_llama, [{"target_modules": ["q_proj", "down_proj"], "r": r, "lora_alpha": 6} for r in (2, 4)]),
    "mixed": (
        _llama,
        [
            {"target_modules": ["q_proj", "k_proj"], "r": 2, "rank_pattern": {"k_proj": 5}, "use_rslora": True},
            {"target_modules": "all-linear", "r": 3, "alpha_pattern": {"layers.1.self_attn.q_proj": 1}},
        ],
    ),
    "embeddings": (_llama, [{"target_modules": ["embed_tokens", "o_proj"], "r": r} for r in (2, 3)]),
    "transposed": (_gpt2, [{"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True, "r": r} for r in (3, 2)]),
    "classifier": (_bert, [{"target_modules": ["query"], "task_type": "SEQ_CLS", "r": r} for r in (2, 2)]),
    "biases": (
        _bert,
        [{"target_modules": ["query", "value"], "bias": "lora_only", "modules_to_save": ["classifier"]}] * 2,
    ),
    "convolutions": (_convolutions, [{"target_modules": ["wide", "pointwise"], "r": r} for r in (2, 3)]),
}  # fmt: skip
LOW_RANK = ["llama", "embeddings", "transposed", "convolutions"]
INPUT = {"input_ids": torch.arange(32).reshape(2, 16) % 50}


def made(case: str, place: Path) -> tuple[Any, Path]:
    """The base model, and a folder with it and two adapters, `a` and `b`."""
    make, settings = CASES[case]
    torch.manual_seed(0)
    base = make().eval()
    torch.save(base.state_dict(), place / "base.pt")
    for name, said in zip("ab", settings, strict=True):
        adapted = peft.get_peft_model(fresh(case, place), peft.LoraConfig(**said))
        with torch.no_grad():
            for key, parameter in adapted.named_parameters():
                if parameter.requires_grad or "lora_" in key:
                    parameter.copy_(torch.randn_like(parameter) * 0.3)
        adapted.save_pretrained(place / name, safe_serialization=True)
    return base, place


def fresh(case: str, place: Path) -> Any:
    model = CASES[case][0]().eval()
    model.load_state_dict(torch.load(place / "base.pt"))
    return model


def merged(place: Path, out: str, weights: tuple[float, float] = (1, 1), **said: Any) -> adapters.Report:
    models = [{"path": name, "weight": w} for name, w in zip("ab", weights, strict=True)]
    return adapters.merge(recipe.read({"models": models, "method": "task_arithmetic"} | said, place), place / out)


def loaded(case: str, place: Path, adapter: str) -> Any:
    """PEFT's model, and that it found every key it wants and no other."""
    model = peft.PeftModel.from_pretrained(fresh(case, place), place / adapter)
    found = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
    held = opened(place / adapter / "adapter_model.safetensors")
    assert {name.replace(".default", "") for name in found} == set(held.specs)
    return model.eval()


def weights_with(place: Path, adapter: str) -> dict[str, np.ndarray]:
    """Base plus adapter, by our own view."""
    view = with_lora(opened(place / "base.pt", key=""), place / adapter)
    return {name: view.read(name).astype(np.float64) for name in [*view.specs, *view.ties]}


@pytest.mark.parametrize("case", CASES)
def test_peft_loads_a_merge_and_computes_base_plus_the_weighted_sum(case: str, tmp_path: Path):
    base, place = made(case, tmp_path)
    average = {"method": "linear"} if case in ("classifier", "biases") else {}
    share = 0.5 if average else 1
    report = merged(place, "out", adapter={"absent": "zero"}, **average)
    assert report.share_lost == 0
    start = {name: value.double().numpy() for name, value in base.state_dict().items()}
    a, b = weights_with(place, "a"), weights_with(place, "b")
    wanted = {name: start[name] + share * ((a[name] - start[name]) + (b[name] - start[name])) for name in start}
    model = fresh(case, place)
    model.load_state_dict({name: torch.from_numpy(value).float() for name, value in wanted.items()})
    with torch.no_grad():
        want, got = model(**INPUT)["logits"], loaded(case, place, "out")(**INPUT)["logits"]
        before = base(**INPUT)["logits"]
    assert (got - want).abs().max() <= 1e-4 * want.abs().max()
    assert (got - before).abs().max() > 1e-2 * want.abs().max()


@pytest.mark.parametrize("case", LOW_RANK)
def test_peft_loads_results_of_other_methods_with_ranks_of_their_own(case: str, tmp_path: Path):
    base, place = made(case, tmp_path)
    merged(place, "out", method="ties", adapter={"energy": 0.8})
    weights = weights_with(place, "out")
    model = fresh(case, place)
    model.load_state_dict({name: torch.from_numpy(value).float() for name, value in weights.items()})
    with torch.no_grad():
        want, got = model(**INPUT)["logits"], loaded(case, place, "out")(**INPUT)["logits"]
    assert (got - want).abs().max() <= 1e-4 * want.abs().max()
    assert base is not None


@pytest.mark.parametrize("case", LOW_RANK)
@pytest.mark.parametrize(("kind", "weights"), [("cat", (1.0, -0.5)), ("svd", (1.0, -1.0))])
def test_our_error_is_no_larger_than_that_of_peft(case: str, kind: str, weights: tuple[float, float], tmp_path: Path):
    _, place = made(case, tmp_path)
    merged(place, "out", weights, adapter={} if kind == "cat" else {"rank": 3})
    model = peft.PeftModel.from_pretrained(fresh(case, place), place / "a", adapter_name="a")
    model.load_adapter(place / "b", adapter_name="b")
    model.add_weighted_adapter(["a", "b"], list(weights), "m", combination_type=kind, svd_rank=3)
    model.save_pretrained(place / "theirs", selected_adapters=["m"])
    exact = {name: weights[0] * delta + weights[1] * other for name, delta, other in _both(place)}
    ours, theirs = (_error(_products(place / at), exact) for at in ("out", "theirs/m"))
    scale = np.sqrt(sum(np.sum(e**2) for e in exact.values()))
    assert ours <= theirs + 2e-7 * scale
    if kind == "cat":
        assert ours <= 2e-7 * scale


def test_the_linear_combination_of_peft_is_not_the_weighted_sum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _, settings = CASES["llama"]
    monkeypatch.setitem(CASES, "llama", (_llama, [settings[0], settings[0]]))  # it wants equal ranks
    _, place = made("llama", tmp_path)
    model = peft.PeftModel.from_pretrained(fresh("llama", place), place / "a", adapter_name="a")
    model.load_adapter(place / "b", adapter_name="b")
    model.add_weighted_adapter(["a", "b"], [1.0, 1.0], "m", combination_type="linear")
    model.save_pretrained(place / "theirs", selected_adapters=["m"])
    exact = {name: delta + other for name, delta, other in _both(place)}
    scale = np.sqrt(sum(np.sum(e**2) for e in exact.values()))
    assert _error(_products(place / "theirs/m"), exact) > 0.5 * scale
    report = merged(place, "ours", method="linear", adapter={"space": "factors"})
    assert report.share_lost > 0.1  # the same thing, with its error


def _both(place: Path):
    a, b = _products(place / "a"), _products(place / "b")
    return [(name, a[name], b[name]) for name in a]


def _products(folder: Path) -> dict[str, np.ndarray]:
    """s B A of every module, in float64."""
    from polyak.adapters._opened import Adapter

    adapter = Adapter("it", folder)
    found: dict[str, np.ndarray] = {}
    for name, module in adapter.modules.items():
        b, a = adapter.factors(name)
        found[name] = module.scaling * (b.astype(np.float64) @ a.astype(np.float64))
    return found


def _error(found: dict[str, np.ndarray], exact: dict[str, np.ndarray]) -> float:
    assert set(found) == set(exact)
    return float(np.sqrt(sum(np.sum((found[name] - exact[name]) ** 2) for name in exact)))


@pytest.mark.parametrize("case", ["llama", "transposed"])
def test_peft_loads_an_extraction_that_gives_the_tuned_model_back(case: str, tmp_path: Path):
    base, place = made(case, tmp_path)
    place_of_tuned = place / "tuned"
    tuned = fresh(case, place)
    names = ("q_proj", "down_proj") if case == "llama" else ("c_attn", "c_fc")
    with torch.no_grad():
        for key, parameter in tuned.named_parameters():
            if any(f"{name}.weight" in key for name in names):
                parameter.add_(torch.randn(parameter.shape[0], 3) @ torch.randn(3, parameter.shape[1]), alpha=0.1)
    base.save_pretrained(place / "base")
    tuned.save_pretrained(place_of_tuned)
    choice = adapters.Choice(transposed=case == "transposed")
    report = adapters.extract(place / "base", place_of_tuned, place / "out", rank=3, choice=choice)
    assert {m.name.rpartition(".")[2] for m in report.modules} == set(names)
    assert report.share_lost < 1e-9
    assert not report.left_out
    prefix = "" if case == "llama" else "transformer."
    assert all(m.name.startswith(prefix) for m in report.modules)
    with torch.no_grad():
        want, got = tuned(**INPUT)["logits"], loaded(case, place, "out")(**INPUT)["logits"]
    assert (got - want).abs().max() <= 1e-4 * want.abs().max()


def test_peft_has_what_the_page_says():
    from peft.tuners.lora.model import LoraModel

    source = inspect.getsource(LoraModel)
    rivals = json.loads((Path(__file__).parents[2] / "docs" / "rivals.json").read_text(encoding="utf-8"))
    named = [name for names in rivals["PEFT 0.21"].values() for name in names.split(", ")]
    assert [name for name in named if f'"{name}"' not in source] == []
