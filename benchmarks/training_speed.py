"""Cost of training recipes: the loop against a plain Trainer, and two workers against one.

The first part trains the same network for the same steps by `polyak.training.fit` and by transformers' Trainer alone,
in turns, on one thread. The second runs `sparse_soup` with one worker and with two, starting processes included.
Medians are printed and, with --results, stored. Run it on an idle machine: on a busy one, two workers have no second
CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from _machine import machine
from torch import nn
from transformers import PrinterCallback, Trainer, TrainingArguments

from polyak import training
from polyak.modules import quietly
from polyak.runs import Desk
from polyak.tasks import Task
from polyak.training import Fit, fit, live_model

EXAMPLES, CLASSES, SIZE, BATCH = 2048, 10, 24, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="timed runs of each")
    parser.add_argument("--steps", type=int, default=150, help="steps of the first part")
    parser.add_argument("--copies", type=int, default=4, help="copies of the second part")
    parser.add_argument("--epochs", type=float, default=12.0, help="epochs of retraining of the second part")
    parser.add_argument("--results", type=Path, help="file of results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        write_task(folder)
        rows = [overhead(folder, options.runs, options.steps), workers(folder, options.copies, options.epochs)]
    for row in rows:
        print(f"{row['work']}: {row['ours_s']:.2f} s, reference {row['reference_s']:.2f} s, ratio {row['ratio']:.3f}")
    if options.results is not None:
        found = {"machine": machine(Path()), "load": round(os.getloadavg()[0], 1), "rows": rows}
        options.results.write_text(f"{json.dumps(found, indent=2)}\n", encoding="utf-8")


class Network(nn.Module):
    """A convolutional network of about 100,000 weights."""

    def __init__(self) -> None:
        super().__init__()
        widths, layers = (1, 32, 64, 128), []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.body, self.head = nn.Sequential(*layers), nn.Linear(128, CLASSES)

    def forward(self, images: Any) -> Any:
        return self.head(self.body(images).mean((2, 3)))


def write_task(folder: Path) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(CLASSES, size=EXAMPLES)
    patterns = rng.normal(size=(CLASSES, SIZE, SIZE, 1))
    images = (rng.normal(size=(EXAMPLES, SIZE, SIZE, 1)) + patterns[labels]).astype(np.float32)
    np.savez(folder / "images.npz", image=images, label=labels)
    (folder / "task.yaml").write_text(
        "kind: image-classification\ndata: images.npz\nsplits: {train: 0.8, validation: 0.1, test: 0.1}\n"
        f"input: images\nscale: 1\nclasses: {CLASSES}\n",
        encoding="utf-8",
    )


def keys(folder: Path, **more: Any) -> dict[str, Any]:
    common = {"task": str(folder / "task.yaml"), "module": "training_speed:Network", "optimizer": "sgd", "epochs": 3.0}
    return {**common, "learning_rate": 0.05, "weight_decay": 1e-4, "batch_size": BATCH, **more}


def overhead(folder: Path, runs: int, steps: int) -> dict[str, Any]:
    """Seconds of the same steps by `fit` with masks, progress and metrics, and by a plain Trainer."""
    setup = training.prepare("sparse_soup", keys(folder)).setup
    with setup.start() as source:

        def ours() -> None:
            with tempfile.TemporaryDirectory() as unit:
                fit(Desk("unit", Path(unit), Path(unit)), setup, live_model(setup, source), source, Fit(steps, 0))

        def plain() -> None:
            with tempfile.TemporaryDirectory() as out:
                by_trainer(setup.task(), live_model(setup, source).module, out, steps)

        reference_s, ours_s = medians(plain, ours, runs)
    return row(f"{steps} steps against a plain Trainer", ours_s, reference_s)


def by_trainer(task: Task, module: nn.Module, out: str, steps: int) -> None:
    """Train as a user of transformers would: the examples in a Dataset, the loss in the module."""
    batch = task.batch("train", range(task.count("train")))
    examples = [{"images": x, "labels": y} for x, y in zip(batch.inputs["images"], batch.targets, strict=True)]
    arguments = TrainingArguments(
        output_dir=out, max_steps=steps, per_device_train_batch_size=BATCH, learning_rate=0.05, optim="sgd",
        optim_args="momentum=0.9", save_strategy="no", logging_steps=50, report_to=[], disable_tqdm=True, use_cpu=True,
        max_grad_norm=0.0, weight_decay=1e-4,
    )  # fmt: skip
    with quietly():
        trainer = Trainer(WithLoss(module), arguments, train_dataset=examples)
        trainer.remove_callback(PrinterCallback)
        trainer.train()


class WithLoss(nn.Module):
    """A module that returns its loss, as the Trainer expects."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Any, labels: Any) -> Any:
        logits = self.module(images)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def workers(folder: Path, copies: int, epochs: float) -> dict[str, Any]:
    """Seconds of a sparse soup with two workers, and with one."""

    def run(count: int) -> float:
        more = {"copies": copies, "retrain_epochs": epochs, "baselines": []}
        began = time.perf_counter()
        training.sparse_soup(folder / f"workers{count}", **keys(folder, **more), workers=count)
        return time.perf_counter() - began

    one, two = run(1), run(2)
    return {**row(f"sparse soup of {copies} copies on 2 workers", two, one), "speedup": one / two}


def row(work: str, ours_s: float, reference_s: float) -> dict[str, Any]:
    return {"work": work, "ours_s": ours_s, "reference_s": reference_s, "ratio": ours_s / reference_s}


def medians(reference: Callable[[], None], ours: Callable[[], None], runs: int) -> tuple[float, float]:
    """Median seconds of both, which alternate; the first run of each is not counted."""
    times: tuple[list[float], list[float]] = ([], [])
    for count in range(runs + 1):
        for function, seconds in zip((reference, ours), times, strict=True):
            began = time.perf_counter()
            function()
            if count:
                seconds.append(time.perf_counter() - began)
    return statistics.median(times[0]), statistics.median(times[1])


if __name__ == "__main__":
    main()
