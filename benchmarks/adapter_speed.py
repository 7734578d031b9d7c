"""How long does merging adapters take, and how exact is it, beside PEFT's `svd`?

Eight adapters of rank 16 on every linear layer of a Llama-shaped model become one of rank 16.  polyak merges all
modules, from files to a file.  PEFT merges one module of each shape, in memory; its time for the whole model is the sum
over shapes of the time of one times their number.  Errors are those of the modules that both merged, against the exact
sum in float64.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from _checkpoints import Llama
from _inputs import SHAPES
from _machine import machine

from polyak import adapters, recipe
from polyak.checkpoint import DTYPES, TensorSpec
from polyak.checkpoint import open as opened
from polyak.checkpoint.safetensors import layout

ADAPTERS, RANK, ALPHA = 8, 16, 32
RESULTS = Path(__file__).with_name("adapters.json")
WEIGHTS = [0.5 + 0.125 * i for i in range(ADAPTERS)]
Shapes = Mapping[str, tuple[int, int]]


def main() -> None:
    options = _options()
    shape = SHAPES[options.shape]
    assert isinstance(shape, Llama)
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        found = measured(Path(work), shape, options)
    found["command"] = f"python benchmarks/adapter_speed.py --shape {options.shape} --runs {options.runs}"
    if options.results:
        options.results.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    for row in found["rows"]:
        print(f"{row['work']:<50} {row['modules']:>5} {row['seconds']:>9.3g} s  error {row['error']:.9g}")
    print(found["ratio"])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shape", choices=[n for n, s in SHAPES.items() if isinstance(s, Llama)], default="500M")
    parser.add_argument("--runs", type=int, default=3, help="counted runs of ours; PEFT runs once")
    parser.add_argument("--work", type=Path, help="folder for inputs and outputs")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args()


def measured(work: Path, shape: Llama, options: argparse.Namespace) -> dict[str, Any]:
    modules = {n.removesuffix(".weight"): s for n, s in shape.shapes() if "_proj" in n}
    for number in range(ADAPTERS):
        write_adapter(work / f"adapter-{number}", modules, number)
    samples = {size: name for name, size in modules.items()}
    load = f"{os.getloadavg()[0]:.1f}"
    ours(work, "warm")
    before = [ours(work, f"out-{i}") for i in range(options.runs)]
    theirs = {name: peft_svd(work, name, size) for size, name in samples.items()}
    after = [ours(work, f"again-{i}") for i in range(options.runs)]
    seconds = statistics.median(before + after)
    counts = {name: sum(s == size for s in modules.values()) for size, name in samples.items()}
    whole = sum(theirs[name][0] * count for name, count in counts.items())
    exact = {name: total(work, name) for name in samples.values()}
    merged = {name: product(work / "out-0", name) for name in exact}
    rows = [
        ["polyak, all modules, from files to a file", len(modules), seconds, error(merged, exact)],
        ["PEFT svd, one module of each shape", len(samples), sum(t for t, _ in theirs.values()),
         error({n: p for n, (_, p) in theirs.items()}, exact)],
        ["the best there is, by SVD in float64", len(samples), *best(exact)],
    ]  # fmt: skip
    peft = __import__("peft").__version__
    return {
        "machine": machine(work)
        | {"load average at the start": load}
        | {"torch": __import__("torch").__version__, "peft": peft},
        "what": f"{ADAPTERS} adapters of rank {RANK} on the {len(modules)} linear layers of a {options.shape} Llama "
        f"shape, merged to rank {RANK}. The error is that of the sampled modules, most of it the truncation's.",
        "rows": [dict(zip(["work", "modules", "seconds", "error"], row, strict=True)) for row in rows],
        "every_run": before + after,
        "peft_seconds_a_module": {name: t for name, (t, _) in theirs.items()},
        "ratio": f"PEFT needs {whole:.0f} s for all modules by these times, {whole / seconds:.0f} times as long "
        f"(target: at least 30 times).",
    }


def write_adapter(folder: Path, modules: Shapes, number: int) -> None:
    """An adapter of random factors, in float32."""
    folder.mkdir(parents=True)
    targets = sorted({name.rpartition(".")[2] for name in modules})
    said = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "target_modules": targets, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(said | {"base_model_name_or_path": "base"}))
    specs = [TensorSpec(name, DTYPES["F32"], size) for name, size in _factors(modules)]
    head, offsets = layout(specs, {"format": "pt"})
    rng = np.random.Generator(np.random.SFC64(number))
    with (folder / "adapter_model.safetensors").open("wb") as file:
        file.write(head)
        for spec in specs:
            file.seek(offsets[spec.name])
            file.write((0.02 * rng.standard_normal(spec.shape, dtype=np.float32)).tobytes())


def _factors(modules: Shapes) -> Iterator[tuple[str, tuple[int, int]]]:
    for name, (rows, columns) in modules.items():
        yield f"base_model.model.{name}.lora_A.weight", (RANK, columns)
        yield f"base_model.model.{name}.lora_B.weight", (rows, RANK)


def ours(work: Path, out: str) -> float:
    models = [{"path": f"adapter-{i}", "weight": w} for i, w in enumerate(WEIGHTS)]
    asked = recipe.read({"models": models, "method": "task_arithmetic", "adapter": {"rank": RANK}}, work)
    began = time.perf_counter()
    adapters.merge(asked, work / out)
    seconds = time.perf_counter() - began
    if out != "out-0":
        shutil.rmtree(work / out)
    return seconds


def peft_svd(work: Path, name: str, size: tuple[int, int]) -> tuple[float, Any]:
    """Seconds and B A of PEFT's merge of one module."""
    import peft
    import torch

    model = torch.nn.Module()
    model.layer = torch.nn.Linear(size[1], size[0], bias=False)
    settings = {"target_modules": ["layer"], "r": RANK, "lora_alpha": ALPHA}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = peft.PeftModel(model, peft.LoraConfig(**settings), adapter_name="0")
        for number in range(1, ADAPTERS):
            adapted.add_adapter(str(number), peft.LoraConfig(**settings))
        layer: Any = adapted.base_model.model.layer
        for number in range(ADAPTERS):
            b, a = factors(work / f"adapter-{number}", name)
            layer.lora_A[str(number)].weight.data = torch.from_numpy(a)
            layer.lora_B[str(number)].weight.data = torch.from_numpy(b)
        began = time.perf_counter()
        names = [str(i) for i in range(ADAPTERS)]
        adapted.add_weighted_adapter(names, WEIGHTS, "merged", combination_type="svd", svd_rank=RANK)
        seconds = time.perf_counter() - began
    a, b = (layer.lora_A["merged"].weight.data, layer.lora_B["merged"].weight.data)
    return seconds, layer.scaling["merged"] * (b.double() @ a.double()).numpy()


