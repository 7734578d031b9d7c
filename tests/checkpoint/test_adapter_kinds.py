"""Every kind of adapter on its base, against PEFT's own merge; and adapters that cannot be merged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polyak import adapters, checkpoint, recipe
from polyak.checkpoint import with_lora
from polyak.checkpoint.adapter_kinds import registry
from polyak.errors import CheckpointError, UnsupportedFormat

SIZES = {
    "vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip
MOE = {"num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "head_dim": 8}


def llama(**settings: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**SIZES | settings))


def biased() -> Any:
    return llama(attention_bias=True, mlp_bias=True)


def gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=50, n_positions=16))


def qwen3_moe() -> Any:
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    return Qwen3MoeForCausalLM(Qwen3MoeConfig(**SIZES, **MOE))


def mixtral() -> Any:
    from transformers import MixtralConfig, MixtralForCausalLM

    return MixtralForCausalLM(MixtralConfig(**SIZES, num_local_experts=3, num_experts_per_tok=2))


def gpt_oss() -> Any:
    from transformers import GptOssConfig, GptOssForCausalLM

    return GptOssForCausalLM(GptOssConfig(**SIZES, head_dim=8, num_local_experts=3, num_experts_per_tok=2))


def convolutions() -> Any:
    import torch

    class Convolutions(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide = torch.nn.Conv2d(8, 12, 3)
            self.pointwise = torch.nn.Conv2d(8, 12, 1)
            self.line = torch.nn.Conv1d(8, 12, 5)
            self.apart = torch.nn.Conv2d(8, 12, 3, groups=4)
            self.linear = torch.nn.Linear(8, 12)

    return Convolutions()


def all_of(*names: str) -> dict[str, Any]:
    return {"target_modules": list(names)}


CONVOLUTIONS = all_of("wide", "pointwise", "line")
CONVOLUTIONS_AND_LINEAR = all_of("wide", "pointwise", "line", "apart", "linear")
EXPERTS = {"target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]}
LORA: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "DoRA": (llama, {**all_of("q_proj", "v_proj", "down_proj"), "use_dora": True}),
    "DoRA on Conv1D": (gpt2, {**all_of("c_attn", "c_proj"), "use_dora": True, "fan_in_fan_out": True}),
    "DoRA on an embedding": (llama, {**all_of("embed_tokens", "q_proj"), "use_dora": True}),
    "DoRA on convolutions": (convolutions, {**CONVOLUTIONS, "use_dora": True}),
    "rank-stabilised DoRA": (llama, {**all_of("q_proj"), "use_dora": True, "use_rslora": True}),
    "bias of B": (biased, {**all_of("q_proj", "up_proj"), "lora_bias": True}),
    "trained tokens": (llama, {**all_of("q_proj"), "trainable_token_indices": {"embed_tokens": [1, 49, 5]}}),
    "trained tokens as a list": (llama, {**all_of("q_proj"), "trainable_token_indices": [0, 7]}),
    "trained tokens of a tied head": (
        lambda: llama(tie_word_embeddings=True),
        {**all_of("q_proj"), "trainable_token_indices": {"embed_tokens": [2]}},
    ),
    "experts": (qwen3_moe, {**all_of("q_proj"), **EXPERTS}),
    "experts, one parameter": (qwen3_moe, {"target_modules": [], "target_parameters": ["experts.down_proj"]}),
    "experts of Mixtral": (mixtral, {**all_of("q_proj"), **EXPERTS}),
    "experts of GPT-OSS": (gpt_oss, {**all_of("q_proj"), **EXPERTS}),
}
OTHERS: dict[str, tuple[Callable[[], Any], str, dict[str, Any]]] = {
    "LoHa": (llama, "LoHaConfig", all_of("q_proj", "down_proj")),
    "LoHa on convolutions": (convolutions, "LoHaConfig", CONVOLUTIONS_AND_LINEAR),
    "LoHa with cores": (convolutions, "LoHaConfig", {**CONVOLUTIONS_AND_LINEAR, "use_effective_conv2d": True}),
    "LoKr": (llama, "LoKrConfig", all_of("q_proj", "down_proj")),
    "LoKr, both decomposed": (llama, "LoKrConfig", {**all_of("q_proj", "down_proj"), "decompose_both": True, "r": 1}),
    "LoKr by a factor": (llama, "LoKrConfig", {**all_of("q_proj", "down_proj"), "decompose_factor": 2}),
    "LoKr on convolutions": (convolutions, "LoKrConfig", CONVOLUTIONS_AND_LINEAR),
    "LoKr of rank 1": (convolutions, "LoKrConfig", {**CONVOLUTIONS_AND_LINEAR, "r": 1}),
    "IA3": (
        biased, "IA3Config", {**all_of("k_proj", "v_proj", "down_proj"), "feedforward_modules": ["down_proj"]},
    ),
    "IA3 on Conv1D": (
        gpt2, "IA3Config",
        {**all_of("c_attn", "mlp.c_proj"), "feedforward_modules": ["mlp.c_proj"], "fan_in_fan_out": True},
    ),
    "IA3 on convolutions": (
        convolutions, "IA3Config", {**all_of("wide", "pointwise"), "feedforward_modules": ["wide"]},
    ),
    "trainable tokens alone": (
        llama, "TrainableTokensConfig", {**all_of("embed_tokens"), "token_indices": [3, 11]},
    ),
}  # fmt: skip


def made(folder: Path, make: Callable[[], Any], config: Any) -> tuple[Path, Any]:
    """A base and an adapter of random numbers in a folder; returns the base's path and the adapted model."""
    import peft
    import torch

    torch.manual_seed(0)
    model = make()
    if hasattr(model, "save_pretrained"):
        model.save_pretrained(folder / "base")
        model = type(model).from_pretrained(folder / "base")
    else:
        (folder / "base").mkdir()
        torch.save(model.state_dict(), folder / "base" / "pytorch_model.bin")
    adapted = peft.get_peft_model(model, config)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    adapted.save_pretrained(folder / "adapter")
    return folder / "base", adapted


