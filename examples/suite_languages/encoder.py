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
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
    used = {
        i for ids in tokenizer([list(words) for words in texts], is_split_into_words=True)["input_ids"] for i in ids
    }
    described = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    marks = {entry["id"] for entry in described["added_tokens"]}
    kept = sorted(used | {described["model"]["unk_id"]} | {i for i in marks if i < len(described["model"]["vocab"])})
    model: Any = AutoModel.from_pretrained(source, local_files_only=True)
    table = model.get_input_embeddings()
    table.weight.data = table.weight.data[kept].clone()
    table.num_embeddings = model.config.vocab_size = len(kept)
    draft = out.with_name(f".{out.name}")
    shutil.rmtree(draft, ignore_errors=True)
    model.save_pretrained(draft)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (source / name).is_file():
            shutil.copyfile(source / name, draft / name)
    (draft / "tokenizer.json").write_text(json.dumps(_renumbered(described, kept)), encoding="utf-8")
    draft.rename(out)


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
