"""The encoder with the tokens that a set of texts needs: its outputs for them are the same, its files a fraction."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ENVIRONMENT = "POLYAK_E5"


def pretrained() -> Path | None:
    """The folder of multilingual-e5-small for transformers, which POLYAK_E5 names; none without."""
    named = os.environ.get(ENVIRONMENT)
    return Path(named) if named and (Path(named) / "config.json").is_file() else None


def trim(source: Path, texts: Sequence[Sequence[str]], out: Path) -> None:
    """Write an encoder whose vocabulary has only the tokens of some texts, in their old order.

    A Unigram tokenizer segments these texts as before: the best segmentation uses tokens that stay.

    Args:
        source: Folder of a model of transformers with a Unigram tokenizer.
        texts: The texts, as words.
        out: The folder; one that is there stays as it is.
    """
    if (out / "config.json").is_file():
        return
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
    encoded = tokenizer([list(words) for words in texts], is_split_into_words=True)["input_ids"]
    described = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    marks = {entry["id"] for entry in described["added_tokens"] if entry["id"] < len(described["model"]["vocab"])}
    kept = sorted({i for ids in encoded for i in ids} | {described["model"]["unk_id"]} | marks)
    draft = out.with_name(f".{out.name}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (source / name).is_file():
            shutil.copyfile(source / name, draft / name)
    _write_weights(source, kept, draft)
    (draft / "tokenizer.json").write_text(json.dumps(_renumbered(described, kept)), encoding="utf-8")
    draft.rename(out)


def _write_weights(source: Path, kept: Sequence[int], out: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(source / "model.safetensors")
    (table,) = (name for name in tensors if name.endswith("word_embeddings.weight"))
    tensors[table] = tensors[table][list(kept)].clone()
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    (out / "config.json").write_text(json.dumps({**config, "vocab_size": len(kept)}), encoding="utf-8")


def _renumbered(described: dict[str, Any], kept: Sequence[int]) -> dict[str, Any]:
    """The tokenizer with the tokens of some numbers, numbered from 0."""
    new = {old: i for i, old in enumerate(kept)}
    vocabulary = described["model"]["vocab"]
    described["model"]["vocab"] = [vocabulary[old] for old in kept]
    described["model"]["unk_id"] = new[described["model"]["unk_id"]]
    described["added_tokens"] = [
        {**entry, "id": new[entry["id"]]} for entry in described["added_tokens"] if entry["id"] in new
    ]
    for special in described["post_processor"]["special_tokens"].values():
        special["ids"] = [new[old] for old in special["ids"]]
    return described
