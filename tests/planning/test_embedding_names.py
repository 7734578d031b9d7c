"""Names of embeddings: of tensors that stand in for a tied head, have a row per token, or give the vocabulary size."""

from __future__ import annotations

import numpy as np
import pytest

import polyak
from polyak.checkpoint import holder_of
from polyak.planning.compatibility import Opened
from polyak.planning.output.sidecars import follow
from polyak.planning.tokens.embedding_tables import tables_of

ROWS, WIDTH = 7, 3


def model(name: str) -> Opened:
    config = {"tie_word_embeddings": True, "vocab_size": 1}
    return Opened("m", polyak.open({name: np.zeros((ROWS, WIDTH), np.float32)}), config)


# Stands in for a tied head, is a table of tokens, gives the vocabulary size.
@pytest.mark.parametrize(
    ("name", "ties", "table", "size"),
    [
        ("model.embed_tokens.weight", True, True, True),
        ("bert.embeddings.word_embeddings.weight", True, True, True),
        ("transformer.wte.weight", True, True, True),
        ("gpt_neox.embed_in.weight", True, True, True),
        ("shared.weight", True, True, True),
        ("tok_embeddings.weight", True, True, False),
        ("embeddings.word_embedding.weight", True, True, False),
        ("transformer.embedding.weight", True, True, False),
        ("xshared.weight", True, True, True),
        ("model.embed_tokens_per_layer.weight", False, True, False),
        ("embeddings.position_embeddings.weight", False, False, False),
        ("embeddings.token_type_embeddings.weight", False, False, False),
        ("transformer.wpe.weight", False, False, False),
        ("embed_tokens.bias", False, False, False),
        ("embed_tokens.weight.scale", False, False, False),
        ("embed_tokensXweight", False, False, False),
        ("EMBED_TOKENS.weight", False, False, False),
        ("norm.weight", False, False, False),
    ],
)
def test_each_use_knows_the_names_that_it_needs(name, ties, table, size):
    opened = model(name)
    assert (holder_of("lm_head.weight", opened.checkpoint, opened.config) == name) is ties
    assert tables_of(opened) == ((ROWS, [name]) if table else (0, []))
    config = follow({"vocab_size": 1}, list(opened.checkpoint.specs.values()))
    assert config["vocab_size"] == (ROWS if size else 1)
