"""Small models and tokenizers as their libraries save them, and a check that a merge is the mean of its models."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RECIPE = "method: linear\nmodels: [./a, {path: ./b, weight: 3}]\n"
MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused0]", "[unused1]"]
WORDS = [*MARKS, *(f"w{i}" for i in range(16))]
SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}


def write_encoder(folder: Path, seed: int, kind: Any = None) -> str:
    """A BERT of one layer, of any class, and a tokenizer of single words."""
    import torch
    import transformers

    torch.manual_seed(seed)
    config = transformers.BertConfig(vocab_size=len(WORDS), max_position_embeddings=32, **SIZES)
    (kind or transformers.BertModel)(config).save_pretrained(folder)
    write_tokenizer(folder)
    return str(folder)


def write_tokenizer(folder: Path) -> None:
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = [(word, WORDS.index(word)) for word in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    names = ("pad", "unk", "cls", "sep", "mask")
    marks = {f"{name}_token": mark for name, mark in zip(names, MARKS, strict=False)}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **marks).save_pretrained(folder)


def assert_mean(merged: Mapping[str, Any], a: Mapping[str, Any], b: Mapping[str, Any]) -> None:
    """Compare state dicts with RECIPE's mean in float64; integers, such as counts of batches, are those of `a`."""
    import torch

    assert merged.keys() == a.keys()
    for name, tensor in merged.items():
        mean = (a[name].double() + 3 * b[name].double()) / 4
        expected = mean.to(tensor.dtype) if tensor.is_floating_point() else a[name]
        torch.testing.assert_close(tensor, expected, msg=lambda text, name=name: f"{name}: {text}")


def averaged(a: Any, b: Any) -> Any:
    """A copy of module `a` with RECIPE's mean, for comparing outputs."""
    model, other = copy.deepcopy(a), b.state_dict()
    model.load_state_dict({name: (own.double() + 3 * other[name].double()) / 4 for name, own in a.state_dict().items()})
    return model
