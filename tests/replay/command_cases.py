"""Cases of commands and of Python: adapters, averages of a run, models cut out by masks, state dicts, resumption."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .case import Case, command, merge, recipe_of
from .inputs import SMALL, Inputs, family, noise, write_json, write_model, write_tensors

_ADAPTED = {"model.layers.0.self_attn.qkv": (48, 16), "model.layers.1.mlp.up": (24, 16)}


def command_cases() -> Iterator[Case]:
    yield from _adapter_cases()
    for name, options in AVERAGES.items():
        yield Case(f"average/{name}", partial(_average, options))
    yield Case("average/adapters-as-products", partial(_average_adapters, "product"), portable=False)
    yield Case("average/adapters-as-factors", partial(_average_adapters, "factors"))
    for method in ("emr", "tall_masks"):
        yield Case(f"masks/{method}/opened-by-a-recipe", partial(_open_masks, method))
        yield Case(f"masks/{method}/bake", partial(_bake_masks, method))
    for method, settings in STATE_DICTS.items():
        yield Case(f"state-dicts/{method}", partial(_state_dicts, method, settings))
    yield Case("state-dicts/statistics", _state_dicts_with_statistics)
    yield Case("resume/after-a-kill", _resume, quick=False)


ADAPTER_RECIPES: Mapping[str, Mapping[str, Any]] = {
    "linear": {"method": "linear"},
    "linear-rank": {"method": "linear", "adapter": {"rank": 2}},
    "linear-energy": {"method": "linear", "adapter": {"energy": 0.9}},
    "ties": {"method": "ties", "adapter": {"rank": 4}},
    "dare_linear": {"method": "dare_linear", "adapter": {"rank": 4}, "seed": 5},
    "knots": {"method": "knots", "adapter": {"rank": 4}},
    "tsv_m": {"method": "tsv_m", "adapter": {"rank": 4}},
    "factors-linear": {"method": "linear", "adapter": {"space": "factors"}},
    "factors-task_arithmetic": {"method": "task_arithmetic", "adapter": {"space": "factors"}},
    "bfloat16": {"method": "linear", "adapter": {"space": "factors"}, "dtype": "bfloat16"},
}


def _adapter_cases() -> Iterator[Case]:
    for name, more in ADAPTER_RECIPES.items():
        portable = more.get("adapter", {}).get("space") == "factors"
        yield Case(f"adapters/merge/{name}", partial(_merge_adapters, more), portable)
    yield Case("adapters/merge/by-options", _merge_adapters_by_options, portable=False)
    for options in (("--rank", 3), ("--energy", 0.8), ("--rank", 3, "--dtype", "bfloat16")):
        name = "-".join(str(word).lstrip("-") for word in options)
        yield Case(f"adapters/extract/{name}", partial(_extract, options), portable=False)
    for scale in (1.0, -0.5):
        yield Case(f"adapters/bake/{scale}", partial(_bake, scale), portable=False)
    for method in ("linear", "ties", "dare_ties"):
        yield Case(f"adapters/on-the-fly/{method}", partial(_on_the_fly, method), portable=False)


def _write_adapter(folder: Path, seed: int, rank: int = 3) -> Path:
    rng = np.random.default_rng([31, seed])
    factors: dict[str, np.ndarray] = {}
    for name, (rows, columns) in _ADAPTED.items():
        at = f"base_model.model.{name}"
        factors[f"{at}.lora_A.weight"] = noise(rng, (rank, columns)).astype(np.float32)
        factors[f"{at}.lora_B.weight"] = noise(rng, (rows, rank)).astype(np.float32)
    write_tensors(folder / "adapter_model.safetensors", factors)
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": 4, "base_model_name_or_path": "base", "bias": "none"}
    write_json(folder / "adapter_config.json", settings | {"target_modules": ["qkv", "up"]})
    return folder


def _adapters(inputs: Inputs) -> list[str]:
    """Two adapters, of ranks 3 and 5."""
    write = lambda folder: [_write_adapter(folder / f"a{i}", i, 3 + 2 * i) for i in range(2)]  # noqa: E731
    folder = inputs.folder("adapters", write)
    return [f"./{folder}/a{i}" for i in range(2)]


def _same_rank(inputs: Inputs) -> list[str]:
    write = lambda folder: [_write_adapter(folder / f"a{i}", i) for i in range(2)]  # noqa: E731
    folder = inputs.folder("adapters-of-one-rank", write)
    return [f"./{folder}/a{i}" for i in range(2)]


def _merge_adapters(more: Mapping[str, Any], inputs: Inputs, out: Path) -> None:
    first, second = _same_rank(inputs) if more.get("adapter", {}).get("space") == "factors" else _adapters(inputs)
    models = [{"path": first, "weight": 0.7}, {"path": second, "weight": 0.4}]
    recipe = write_json(inputs.root / "adapters.json", {"models": models, **more})
    command("lora", "merge", recipe, out, "--workers", 1, "--quiet")


def _merge_adapters_by_options(inputs: Inputs, out: Path) -> None:
    first, second = _adapters(inputs)
    weights = ("--weight", 0.5, "--weight", 0.25, "--rank", 4)
    command("lora", "merge", "--adapter", first, "--adapter", second, *weights, "--workers", 1, "--quiet", out)


def _extract(options: Sequence[object], inputs: Inputs, out: Path) -> None:
    folder = inputs.family()
    command("lora", "extract", f"{folder}/base", f"{folder}/m0", out, *options, "--workers", 1, "--quiet")


def _bake(scale: float, inputs: Inputs, out: Path) -> None:
    folder, (first, _) = inputs.family(), _adapters(inputs)
    command("lora", "bake", f"{folder}/base", first, out, "--scale", scale, "--workers", 1, "--quiet")


def _on_the_fly(method: str, inputs: Inputs, out: Path) -> None:
    folder, (first, second) = inputs.family("small", "BF16"), _adapters(inputs)
    models = [
        {"name": "one", "path": f"./{folder}/base", "lora": first},
        {"name": "two", "path": f"./{folder}/m1", "lora": [{"path": second, "scale": 0.8}, first]},
    ]
    merge(inputs, {"base": f"./{folder}/base", "models": models, "method": method, "seed": 2}, out)


AVERAGES: Mapping[str, Sequence[object]] = {
    "uniform": (),
    "last": ("--last", 2),
    "stride": ("--last", 2, "--stride", 2),
    "after": ("--after", 0.5),
    "ema": ("--by", "ema", "--decay", 0.5),
    "step": ("--by", "step", "--penalty", 1),
    "dev": ("--dev", "eval_accuracy"),
    "minmax": ("--by", "loss", "--form", "minmax"),
    "rank": ("--by", "eval_accuracy", "--form", "rank", "--penalty", 1),
}


def _average(options: Sequence[object], inputs: Inputs, out: Path) -> None:
    run = inputs.folder("run", _write_run)
    command("average", run, out, *options, "--recipe", inputs.root / "average.yaml", "--force", "--workers", 1, "-q")
    shutil.copy(inputs.root / "average.yaml", out / "average.yaml")


def _write_run(folder: Path) -> None:
    """Checkpoints as a trainer leaves them, with its log."""
    log: list[dict[str, float]] = []
    tuned = family({name: shape for name, shape in SMALL.items() if "layers.0" in name}, seed=4)
    for step, (loss, accuracy) in {10: (2.0, 0.5), 20: (1.0, 0.8), 30: (0.75, 0.78)}.items():
        log += [{"step": step, "loss": loss}, {"step": step, "eval_accuracy": accuracy}]
        place = folder / f"checkpoint-{step}"
        write_model(place, tuned[f"m{step // 10 - 1}"] | {"steps": np.array([step])})
        write_json(place / "trainer_state.json", {"log_history": log, "global_step": step})


def _average_adapters(space: str, inputs: Inputs, out: Path) -> None:
    write = lambda folder: [_write_adapter(folder / f"checkpoint-{step}", step) for step in (10, 20)]  # noqa: E731
    command("average", inputs.folder("adapter-run", write), out, "--space", space, "--workers", 1, "-q")


def _masked(method: str, inputs: Inputs) -> Path:
    """A merge with masks beside it."""
    merged = inputs.root / f"merged-by-{method}"
    if not merged.exists():
        merge(inputs, recipe_of(inputs.family(), method), merged)
    return merged / "masks" / "m1.safetensors"


def _open_masks(method: str, inputs: Inputs, out: Path) -> None:
    masks = _masked(method, inputs).relative_to(inputs.root)
    merge(inputs, {"models": [{"path": f"./{masks}", "name": "m1"}], "method": "passthrough"}, out)


def _bake_masks(method: str, inputs: Inputs, out: Path) -> None:
    command("bake", _masked(method, inputs), out, "--dtype", "bfloat16", "--workers", 1, "--quiet")


STATE_DICTS: Mapping[str, Mapping[str, Any]] = {
    "linear": {"weight": [0.2, 0.3, 0.5]},
    "ties": {"density": 0.4},
    "dare_ties": {"seed": 9, "workers": 2},
    "emr": {},
    "pcb": {"dtype": "bfloat16"},
    "breadcrumbs": {},
}


def _state_dicts(method: str, settings: Mapping[str, Any], inputs: Inputs, out: Path) -> Mapping[str, np.ndarray]:
    import polyak

    models = family(SMALL)
    base = models.pop("base")
    return polyak.merge_state_dicts(models, method=method, base=None if method == "linear" else base, **settings)


def _state_dicts_with_statistics(inputs: Inputs, out: Path) -> Mapping[str, np.ndarray]:
    import polyak

    from .inputs import statistics

    models = family(SMALL)
    del models["base"]
    return polyak.merge_state_dicts(models, method="fisher", statistics={"fisher": statistics("fisher", SMALL)})


# A merge that kills itself as soon as some of its work is in the journal.
_KILLED = """
import os, pathlib, signal, sys, time, polyak
journal = pathlib.Path(sys.argv[2]).parent / ".out.polyak" / "journal.jsonl"
class Killer:
    def start(self, nbytes): pass
    def say(self, text): pass
    def advance(self, nbytes):
        stop = time.monotonic() + 5
        while time.monotonic() < stop and journal.read_bytes().count(b"\\n") < 2:
            time.sleep(0.01)
        if journal.read_bytes().count(b"\\n") > 1:
            os.kill(os.getpid(), signal.SIGKILL)
    def __call__(self, event):  # newer trees report events
        if type(event).__name__ == "Advanced":
            self.advance(event.count)
polyak.merge(sys.argv[1], sys.argv[2], workers=1, progress=Killer())
"""


def _resume(inputs: Inputs, out: Path) -> None:
    import polyak

    recipe = write_json(inputs.root / "killed.json", recipe_of(inputs.family("huge", "BF16"), "linear"))
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(recipe), str(out)], check=False)
    if killed.returncode != -signal.SIGKILL:
        raise RuntimeError("the merge was over before it could be killed")
    if not polyak.merge(recipe, out, workers=1, resume=True).resumed:
        raise RuntimeError("nothing that the killed merge had done was used again")