def merged(adapted: Any, folder: Path) -> checkpoint.Checkpoint:
    """PEFT's merge, under the names that are stored."""
    import torch

    model = adapted.merge_and_unload()
    if hasattr(model, "save_pretrained"):
        model.save_pretrained(folder / "merged")
    else:
        (folder / "merged").mkdir()
        torch.save(model.state_dict(), folder / "merged" / "pytorch_model.bin")
    return checkpoint.open(folder / "merged")


def assert_equal(view: checkpoint.Checkpoint, want: checkpoint.Checkpoint) -> None:
    assert set(view.specs) == set(want.specs)
    for name in want.specs:
        exact = want.read(name)
        assert np.abs(view.read(name) - exact).max() <= 1e-6 * np.abs(exact).max(), name


@pytest.mark.filterwarnings("ignore")  # PEFT's and transformers' own
@pytest.mark.parametrize("case", LORA)
def test_kinds_of_lora_equal_what_peft_merges(case: str, tmp_path: Path):
    pytest.importorskip("transformers")
    peft = pytest.importorskip("peft")
    make, settings = LORA[case]
    base, adapted = made(tmp_path, make, peft.LoraConfig(**{"r": 4, "lora_alpha": 6, **settings}))
    assert_equal(with_lora(checkpoint.open(base), tmp_path / "adapter"), merged(adapted, tmp_path))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", OTHERS)
def test_other_kinds_equal_what_peft_merges(case: str, tmp_path: Path):
    pytest.importorskip("transformers")
    peft = pytest.importorskip("peft")
    make, config, settings = OTHERS[case]
    ranked = {"r": 4, "alpha": 6, "init_weights": False} if config.startswith("Lo") else {}
    base, adapted = made(tmp_path, make, getattr(peft, config)(**ranked | settings))
    assert_equal(with_lora(checkpoint.open(base), tmp_path / "adapter"), merged(adapted, tmp_path))


