"""Adapters of a model with a tied head, baked: the logits are those of PEFT, and config.json says what is tied."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polyak import adapters, checkpoint

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
# In PEFT the head and the embedding have updates of their own, but for trained tokens.
CASES: dict[str, tuple[dict[str, Any], bool]] = {  # settings, and whether the result is tied
    "both kept whole": ({"modules_to_save": ["embed_tokens", "lm_head"]}, False),
    "both kept whole, tied": ({"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}, True),
    "LoRA on the head": ({"target_modules": ["q_proj", "lm_head"]}, False),
    "LoRA on the embedding": ({"target_modules": ["q_proj", "embed_tokens"]}, False),
    "embedding kept whole": ({"modules_to_save": ["embed_tokens"]}, False),
    "trained tokens": ({"trainable_token_indices": {"embed_tokens": [2]}}, True),
    "trained tokens of both": ({"trainable_token_indices": {"embed_tokens": [2], "lm_head": [3]}}, False),
}
pytestmark = pytest.mark.filterwarnings("ignore")  # PEFT's and transformers' own


def _write_base(folder: Path, *, head_first: bool) -> None:
    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
    config = transformers.LlamaConfig(**sizes, num_hidden_layers=1, tie_word_embeddings=True)
    model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(folder)
    if head_first:  # then the file's holder is the head, and the embedding its alias
        (folder / "model.safetensors").unlink()
        state = model.state_dict()
        torch.save({HEAD: state.pop(HEAD), **state}, folder / "pytorch_model.bin")


def _logits(model: Any) -> Any:
    with torch.no_grad():
        return model.eval()(torch.arange(10)[None]).logits


@pytest.mark.parametrize("head_first", [False, True], ids=["declared", "head first"])
@pytest.mark.parametrize("case", CASES)
def test_a_baked_adapter_computes_what_it_does_in_peft(case: str, head_first: bool, tmp_path: Path) -> None:
    settings, tied = CASES[case]
    base, adapter, out = (tmp_path / name for name in ("base", "adapter", "out"))
    _write_base(base, head_first=head_first)
    config = peft.LoraConfig(**{"r": 4, "target_modules": ["q_proj"], "init_lora_weights": False, **settings})
    tuned = peft.get_peft_model(transformers.AutoModelForCausalLM.from_pretrained(base), config)
    with torch.no_grad():
        for weight in tuned.parameters():
            if weight.requires_grad:
                weight.add_(0.1 * torch.randn_like(weight))
    wanted = _logits(tuned)
    tuned.save_pretrained(adapter)
    adapters.bake(base, adapter, out)
    torch.testing.assert_close(
        _logits(transformers.AutoModelForCausalLM.from_pretrained(out)), wanted, atol=1e-5, rtol=0
    )
    assert json.loads((out / "config.json").read_text())["tie_word_embeddings"] == tied
    with checkpoint.open(out) as stored:
        if not tied:
            assert {HEAD, EMBEDDING} <= set(stored.specs)
        elif HEAD in stored.specs and EMBEDDING in stored.specs:  # a reader that believes the config takes one of them
            np.testing.assert_array_equal(stored.read(HEAD), stored.read(EMBEDDING))
