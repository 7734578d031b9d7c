"""mergekit's part of `vocabulary_speed.py`, for an interpreter that mergekit is installed for: FOLDER MODELS."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from mergekit.common import ModelReference
from mergekit.tokenizer.build import build_tokenizer
from mergekit.tokenizer.embed import PermutedVocabulary
from safetensors.torch import load_file


def main() -> None:
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    models = [ModelReference.model_validate(str(folder / f"m{i}")) for i in range(count)]
    began = time.perf_counter()
    info = build_tokenizer(models[0], models, "union", trust_remote_code=False, add_tokens=[])
    built = time.perf_counter()
    files = [load_file(folder / f"m{i}" / "model.safetensors") for i in range(count)]
    names = ("model.embed_tokens.weight", "lm_head.weight")
    task = PermutedVocabulary.model_construct(
        tokens=None, pad_to_multiple_of=None, base_model=models[0], vocabulary_axis=0
    )
    found = [task.execute(info, {m: file[name] for m, file in zip(models, files, strict=True)}) for name in names]
    ended = time.perf_counter()
    np.save(folder / "mergekit.npy", torch.stack([torch.stack([one[m] for one in found]) for m in models]).numpy())
    result = {"tables": ended - built, "all": ended - began, "numbers": info.tokenizer.get_vocab()}
    (folder / "mergekit.json").write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
