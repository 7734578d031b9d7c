"""How much memory does learning coefficients take?  FusionBench's AdaMerging against polyak's, with 4 and 16 experts.

Runs where FusionBench is installed (`make parity` makes such an environment). Each measurement is a process
of its own. Peak anonymous memory (`RssAnon`, sampled every 5 ms) is told as what comes on top of the process before
models are opened: imports, and the task. Models are float32 files of two large layers; experts are one file under
several names, which either side reads as often as it would different ones.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _machine import machine

HERE = Path(__file__).parent
RESULTS = HERE / "learn_memory.json"
ROWS, COLUMNS = 1024, 2048
SHAPES = {"up.weight": (512, 4), "wide.weight": (ROWS, COLUMNS), "down.weight": (COLUMNS, ROWS)}
COUNTS = (4, 16)
STEPS, BATCH = 2, 16
WORKS = ("polyak adamerging", "polyak frank_wolfe", "FusionBench AdaMerging")


def main() -> None:
    parser = argparse.ArgumentParser(prog="learn_memory.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("--work", type=Path, help="folder for models (default: the system's)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of results (default: %(default)s)")
    parser.add_argument("--only", default="", help="measure works whose names hold this; other results are kept")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        work, count, folder = options.one
        print(_measured(work, int(count), Path(folder)))
        return
    with tempfile.TemporaryDirectory(dir=options.work) as scratch:
        _write_models(Path(scratch))
        works = [work for work in WORKS if options.only in work]
        new = [{"work": w, "experts": n, "bytes": _apart(w, n, scratch)} for w in works for n in COUNTS]
    rows = _kept(options.results, works) + new
    rows.sort(key=lambda row: (WORKS.index(row["work"]), row["experts"]))
    about = {"machine": machine(HERE), "model_bytes": 4 * sum(m * n for m, n in SHAPES.values()), "rows": rows}
    print(json.dumps(about, indent=2))
    options.results.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def _kept(results: Path, works: list[str]) -> list[dict[str, Any]]:
    """What was measured of other works."""
    found = json.loads(results.read_text(encoding="utf-8"))["rows"] if results.exists() else []
    return [row for row in found if row["work"] in WORKS and row["work"] not in works]


def _apart(work: str, count: int, folder: str) -> int:
    command = [sys.executable, __file__, "--one", work, str(count), folder]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def _write_models(folder: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    for name in ("base", "model-0"):
        (folder / name).mkdir()
        state = {key: 0.02 * rng.standard_normal(shape, dtype=np.float32) for key, shape in SHAPES.items()}
        save_file(state, folder / name / "model.safetensors")
    for i in range(1, max(COUNTS)):
        (folder / f"model-{i}").mkdir()
        (folder / f"model-{i}" / "model.safetensors").hardlink_to(folder / "model-0" / "model.safetensors")
    points = rng.standard_normal((64, 4)).tolist()
    lines = [json.dumps({"point": point, "label": i % 3}) + "\n" for i, point in enumerate(points)]
    (folder / "points.jsonl").write_text("".join(lines))


def _measured(work: str, count: int, folder: Path) -> int:
    """The peak of a work, above what was there before."""
    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    begin = {"polyak": _polyak, "FusionBench": _fusionbench}[work.split(maxsplit=1)[0]](work, count, folder)
    next(begin)
    before, peak, done = _anonymous(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], _anonymous())

    watching = threading.Thread(target=watch)
    watching.start()
    next(begin, None)
    done.set()
    watching.join()
    return peak[0] - before


def _anonymous() -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("RssAnon")).split()[1])


def _wide() -> Any:
    from torch import nn

    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.Linear(4, 512, bias=False)
            self.wide = nn.Linear(COLUMNS, ROWS, bias=False)
            self.down = nn.Linear(ROWS, COLUMNS, bias=False)

        def forward(self, points: Any) -> Any:
            return self.down(self.wide(self.up(points).repeat(1, COLUMNS // 512)).tanh())[:, :3]

    return Wide


def _polyak(work: str, count: int, folder: Path) -> Iterator[None]:
    from polyak import recipe
    from polyak.learn import learn
    from polyak.tasks import task_of

    described = {
        "kind": "image-classification", "data": "points.jsonl", "image": "point", "scale": 1, "input": "points",
        "splits": {"calibration": 0.5, "test": 0.5},
    }  # fmt: skip
    task = task_of(described, folder, factory=_wide())
    models = [f"./model-{i}" for i in range(count)]
    asked = recipe.read({"base": "./base", "models": models, "method": "task_arithmetic"}, folder)
    name = work.split()[1]
    settings = (
        {"steps": STEPS, "batch_size": BATCH} if name == "adamerging" else {"iterations": STEPS, "examples": BATCH}
    )
    yield
    learn(name, asked, [task], settings=settings)


def _fusionbench(work: str, count: int, folder: Path) -> Iterator[None]:
    """Layer-wise; one task has examples, so that both sides see as many."""
    import lightning
    import torch
    from fusion_bench import BaseModelPool
    from fusion_bench.method.adamerging.layer_wise_adamerging import LayerWiseAdaMergingAlgorithm
    from omegaconf import DictConfig
    from safetensors.torch import load_file

    points = [json.loads(line)["point"] for line in (folder / "points.jsonl").read_text().splitlines()]
    batch, kind = torch.tensor(points[:BATCH]), _wide()

    class Fed(LayerWiseAdaMergingAlgorithm):
        def get_shuffled_test_loader_iter(self, task: str) -> Any:
            return iter([(batch,)])

        def compute_logits(self, module: Any, images: Any, task: str) -> Any:
            return module(images)

        def log_hyperparams(self, *_: Any, **__: Any) -> None: ...

    made = Fed(
        DictConfig(
            {
                "weights": None, "init_values": 0.3, "clamp_weights": False, "tie_weights": False, "strict": True,
                "optimizer": "adam", "lr": 1e-3, "max_steps": STEPS,
            }
        )
    )  # fmt: skip
    made._fabric = lightning.Fabric(accelerator="cpu", devices=1)

    def load(name: str) -> Any:
        with torch.device("meta"):
            module = kind()
        module.load_state_dict(load_file(folder / name / "model.safetensors"), assign=True)
        return module

    yield
    made.run(BaseModelPool({"_pretrained_": load("base")} | {f"task-{i}": load(f"model-{i}") for i in range(count)}))


if __name__ == "__main__":
    main()
