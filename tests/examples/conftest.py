"""An encoder and texts small enough to run an example on."""

import gzip
import json
import random
from pathlib import Path

import pytest

WORDS = ["red", "green", "blue", "one", "two", "three", "cat", "dog", "bird", "the", "a", "is"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained encoder of one layer, with a tokenizer of a dozen words."""
    for name in ("torch", "transformers"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("encoder")
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", *WORDS])}
    tokens = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokens, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(vocabulary), **size)).save_pretrained(folder)
    return folder


def write_texts(file: Path, classes: int, count: int, seed: int) -> None:
    """Write texts whose first word is their class."""
    draw = random.Random(seed)
    with gzip.open(file, "wt", encoding="utf-8") as opened:
        for i in range(count):
            text = " ".join([WORDS[i % classes], *draw.choices(WORDS[-3:], k=4)])
            opened.write(json.dumps({"text": text, "label": i % classes}) + "\n")
