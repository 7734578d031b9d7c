"""Small languages: sentences of words with one tag each; a share of the words is the same in all languages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

TAGS = ["noun", "verb", "other"]
WORDS = 36  # of a language
SHARED = {"aa": 1.0, "bb": 0.7, "cc": 0.4}  # share of the words of `aa` that a language has
_SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
_MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def word(language: str, i: int) -> str:
    """Word `i`, whose tag is that of `i` modulo 3, in a language."""
    own = "aa" if (i * 7 % WORDS) / WORDS < SHARED[language] else language
    return f"{own}{i}"


def write(folder: Path) -> None:
    """Write an encoder without a head, and a task file per language."""
    words = sorted({word(language, i) for language in SHARED for i in range(WORDS)})
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=len(words) + 4, max_position_embeddings=16, **_SIZES)
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained(folder / "encoder")
    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate([*_MARKS, *words])}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair=None, special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=made, **names).save_pretrained(folder / "encoder")
    for number, language in enumerate(SHARED):
        write_language(folder, language, number)


def write_language(folder: Path, language: str, seed: int, **changes: Any) -> None:
    """Write the task of a language."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(96):
        numbers = rng.integers(WORDS, size=rng.integers(3, 8)).tolist()
        rows.append({"tokens": [word(language, i) for i in numbers], "tags": [TAGS[i % 3] for i in numbers]})
    (folder / f"{language}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    splits = {"train": 0.5, "validation": 0.2, "test": 0.3}
    task = {"kind": "token-tagging", "data": f"{language}.jsonl", "splits": splits, "model": "encoder", "labels": TAGS}
    (folder / f"{language}.json").write_text(json.dumps(task | changes))


def keys(folder: Path, **more: Any) -> dict[str, Any]:
    """The keys of a recipe that trains for a second."""
    own = {"task": str(folder / "aa.json"), "targets": str(folder / "{language}.json"), "languages": ["bb", "cc"]}
    own |= {"model": str(folder / "encoder"), "epochs": 3, "batch_size": 16, "learning_rate": 0.02, "runs": 2}
    return own | {"freeze": "position_embeddings", "log_every": 1} | more
