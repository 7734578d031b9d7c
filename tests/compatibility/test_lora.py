"""Reports of adapters that went wrong when they were merged into their base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import polyak
from polyak import checkpoint
from polyak.checkpoint import with_lora
from polyak.errors import CheckpointError, UnsupportedFormat

from .adapted import baked, baked_logits, changed, close, gpt2, llama, logits, shifted, tensors, trained
from .reported import reported

pytestmark = pytest.mark.filterwarnings("ignore")  # PEFT's and transformers' own
torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")


def module(layer: Any) -> Any:
    """A model of one layer."""
    model = torch.nn.Module()
    model.layer = layer
    return model


@reported(
    "huggingface/peft#2486",
    what="With `lora_bias` the bias of B was added to the base's bias without the scaling alpha / r.",
    versions="peft 0.21.2",
    result="`lora bake` adds s times the bias, equal to the formula in NumPy.",
)
def test_the_bias_of_b_is_scaled(tmp_path: Path):
    base = module(torch.nn.Linear(6, 5))
    before = base.layer.bias.detach().numpy().copy()
    trained(tmp_path, base, peft.LoraConfig(r=2, lora_alpha=8, lora_bias=True, target_modules=["layer"]))
    added = tensors(tmp_path / "adapter" / "adapter_model.safetensors")["base_model.model.layer.lora_B.bias"]
    assert np.abs(added).max() > 0
    np.testing.assert_allclose(baked(tmp_path)["layer.bias"], before + 4 * added, rtol=1e-6)


@reported(
    "huggingface/peft#3582",
    what="A key of `alpha_pattern` that begins with ^ matches no module of PEFT and is ignored in silence.",
    versions="peft 0.21.2, transformers 5.24.0",
    result="`lora bake` scales such modules as PEFT runs them: the logits of the adapted model.",
)
def test_patterns_match_the_modules_that_they_match_in_peft(tmp_path: Path):
    pattern = {"^q_proj": 100, "layers.1.self_attn.v_proj": 2, ".*o_proj": 3}
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "o_proj"], alpha_pattern=pattern)
    adapted = trained(tmp_path, llama(), config)
    expected = logits(adapted)
    assert close(baked_logits(tmp_path), expected)


@reported(
    "huggingface/peft#1588",
    what="Merging DoRA into GPT-2 failed or used the norms of the wrong axis, since Conv1D stores its weights "
    "transposed.",
    versions="peft 0.21.2, transformers 5.24.0",
    result="`lora bake` gives the logits of the adapted model, also for square weights.",
)
def test_dora_on_transposed_weights(tmp_path: Path):
    config = peft.LoraConfig(r=4, use_dora=True, fan_in_fan_out=True, target_modules=["c_attn", "c_proj"])
    expected = logits(trained(tmp_path, gpt2(), config))
    assert close(baked_logits(tmp_path), expected)


@reported(
    "predibase/lorax#106",
    what="An adapter of GPT-2 was added untransposed, which goes unnoticed where the weight is square.",
    versions="peft 0.21.2, transformers 5.24.0",
    result="`lora bake` gives PEFT's weights; a configuration that denies the transposition is refused, and setting "
    "fan_in_fan_out as the error says heals it.",
)
def test_lora_on_transposed_weights(tmp_path: Path):
    config = peft.LoraConfig(r=4, fan_in_fan_out=True, target_modules=["c_attn", "attn.c_proj"])
    adapted = trained(tmp_path, gpt2(), config)
    changed(tmp_path / "adapter", fan_in_fan_out=False)
    with pytest.raises(CheckpointError, match=r"fan_in_fan_out is false\. Set it to true"):
        baked(tmp_path)
    changed(tmp_path / "adapter", fan_in_fan_out=True)
    name, values = "transformer.h.1.attn.c_proj.weight", baked(tmp_path)
    assert close(values[name], adapted.merge_and_unload().state_dict()[name].numpy())


@reported(
    "huggingface/peft#1707",
    what="Merging an adapter that was trained with `layer_replication` gave a model without the repeated layers.",
    versions="peft 0.21.2, transformers 5.24.0",
    result="Refused; with the layers repeated by `slices:`, as the error says, the logits are the adapted model's.",
)
def test_repeated_layers(tmp_path: Path):
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], layer_replication=[[0, 2], [1, 2]])
    expected = logits(trained(tmp_path, llama(), config))
    with pytest.raises(UnsupportedFormat, match="`slices:`"):
        baked(tmp_path)
    slices = [{"models": [{"path": str(tmp_path / "base"), "layers": layers}]} for layers in ([0, 2], [1, 2])]
    polyak.merge(polyak.recipe.read({"method": "passthrough", "slices": slices}, tmp_path), tmp_path / "deeper")
    changed(tmp_path / "adapter", layer_replication=None)
    polyak.adapters.bake(tmp_path / "deeper", tmp_path / "adapter", tmp_path / "baked")
    assert close(logits(transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "baked")), expected)


@reported(
    "huggingface/transformers#34468",
    what="PiSSA changes the base weights when it is initialised, so its adapter is wrong on the base that it names.",
    versions="peft 0.21.2, transformers 5.24.0",
    result="Refused; after the conversion by PEFT's save_pretrained that the error names, the logits are the adapted "
    "model's.",
)
def test_an_initialisation_that_changes_the_base(tmp_path: Path):
    base = llama()
    base.save_pretrained(tmp_path / "base")
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights="pissa")
    adapted = peft.get_peft_model(base, config)
    adapted.peft_config["default"].init_lora_weights = True
    adapted.save_pretrained(tmp_path / "initial")
    adapted.peft_config["default"].init_lora_weights = "pissa"
    shifted(adapted).save_pretrained(tmp_path / "adapter")
    with pytest.raises(UnsupportedFormat, match="path_initial_model_for_weight_conversion"):
        baked(tmp_path)
    expected = logits(adapted)
    adapted.save_pretrained(tmp_path / "plain", path_initial_model_for_weight_conversion=str(tmp_path / "initial"))
    baked(tmp_path, "plain")
    assert close(logits(transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "baked")), expected, 1e-4)


@reported(
    "tiiuae/Falcon-H1#13",
    what="LoRA on the depthwise convolution of a Mamba layer cannot be merged: the shapes do not fit.",
    versions="files only",
    result="Refused: the sum is no grouped convolution; without that module, as the error says, the rest is merged.",
)
def test_a_depthwise_convolution(tmp_path: Path):
    from ..adapters.made import write_adapter

    base = checkpoint.open({"conv1d.weight": np.ones((6, 1, 4), np.float32), "out.weight": np.ones((5, 6), np.float32)})
    shapes = {"conv1d": (6, 6, 4), "out": (5, 6)}
    with pytest.raises(CheckpointError, match=r"'conv1d'.*has groups.*train it without this module"):
        with_lora(base, write_adapter(tmp_path / "both", shapes=shapes))
    del shapes["conv1d"]
    view = with_lora(base, write_adapter(tmp_path / "rest", shapes=shapes))
    assert not np.array_equal(view.read("out.weight"), base.read("out.weight"))


@reported(
    "hiyouga/LlamaFactory#3125",
    what="An adapter that was trained with a larger vocabulary did not fit its base: size mismatch for embed_tokens.",
    versions="peft 0.21.2, transformers 5.24.0",
    result="`lora bake` takes the larger tables, sets vocab_size, and gives the logits of the adapted model.",
)
def test_a_larger_vocabulary(tmp_path: Path):
    base = llama()
    base.save_pretrained(tmp_path / "base")
    base.resize_token_embeddings(67)
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"])
    expected = logits(trained(tmp_path, base, config))
    baked(tmp_path)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "baked")
    assert model.config.vocab_size == 67
    assert close(logits(model), expected)


@reported(
    "huggingface/trl#297",
    what="The merged reward model lacked the score head that the adapter had trained on a base without one.",
    versions="peft 0.21.2, transformers 5.24.0",
    result="`lora bake` onto the language model keeps the trained head; the scores are the adapted model's.",
)
def test_the_head_of_a_reward_model(tmp_path: Path):
    llama(pad_token_id=0).save_pretrained(tmp_path / "base")
    load = transformers.AutoModelForSequenceClassification.from_pretrained
    config = peft.LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["q_proj"])
    adapted = trained(tmp_path, load(tmp_path / "base", num_labels=1), config)
    expected = logits(adapted)
    baked(tmp_path)
    assert close(logits(load(tmp_path / "baked", num_labels=1).eval()), expected)


@reported(
    "huggingface/peft#438",
    what="Merging failed as soon as LoRA was on the token embedding.",
    versions="peft 0.21.2, transformers 5.24.0",
    result="`lora bake` gives the logits of the adapted model.",
)
def test_lora_on_an_embedding(tmp_path: Path):
    expected = logits(trained(tmp_path, llama(), peft.LoraConfig(r=4, target_modules=["embed_tokens", "q_proj"])))
    assert close(baked_logits(tmp_path), expected)


@reported(
    "huggingface/peft#637",
    what="LoRA on Conv2d layers was merged wrongly.",
    versions="peft 0.21.2",
    result="The baked convolution computes what the adapted one computes.",
)
def test_lora_on_a_convolution(tmp_path: Path):
    adapted = trained(tmp_path, module(torch.nn.Conv2d(3, 4, 3)), peft.LoraConfig(r=2, target_modules=["layer"]))
    inputs = torch.randn(1, 3, 8, 8)
    expected = adapted.base_model.model.layer(inputs).detach().numpy()
    values = {name: torch.tensor(value) for name, value in baked(tmp_path).items()}
    outputs = torch.nn.functional.conv2d(inputs, values["layer.weight"], values["layer.bias"])
    assert close(outputs.numpy(), expected)
