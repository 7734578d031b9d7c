"""Tensors with one row per token, found by their names and by the vocabulary size of the config."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

from ...checkpoint import EMBEDDING, HEAD, NO_TOKENS, TensorSpec, layer_of
from ..compatibility import Opened, configs

_EMBEDDING = re.compile(rf"{EMBEDDING}|embed_tokens_per_layer\.weight$")
_HEAD = re.compile(r"(?:^|\.)(?:proj_out|generator|output_projection)\.weight$")
_BIAS = re.compile(r"(?:predictions|decoder|lm_head|embed_out|output|proj_out)\.bias$|final_logits_bias$")


def tables_of(model: Opened) -> tuple[int, list[str]]:
    """Number of rows of a model's embedding tables, and their names; 0 and no names if it has none."""
    outside = [spec for spec in model.checkpoint.specs.values() if layer_of(spec.name) is None]
    embeddings = [
        s for s in outside if len(s.shape) == 2 and _EMBEDDING.search(s.name) and not NO_TOKENS.search(s.name)
    ]
    if not embeddings:
        return 0, []
    stated = {size for part in configs(model.config) if isinstance(size := part.get("vocab_size"), int)}
    fitting = [spec for spec in embeddings if spec.shape[0] in stated] or embeddings
    rows = max(fitting, key=lambda spec: spec.numel).shape[0]
    return rows, [spec.name for spec in outside if _is_table(spec, rows)]


def _is_table(spec: TensorSpec, rows: int) -> bool:
    if _BIAS.search(spec.name):
        return spec.shape in ((rows,), (1, rows))
    named = any(pattern.search(spec.name) for pattern in (_EMBEDDING, HEAD, _HEAD))
    return len(spec.shape) == 2 and spec.shape[0] == rows and named and not NO_TOKENS.search(spec.name)


def with_vocabulary_size(config: Mapping[str, Any], old: int, new: int) -> dict[str, Any]:
    """A config in which vocabulary sizes of `old` are replaced by `new`."""
    changed: dict[str, Any] = {}
    for key, value in config.items():
        if key == "vocab_size" and value == old:
            changed[key] = new
        elif isinstance(value, dict):
            changed[key] = with_vocabulary_size(cast("dict[str, Any]", value), old, new)
        else:
            changed[key] = value
    return changed