def factors(folder: Path, name: str) -> tuple[Any, Any]:
    with opened(folder / "adapter_model.safetensors") as held:
        return tuple(held.read(f"base_model.model.{name}.lora_{x}.weight") for x in "BA")  # type: ignore[return-value]


def product(folder: Path, name: str) -> Any:
    b, a = factors(folder, name)
    return b.astype(np.float64) @ a.astype(np.float64)


def total(work: Path, name: str) -> Any:
    """The exact sum, in float64."""
    parts = (w * ALPHA / RANK * product(work / f"adapter-{i}", name) for i, w in enumerate(WEIGHTS))
    return sum(parts, np.float64(0))


def best(exact: Mapping[str, Any]) -> tuple[float, float]:
    """Seconds and error of the best approximation, by a full SVD in float64."""
    began = time.perf_counter()
    squares = [np.linalg.svd(matrix, compute_uv=False) ** 2 for matrix in exact.values()]
    lost = sum(float(np.sum(s[RANK:])) for s in squares)
    return time.perf_counter() - began, float(np.sqrt(lost / sum(float(np.sum(s)) for s in squares)))


def error(found: Mapping[str, Any], exact: Mapping[str, Any]) -> float:
    """Relative, over all modules together, in the Frobenius norm."""
    lost = sum(float(np.sum((found[name] - exact[name]) ** 2)) for name in exact)
    return float(np.sqrt(lost / sum(float(np.sum(matrix**2)) for matrix in exact.values())))


if __name__ == "__main__":
    main()
