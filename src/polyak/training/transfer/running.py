"""The units that train: the start with a head, fine-tunings, and few-shot training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ...averaging import RunCheckpoint
from ...checkpoint import Checkpoint, MemoryCheckpoint, suffixes
from ...checkpoint import open as open_checkpoint
from ...errors import TaskError
from ...modules import with_new_head, write_tensors
from ...reading import search
from ...runs import METRICS, Desk, UnitFailed
from ...tasks import ExampleTask
from .._loop import Fit, fit
from .._models import live_model
from .._setup import Setup
from .languages import read_targets
from .options import FULL, START, Options, Run, model_in

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ...modules import LiveModel

Given = tuple[Options, Run]


def new_head(setup: Setup, heads: str, seed: int) -> tuple[nn.Module, dict[str, Tensor], frozenset[str]]:
    """The module to begin with, with a new head; see `with_new_head`.

    Raises:
        TaskError: the task brings a head of its own or no module, or the pattern does not fit.
    """
    task = setup.task()
    if not isinstance(task, ExampleTask) or task.body.heads:
        problem = "has `heads:` of its own" if isinstance(task, ExampleTask) else "has no module"
        raise TaskError(
            f"task {task.name!r} {problem}, and this recipe trains a head. Leave `heads:` out of the task's file."
        )
    with setup.start() as source:
        return with_new_head(task.body.build, source, heads, seed=seed)


def beginning(setup: Setup, heads: str) -> Checkpoint:
    """The model from which all runs begin, in memory."""
    _, tensors, _ = new_head(setup, heads, setup.seed)
    return MemoryCheckpoint({name: tensor.numpy() for name, tensor in tensors.items()}, label="the model with its head")


def begin(desk: Desk, options: Options) -> dict[str, Any]:
    """Write the model from which all runs begin."""
    module, tensors, _ = new_head(options.setup, options.heads, options.setup.seed)
    out = model_in(desk.folder)
    write_tensors(out / "model.safetensors", tensors, {"format": "pt"})
    folder = options.setup.model
    for path in sorted(folder.iterdir()) if folder is not None and folder.is_dir() else ():
        if path.is_file() and not path.name.endswith((*suffixes(), ".index.json")):
            shutil.copyfile(path, out / path.name)
    config: Any = getattr(module, "config", None)
    if config is not None:
        config.architectures = [type(module).__name__]
        config.to_json_file(str(out / "config.json"))
    return {}


def train(desk: Desk, given: Given) -> dict[str, Any]:
    """Fine-tune on the source: the full run trains everything; others begin with its head, or one of their own."""
    options, run = given
    with open_checkpoint(model_in(desk.folder_of(START))) as source:
        live = live_model(options.setup, source)
        live.load(_head(desk, options, run), partial=True)
        frozen = run.name != FULL and options.head == "frozen"
        _freeze(live, options, with_head=frozen)
        return _fitted(desk, options, run, live, source)


def _head(desk: Desk, options: Options, run: Run) -> Mapping[str, Any]:
    if run.name != FULL and options.head == "own":
        _, tensors, head = new_head(options.setup, options.heads, run.seed)
        return {name: tensors[name] for name in head}
    if run.name == FULL:
        return {}
    with open_checkpoint(_last(desk, FULL)) as full:
        return {name: full.read(name) for name in full.specs if search(options.heads, name)}


def _last(desk: Desk, unit: str) -> Path:
    steps = [entry["step"] for entry in desk.results[unit]["checkpoints"]]
    return desk.folder_of(unit) / f"checkpoint-{steps[-1]}"


def _freeze(live: LiveModel, options: Options, *, with_head: bool) -> None:
    patterns = [*([options.heads] if with_head else []), *([options.freeze] if options.freeze else [])]
    for name, parameter in live.parameters.items():
        if any(search(pattern, name) for pattern in patterns):
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in live.parameters.values()):
        raise TaskError("every parameter is frozen: nothing is left to train. Narrow `heads` or `freeze`.")


def _fitted(
    desk: Desk, options: Options, run: Run, live: LiveModel, source: Checkpoint, how: Fit | None = None
) -> dict[str, Any]:
    snapshots = options.snapshot_steps(options.steps, options.setup.epochs) if how is None else list(how.snapshots)
    setup = options.setup_of(run, snapshots)
    if how is None:
        how = Fit(options.steps, run.seed, options.rate(run.schedule, options.steps), snapshots=snapshots)
    loss = fit(desk, setup, live, source, how)
    losses = _losses(desk.folder / METRICS, snapshots)
    checkpoints = [{"step": step, "loss": one} for step, one in zip(snapshots, losses, strict=True)]
    return {"metrics": {"loss": loss}, "checkpoints": checkpoints}


def _losses(file: Path, snapshots: list[int]) -> list[float]:
    """The mean logged loss since the checkpoint before."""
    logged = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    pairs = zip([0, *snapshots], snapshots, strict=False)
    return [fmean([e["loss"] for e in logged if "loss" in e and first < e["step"] <= last]) for first, last in pairs]


def few_shot(desk: Desk, given: tuple[Options, Run, str, str]) -> dict[str, Any]:
    """Train the last checkpoint of a unit further with a few examples of the targets: of all at once, or of one."""
    from .mixed import Mixed, Shots

    options, run, before, language = given
    source_task, targets = options.setup.task(), read_targets(options)
    if before not in desk.results:
        raise UnitFailed(f"{before} failed: {desk.failed.get(before, '')}")
    if language:
        task: Mixed = Shots(language, targets[language], shots=options.shots, seed=options.setup.seed)
    else:
        task = Mixed(source_task, targets, shots=options.shots, seed=options.setup.seed)
    steps = options.setup.steps(options.few_shot_epochs, task.count("train"))
    mixed = replace(options, setup=replace(options.setup, task_source=task))
    with open_checkpoint(_last(desk, before)) as source:
        live = live_model(options.setup, source)
        _freeze(live, options, with_head=options.head == "frozen")
        how = Fit(
            steps, run.seed, options.rate(run.schedule, steps), callbacks=_callbacks(options, live, task, run),
            snapshots=options.snapshot_steps(steps, options.few_shot_epochs),
        )  # fmt: skip
        return _fitted(desk, mixed, run, live, source, how)


def _callbacks(options: Options, live: LiveModel, task: Any, run: Run) -> list[Any]:
    if not options.vaccinate or not task.targets:
        return []
    from .vaccination import Vaccination

    return [Vaccination(live, task, run.seed)]


def checkpoints_of(desk: Desk, unit: str, scores: Mapping[str, list[float]] | None = None) -> list[RunCheckpoint]:
    """The checkpoints of a unit that trained, with their losses and scores by name.

    Raises:
        UnitFailed: it failed.
    """
    if unit not in desk.results:
        raise UnitFailed(f"there are no checkpoints of {unit}: {desk.failed.get(unit, 'it was not trained')}")
    folder, run = desk.folder_of(unit), list[RunCheckpoint]()
    for i, entry in enumerate(desk.results[unit]["checkpoints"]):
        metrics = {"loss": entry["loss"]} | {name: values[i] for name, values in (scores or {}).items()}
        name = f"checkpoint-{entry['step']}"
        run.append(RunCheckpoint(name, folder / name, entry["step"], metrics))
    return run
