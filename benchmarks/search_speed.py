"""What does a candidate of a search cost beside its evaluation?  Merged in memory, against written and loaded.

The models are the base (`--base`, a folder that transformers loads) and experts a fiftieth of its size away. Both ways
begin with the same numbers for the same recipe, and take turns: into the live module, with what the ones before left in
memory; and by `polyak.merge` into a folder, from which transformers loads the model. The weights of both are compared.
Three candidates come first and do not count: they read and sort what is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

import numpy as np
from _machine import machine

HERE = Path(__file__).parent
EXPERTS = 4
SPREAD = 0.02  # of the experts, in standard deviations of each tensor
WORKS = {
    "linear, by weight": ("linear", "weight"),
    "task_arithmetic, by weight": ("task_arithmetic", "weight"),
    "ties, by weight": ("ties", "weight"),
    "ties, by density": ("ties", "density"),
}
RESULTS = HERE / "search_speed.json"
UNCOUNTED = 3
SHORTCUTS = ("one-sweep", "sorted-deltas")


def main() -> None:
    options = _options(sys.argv[1:])
    if options.without is not None:
        _leave_out(options.without)
    with tempfile.TemporaryDirectory(dir=options.work) as scratch:
        folder = Path(scratch)
        _write_experts(options.base, folder)
        rows = [_measure(name, *WORKS[name], options.base, folder, options.runs) for name in WORKS]
    shape = options.name or options.base.resolve().name
    others = json.loads(options.results.read_text(encoding="utf-8")) if options.results.exists() else {"shapes": {}}
    if options.without is not None:  # to see what a shortcut is worth; no figure of the pages
        print(json.dumps(rows, indent=2))
        return
    about = machine(folder.parent) | {"load": f"{os.getloadavg()[0]:.2g}"}
    others["shapes"][shape] = {"machine": about, "experts": EXPERTS, "runs": options.runs, "rows": rows}
    print(json.dumps(others["shapes"][shape], indent=2))
    options.results.write_text(json.dumps(others, indent=2) + "\n", encoding="utf-8")


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="search_speed.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("--base", type=Path, required=True, help="folder of a model that transformers loads")
    parser.add_argument("--runs", type=int, default=5, help="counted candidates of each work (default: 5)")
    parser.add_argument("--work", type=Path, help="folder for experts and outputs (default: the system's)")
    parser.add_argument("--name", help="what the base is called in the results (default: its folder's name)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of results (default: %(default)s)")
    parser.add_argument("--without", choices=SHORTCUTS, help="leave a shortcut out, print the rows and keep none")
    options = parser.parse_args(arguments)
    if options.runs < 1:
        parser.error(f"--runs must be at least 1; got {options.runs}")
    return options


def _leave_out(shortcut: str) -> None:
    """Merge every candidate without one of the shortcuts of repeated merges; they change no byte."""
    from polyak.engine.session import in_place, sorted_deltas

    if shortcut == "one-sweep":
        in_place.one_sweep = lambda prepared: None
    else:
        sorted_deltas.SortedDeltas.answer = lambda self, prepared: None


def _write_experts(base: Path, folder: Path) -> None:
    from safetensors.numpy import save_file

    from polyak import checkpoint

    opened = checkpoint.open(base)
    for number in range(EXPERTS):
        rng, moved = np.random.default_rng(number), dict[str, Any]()
        for name, spec in opened.specs.items():
            tensor = opened.read(name)
            if spec.dtype.floating:
                noise = rng.standard_normal(tensor.shape, dtype=np.float32)
                tensor = (tensor + SPREAD * float(tensor.std()) * noise).astype(tensor.dtype)
            moved[name] = tensor
        (folder / f"expert-{number}").mkdir()
        save_file(moved, folder / f"expert-{number}" / "model.safetensors", metadata={"format": "pt"})


def _measure(work: str, method: str, setting: str, base: Path, folder: Path, runs: int) -> dict[str, Any]:
    from polyak import recipe
    from polyak.recipe import sought
    from polyak.search.candidates import Candidates
    from polyak.tasks import LiveModel

    search = {"search": [0.1, 1]}
    models = [{"path": str(folder / f"expert-{i}")} for i in range(EXPERTS)]
    models = [model | {"weight": search} for model in models] if setting == "weight" else models
    settings = {} if setting == "weight" else {setting: search}
    asked = recipe.read({"base": str(base.absolute()), "models": models, "method": method, "settings": settings})
    places = [one.place for one in sought(asked)]
    rng = np.random.default_rng(0)
    values = [{place: float(rng.uniform(0.1, 1)) for place in places} for _ in range(runs + UNCOUNTED)]
    candidates = Candidates(asked, memory=2**40, workers=len(os.sched_getaffinity(0)))
    candidates.merge(values[0])
    module = _load(base)
    names = {name: name for name, _ in module.named_parameters()}
    candidates.join(LiveModel(module, names, unused=set(candidates.tensors())))
    for one in values[1:UNCOUNTED]:
        candidates.merge(one)
    ours, theirs, out = list[Times](), list[Times](), folder / "out"
    for one in values[UNCOUNTED:]:
        ours.append(_timed(lambda one=one: candidates.merge(one))[0])
        times, loaded = _timed(lambda one=one: _written(recipe.filled(asked, one), out))
        theirs.append(times)
        _check_equal(module, loaded)
        shutil.rmtree(out)
    return {"work": work, "target": "at least 10"} | _compared("", 0, ours, theirs) | _compared("cpu_", 1, ours, theirs)


Times: TypeAlias = tuple[float, float]  # wall, and CPU of all threads


def _timed(work: Callable[[], Any]) -> tuple[Times, Any]:
    wall, cpu = time.perf_counter(), time.process_time()
    found = work()
    return (time.perf_counter() - wall, time.process_time() - cpu), found


def _compared(what: str, which: int, ours: Sequence[Times], theirs: Sequence[Times]) -> dict[str, Any]:
    our, their = [times[which] for times in ours], [times[which] for times in theirs]
    return {
        f"in_memory_{what}s": median(our), f"written_{what}s": median(their),
        f"{what}ratio": median(b / a for a, b in zip(our, their, strict=True)),
        f"in_memory_runs_{what}s": our, f"written_runs_{what}s": their,
    }  # fmt: skip


def _written(recipe: Any, out: Path) -> Any:
    import polyak

    polyak.merge(recipe, out)
    return _load(out)


def _load(folder: Path) -> Any:
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers.AutoModel.from_pretrained(folder, dtype=torch.float32)


def _check_equal(one: Any, other: Any) -> None:
    others = dict(other.named_parameters())
    for name, tensor in one.named_parameters():
        assert bool((tensor == others[name]).all()), f"{name} differs"


if __name__ == "__main__":
    main()
