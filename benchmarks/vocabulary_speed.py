"""How long does it take to bring the tables of models with other tokens into one order?

Four models with 32,000 tokens each, of which most are shared, and two tables a model. Timed: reading the tokenizers,
their union, and every table of every model in the order of the union. `--mergekit PYTHON` has the mergekit of that
interpreter do the same and compares its rows, token by token.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from _machine import machine

import polyak
from polyak.checkpoint import DTYPES, TensorSpec
from polyak.checkpoint.safetensors import layout

HERE = Path(__file__).parent
MODELS, TOKENS, SHARED, HIDDEN = 4, 32_000, 31_000, 64
TABLES = ("model.embed_tokens.weight", "lm_head.weight")
TARGET = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="counted runs, after one that does not count")
    parser.add_argument("--tokens", type=int, default=TOKENS, help="tokens of each model")
    parser.add_argument("--mergekit", type=Path, metavar="PYTHON", help="also measure that interpreter's mergekit")
    parser.add_argument("--results", type=Path, default=HERE / "vocabulary_results.json", help="file of results")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), options.runs, options.tokens, options.mergekit)
    options.results.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))


def measure(folder: Path, runs: int, tokens: int, mergekit: Path | None) -> dict[str, Any]:
    """Write the models, and measure.

    Raises:
        SystemExit: the rows of the two tools differ.
    """
    for i in range(MODELS):
        write_model(folder / f"m{i}", i, tokens)
    times: list[dict[str, float]] = []
    for _ in range(runs + 1):
        rows, numbers, taken = align(folder)
        times.append(taken)
    ours = {stage: round(statistics.median(one[stage] for one in times[1:]), 4) for stage in times[0]}
    found = {"machine": machine(folder), "models": MODELS, "tokens": tokens, "hidden": HIDDEN, "target": TARGET}
    theirs = None if mergekit is None else with_mergekit(folder, mergekit, rows, numbers)
    ratio = {} if theirs is None else {stage: round(theirs[stage] / ours[stage], 1) for stage in ours}
    return {**found, "polyak_s": ours, "mergekit_s": theirs, "ratio": ratio}


def align(folder: Path) -> tuple[np.ndarray, dict[str, int], dict[str, float]]:
    """The tables of all models in the order of the union, (models, tables, rows, HIDDEN), and the seconds it took."""
    began = time.perf_counter()
    models = [str(folder / f"m{i}") for i in range(MODELS)]
    plan = polyak.plan({"base": models[0], "models": models[1:], "method": "task_arithmetic", "vocabulary": "union"})
    planned = time.perf_counter()
    found = [[model.read(name) for name in TABLES] for model in plan.models.values()]
    ended = time.perf_counter()
    data = plan.sidecars.written["tokenizer.json"]
    numbers = data["model"]["vocab"] | {one["content"]: one["id"] for one in data["added_tokens"]}
    return np.array(found), numbers, {"tables": ended - planned, "all": ended - began}


def with_mergekit(folder: Path, python: Path, rows: np.ndarray, numbers: dict[str, int]) -> dict[str, float]:
    """Let mergekit do it, and compare.

    Raises:
        SystemExit: a row differs.
    """
    subprocess.run([python, HERE / "_vocabulary_mergekit.py", folder, str(MODELS)], check=True)
    theirs = json.loads((folder / "mergekit.json").read_text(encoding="utf-8"))
    table = np.load(folder / "mergekit.npy")
    order = [theirs["numbers"][token] for token in numbers]
    if numbers.keys() != theirs["numbers"].keys() or not np.array_equal(
        rows[:, :, list(numbers.values())], table[:, :, order]
    ):
        sys.exit("the rows of the two tools differ")
    return {stage: round(theirs[stage], 4) for stage in ("tables", "all")}


def write_model(folder: Path, number: int, tokens: int) -> None:
    """A model with two tables and a tokenizer of words; each model has its own order."""
    folder.mkdir()
    rng = np.random.default_rng(number)
    shared = tokens * SHARED // TOKENS
    words = [f"w{i}" for i in range(shared)] + [f"m{number}-{i}" for i in range(tokens - shared)]
    words = ["<unk>", *(words[i] for i in rng.permutation(tokens))][:tokens]
    _write_tokenizer(folder, words)
    tensors = {name: rng.standard_normal((tokens, HIDDEN), dtype=np.float32) for name in TABLES}
    head, offsets = layout([TensorSpec(n, DTYPES["F32"], t.shape) for n, t in tensors.items()], {"format": "pt"})
    with (folder / "model.safetensors").open("wb") as file:
        file.write(head)
        for name, tensor in tensors.items():
            file.seek(offsets[name])
            file.write(tensor.tobytes())
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": tokens}
    shape = {"hidden_size": HIDDEN, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": HIDDEN}
    (folder / "config.json").write_text(json.dumps(config | shape | {"tie_word_embeddings": False}))


def _write_tokenizer(folder: Path, words: list[str]) -> None:
    model = {"type": "WordLevel", "vocab": {word: i for i, word in enumerate(words)}, "unk_token": "<unk>"}
    plain = dict.fromkeys(["truncation", "padding", "normalizer", "post_processor", "decoder"])
    data = {"version": "1.0", **plain, "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"}, "model": model}
    (folder / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')


if __name__ == "__main__":
    main()
