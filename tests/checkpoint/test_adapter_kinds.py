"""Every kind of adapter on its base, against PEFT's own merge; and adapters that cannot be merged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polyak import checkpoint
from polyak.checkpoint import with_lora

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
    "LoKr with cores": (convolutions, "LoKrConfig", {**CONVOLUTIONS_AND_LINEAR, "r": 1, "use_effective_conv2d": True}),
    "IA3": (
        biased, "IA3Config", {**all_of("k_proj", "v_proj", "down_proj"), "feedforward_modules": ["down_proj"]},
    ),
    "IA3 on Conv1D": (
        gpt2, "IA3Config",
        {**all_of("c_attn", "mlp.c_proj"), "feedforward_modules": ["mlp.c_proj"], "fan_in_fan_out": True},
    ),
    "IA3 on convolutions": (convolutions, "IA3Config", {**all_of("wide", "pointwise"), "feedforward_modules": ["wide"]}),
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