def small(kind: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Settings and tensors of an adapter of one module, `layer`, of 7 by 12 entries."""
    rng = np.random.default_rng(0)

    def random(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    factors = {"lora_A.weight": random(2, 12), "lora_B.weight": random(7, 2)}
    by_kind: dict[str, tuple[dict[str, Any], dict[str, np.ndarray]]] = {
        "lora": ({}, factors),
        "dora": ({"use_dora": True}, {**factors, "lora_magnitude_vector": random(7)}),
        "loha": (
            {"peft_type": "LOHA"},
            {f"hada_w{i}_{x}": random(*s) for i in "12" for x, s in (("a", (7, 2)), ("b", (2, 12)))},
        ),
        "lokr": (
            {"peft_type": "LOKR"}, {"lokr_w1": random(1, 3), "lokr_w2_a": random(7, 2), "lokr_w2_b": random(2, 4)},
        ),
        "ia3": ({"peft_type": "IA3", "feedforward_modules": ["layer"]}, {"ia3_l": random(1, 12)}),
        "trained_tokens": (
            {"trainable_token_indices": [6, 2]}, {"token_adapter.trainable_tokens_delta": random(2, 12)},
        ),
        "expert_parameters": (
            {"target_parameters": ["layer.weight"]}, {"lora_A.weight": random(2, 12), "lora_B.weight": random(7, 2)},
        ),
    }  # fmt: skip
    return by_kind[kind]


def write_small(folder: Path, kind: str, **more: Any) -> Path:
    settings, tensors = small(kind)
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "alpha": 4, **settings, **more}
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file = pytest.importorskip("safetensors.numpy").save_file
    save_file({f"base_model.model.layer.{n}": v for n, v in tensors.items()}, folder / "adapter_model.safetensors")
    return folder


def small_base() -> checkpoint.Checkpoint:
    return checkpoint.open({"layer.weight": np.random.default_rng(1).standard_normal((7, 12)).astype(np.float32)})


@pytest.mark.parametrize(
    ("parameter", "parts"),
    [
        ("gate_up_proj", ("gate_proj", "up_proj")),
        ("gate_up_proj", ("w1", "w3")),
        ("gate_up_proj", ("fc1", "fc3")),
        ("down_proj", ("w2",)),
        ("up_proj", ("up_proj",)),
    ],
)
def test_experts_that_a_base_without_a_config_stores_by_themselves(
    parameter: str, parts: tuple[str, ...], tmp_path: Path
):
    experts, rows, columns, rank = 3, 4, 6, 2
    rng = np.random.default_rng(0)
    a = rng.standard_normal((experts * rank, columns)).astype(np.float32)
    b = rng.standard_normal((len(parts) * rows, rank * experts)).astype(np.float32)
    at = "model.layers.0.mlp.experts"
    base = {
        f"{at}.{e}.{part}.weight": rng.standard_normal((rows, columns)).astype(np.float32)
        for e in range(experts)
        for part in parts
    }
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 4, "target_parameters": [f"mlp.experts.{parameter}"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    save_file = pytest.importorskip("safetensors.numpy").save_file
    factors = {f"base_model.model.{at}.lora_{role}.weight": values for role, values in (("A", a), ("B", b))}
    save_file(factors, tmp_path / "adapter_model.safetensors")
    view = with_lora(checkpoint.open(base), tmp_path)
    for e in range(experts):
        change = 2 * b.reshape(-1, rank, experts)[:, :, e] @ a.reshape(experts, rank, columns)[e]
        for part, rows_of_part in zip(parts, np.split(change, len(parts)), strict=True):
            name = f"{at}.{e}.{part}.weight"
            np.testing.assert_allclose(view.read(name), base[name] + rows_of_part, atol=1e-5)


def test_every_kind_is_tried():
    registry.load_all()
    for kind in registry:
        small(kind)


@pytest.mark.parametrize("kind", list(registry.built_in))
def test_the_bits_do_not_depend_on_the_range(kind: str, tmp_path: Path):
    view = with_lora(small_base(), write_small(tmp_path / "a", kind), scale=0.7)
    whole = view.read("layer.weight").reshape(-1)
    assert not np.array_equal(whole, small_base().read("layer.weight").reshape(-1))
    for start in range(whole.size):
        for stop in (start + 1, start + 5, start + 30, whole.size):
            if stop <= whole.size:
                part = np.empty(4 * (stop - start), np.uint8)
                view.read_into("layer.weight", start, stop, part)
                assert part.tobytes() == whole[start:stop].tobytes()


@pytest.mark.parametrize("kind", [kind for kind in registry.built_in if kind != "trained_tokens"])
def test_scale_is_the_factor_of_the_change(kind: str, tmp_path: Path):
    folder, weight = write_small(tmp_path / "a", kind), small_base().read("layer.weight")
    whole, half, none = (with_lora(small_base(), folder, scale=s).read("layer.weight") for s in (1.0, 0.5, 0.0))
    np.testing.assert_array_equal(none, weight)
    np.testing.assert_allclose(half - weight, 0.5 * (whole - weight), atol=1e-6)


@pytest.mark.parametrize("kind", [kind for kind in registry.built_in if kind != "lora"])
def test_an_adapter_of_two_of_them_is_refused_with_a_remedy(kind: str, tmp_path: Path):
    models = [{"path": str(write_small(tmp_path / name, kind)), "name": name} for name in "ab"]
    with pytest.raises(UnsupportedFormat, match="polyak lora bake"):
        adapters.merge(recipe.read({"method": "task_arithmetic", "models": models}, tmp_path), tmp_path / "out")


@pytest.mark.parametrize("kind", list(registry.built_in))
def test_a_module_of_another_shape_is_refused(kind: str, tmp_path: Path):
    base = checkpoint.open({"layer.weight": np.ones((5, 11), np.float32)})
    with pytest.raises(CheckpointError, match="layer"):
        with_lora(base, write_small(tmp_path / "a", kind))


def test_dora_without_its_magnitudes_is_refused(tmp_path: Path):
    with pytest.raises(CheckpointError, match="lora_magnitude_vector"):
        with_lora(small_base(), write_small(tmp_path / "a", "lora", use_dora=True))


@pytest.mark.parametrize("rows", [[7, 0], [1], [3, 3], [], ["1", 2]])
def test_rows_that_the_table_lacks_are_refused(rows: list[Any], tmp_path: Path):
    with pytest.raises(CheckpointError, match="row"):
        with_lora(small_base(), write_small(tmp_path / "a", "trained_tokens", trainable_token_indices=rows))


def test_a_grouped_convolution_is_refused_with_the_reason(tmp_path: Path):
    folder = write_small(tmp_path / "a", "lora")
    save_file = pytest.importorskip("safetensors.numpy").save_file
    factors = {"lora_A": np.ones((2, 8, 3, 3), np.float32), "lora_B": np.ones((8, 1, 1, 1), np.float32)}
    save_file(
        {f"base_model.model.layer.{n}.weight": v for n, v in factors.items()}, folder / "adapter_model.safetensors"
    )
    with pytest.raises(CheckpointError, match="groups"):
        with_lora(checkpoint.open({"layer.weight": np.ones((8, 4, 3, 3), np.float32)}), folder)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("rows", [46, 57])
def test_a_resized_vocabulary_is_that_of_the_result(rows: int, tmp_path: Path):
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    llama().save_pretrained(tmp_path / "base")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    model.resize_token_embeddings(rows)
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"])
    adapted = peft.get_peft_model(model, config)
    adapted.save_pretrained(tmp_path / "adapter")
    adapters.bake(tmp_path / "base", tmp_path / "adapter", tmp_path / "out")
    baked = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert baked.config.vocab_size == rows
    for name, value in adapted.merge_and_unload().state_dict().items():
        assert np.abs(baked.state_dict()[name].numpy() - value.numpy()).max() <= 1e-6


def test_a_vocabulary_that_is_resized_in_part_is_refused(tmp_path: Path):
    folder = write_small(tmp_path / "a", "lora", modules_to_save=["embed_tokens"])
    save_file = pytest.importorskip("safetensors.numpy").save_file
    save_file(
        {"base_model.model.embed_tokens.weight": np.ones((9, 4), np.float32)}, folder / "adapter_model.safetensors"
    )
    tables = {"embed_tokens.weight": np.ones((8, 4), np.float32), "lm_head.weight": np.zeros((8, 4), np.float32)}
    with pytest.raises(CheckpointError, match=r"lm_head\.weight.*has 8"):
        with_lora(checkpoint.open(tables), folder)
