"""CPU time of extracting an adapter of rank 16 from a fine-tune of the shapes of SmolLM2-135M.

The linear layers of both models are random and differ in every direction, the slowest case; neither has an embedding,
which an extraction leaves out.  CPU time is that of one worker, from opening the models to the published folder.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from _machine import machine

from polyak import adapters
from polyak.adapters import low_rank
from polyak.checkpoint import DTYPES, TensorSpec
from polyak.checkpoint.safetensors import layout

RESULTS = Path(__file__).with_name("extract.json")
LAYERS, HIDDEN, INTERMEDIATE, KEYS, RANK = 30, 576, 1536, 192, 16
RUNS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        measurement = measured(Path(work), options.layers)
    options.results.write_text(json.dumps(measurement, indent=2) + "\n", encoding="utf-8")
    for row in measurement["rows"]:
        print(f"{row['decomposition']:<12} {row['cpu_seconds']:>7.2f} s CPU, relative error {row['error']:.9f}")


def measured(work: Path, layers: int) -> dict[str, Any]:
    write(work / "base", layers, 0)
    write(work / "tuned", layers, 1)
    load = f"{os.getloadavg()[0]:.1f}"
    rows = [least(work, name) for name in ("certified", "full")]
    return {
        "machine": machine(work) | {"load average at the start": load},
        "what": f"rank {RANK} from {layers} layers, hidden {HIDDEN}, intermediate {INTERMEDIATE}",
        "rows": rows,
    }


def least(work: Path, decomposition: str) -> dict[str, Any]:
    """The fastest of a few runs: other processes only add to CPU time."""
    low_rank._LARGE = 256 if decomposition == "certified" else 10**9
    runs = [extracted(work, f"{decomposition}-{number}") for number in range(RUNS)]
    return min(runs, key=lambda run: run["cpu_seconds"]) | {"decomposition": decomposition}


def extracted(work: Path, decomposition: str) -> dict[str, Any]:
    began = time.process_time()
    report = adapters.extract(work / "base", work / "tuned", work / decomposition, rank=RANK, workers=1)
    seconds = time.process_time() - began
    return {"decomposition": decomposition, "cpu_seconds": seconds, "error": report.share_lost**0.5}


def shapes(layers: int) -> Iterator[tuple[str, tuple[int, int]]]:
    for layer in range(layers):
        at = f"model.layers.{layer}"
        yield f"{at}.self_attn.q_proj.weight", (HIDDEN, HIDDEN)
        yield f"{at}.self_attn.k_proj.weight", (KEYS, HIDDEN)
        yield f"{at}.self_attn.v_proj.weight", (KEYS, HIDDEN)
        yield f"{at}.self_attn.o_proj.weight", (HIDDEN, HIDDEN)
        yield f"{at}.mlp.gate_proj.weight", (INTERMEDIATE, HIDDEN)
        yield f"{at}.mlp.up_proj.weight", (INTERMEDIATE, HIDDEN)
        yield f"{at}.mlp.down_proj.weight", (HIDDEN, INTERMEDIATE)


def write(folder: Path, layers: int, seed: int) -> None:
    """A model of random float32 weights."""
    folder.mkdir()
    specs = [TensorSpec(name, DTYPES["F32"], shape) for name, shape in shapes(layers)]
    head, offsets = layout(specs, {"format": "pt"})
    rng = np.random.Generator(np.random.SFC64(seed))
    with (folder / "model.safetensors").open("wb") as file:
        file.write(head)
        for spec in specs:
            file.seek(offsets[spec.name])
            file.write((0.02 * rng.standard_normal(spec.shape, dtype=np.float32)).tobytes())


if __name__ == "__main__":
    main()
