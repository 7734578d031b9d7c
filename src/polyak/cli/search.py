"""polyak search"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import _options
from ._app import app

if TYPE_CHECKING:
    from ..recipe import Recipe
    from ..search import Found, Tried

_TASK = "A task: a YAML file, or module:function."
_PRUNE = "Give up candidates that do badly on a quarter or a half of the examples."
_STUDY = "The study, a SQLite file that searches go on from (default: OUT with .study.db)."


@app.command()
def search(
    recipe: Annotated[Path, typer.Argument(help="A recipe with `search:` in it.", show_default=False)],
    task: _options.Tasks,
    out: Annotated[Path, typer.Option("--out", "-o", help="The recipe with what was found.", show_default=False)],
    trials: Annotated[int, typer.Option(help="Candidates in all, with those of the study.", min=1)] = 100,
    minutes: Annotated[float | None, typer.Option(help="Begin none after so many.", min=0, show_default=False)] = None,
    sampler: Annotated[str, typer.Option(help="tpe, cma-es, nsga-ii or random.")] = "tpe",
    objective: Annotated[str, typer.Option(help="The mean of the tasks' metrics, or each.")] = "mean",
    expert: Annotated[
        list[str] | None, typer.Option(help="TASK=MODEL: metrics are taken relative to it.", show_default=False)
    ] = None,
    split: Annotated[str, typer.Option(help="validation or calibration.")] = "validation",
    limit: _options.Limit = None,
    prune: Annotated[bool, typer.Option("--prune", help=_PRUNE)] = False,
    batch_size: _options.BatchSize = 32, device: _options.Device = "cpu", module: _options.Module = "",
    seed: Annotated[int, typer.Option(help="Of the sampler.", min=0)] = 0,
    study: Annotated[Path | None, typer.Option(help=_STUDY, show_default=False)] = None,
    jobs: Annotated[int, typer.Option(help="Processes; with more than one, runs differ.", min=1)] = 1,
    workers: Annotated[int, typer.Option(help="Threads that merge; 0 is one a CPU.", min=0)] = 0,
    memory: Annotated[str, typer.Option(help="Most of the models to keep in memory, such as 4GB.")] = "",
    report: Annotated[bool, typer.Option("--report", help="Score the best on the test examples too.")] = False,
    html: _options.Html = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the recipe that is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Report as JSON.")] = False,
    quiet: _options.Quiet = False,
) -> None:  # fmt: skip
    """Search the numbers that a recipe leaves open, and write it with the best."""
    from .. import api
    from ..search import Examples, Search
    from ..search import search as run
    from ._evaluation import load_tasks, named
    from ._size import parse_size

    asked, examples = api.load_recipe(recipe), Examples(split, limit, batch_size, device)
    kept = study or out.with_name(f"{out.stem}.study.db")
    _refuse_to_overwrite(out, asked, force=force)
    tasks = partial(load_tasks, task, module)
    experts = _experts(named(expert or [], "--expert"), tasks, examples)
    wanted = Search(
        asked, tasks, kept, sampler, objective, experts, examples, seed, prune,
        parse_size(memory, "--memory") if memory else _half_of_what_is_free(), workers or _cpus(),
    )  # fmt: skip
    try:
        found = run(
            wanted, trials=trials, minutes=minutes, jobs=jobs, progress=None if quiet or as_json else _Teller().tell
        )
    except KeyboardInterrupt:
        print("interrupted. The study is kept: the same command goes on with it.", file=sys.stderr)
        raise typer.Exit(130) from None
    _write(found, out)
    tested = _on_test(out, tasks, batch_size, device) if report else {}
    if html is not None:
        _draw(html, found, tested)
    _show(found, out, tested, as_json=as_json)


def _draw(html: Path, found: Any, tested: Any) -> None:
    from ..report.search import page
    from ..storage import write_whole

    write_whole(html, page(found, tested))


def _refuse_to_overwrite(out: Path, asked: Recipe, *, force: bool) -> None:
    """What is there may only be what an earlier part of this search has found."""
    from .. import recipe
    from ..errors import OutputExists, PolyakError

    if force or not out.exists():
        return
    try:
        said = recipe.load(out).provenance
    except PolyakError:
        said = {}
    if said.get("learned_by") != "search" or said.get("recipe") != recipe.digest(asked):
        raise OutputExists(f"{out} is there already, and not from this search. Choose another place, or use --force.")


def _experts(models: dict[str, str], tasks: Any, examples: Any) -> dict[str, float]:
    """What each task's expert reaches on the examples of the search."""
    from ..errors import TaskError, suggestion
    from ..tasks import evaluate
    from ._evaluation import open_model

    if not models:
        return {}
    by_name = {task.name: task for task in tasks()}
    found: dict[str, float] = {}
    for name, path in models.items():
        if name not in by_name:
            raise TaskError(f"there is an expert for {name!r}, which is no task here. {suggestion(name, by_name)}")
        with open_model(path) as model:
            found[name] = evaluate(
                model, by_name[name], split=examples.split, limit=examples.limit, batch_size=examples.batch_size,
                device=examples.device,
            ).metric_value  # fmt: skip
    return found


def _cpus() -> int:
    import os

    return len(os.sched_getaffinity(0))


def _half_of_what_is_free() -> int:
    """Half of the memory that is available now, bytes."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return 2**30
    return free * 1024 // 2


class _Teller:
    """Says of each candidate what it reached, and which was the best before."""

    def tell(self, one: Tried) -> None:
        reached = ", ".join(f"{value:.4f}" for value in one.objectives) or one.error
        name = f" ({one.baseline})" if one.baseline else ""
        print(f"{one.number:>5}{name} {one.state} {reached}", file=sys.stderr, flush=True)


def _write(found: Found, out: Path) -> None:
    from .. import recipe
    from ..storage import write_whole

    here = found.recipe.folder.resolve() == out.parent.resolve()
    write_whole(out, recipe.dump(found.recipe, None if here else out.parent))


def _on_test(out: Path, tasks: Any, batch_size: int, device: str) -> dict[str, float]:
    """What the recipe that was written reaches on the test examples, merged anew."""
    from ..tasks import evaluate
    from ._evaluation import open_model

    with open_model(str(out)) as model:
        return {
            task.name: evaluate(model, task, split="test", batch_size=batch_size, device=device).metric_value
            for task in tasks()
        }


def _show(found: Found, out: Path, tested: dict[str, float], *, as_json: bool) -> None:
    from ..search.results import as_data

    if as_json:
        import json

        print(json.dumps({**as_data(found), "out": str(out), **({"test": tested} if tested else {})}))
        return
    reached = ", ".join(f"{n} {v:.4f}" for n, v in zip(found.objectives, found.best.objectives, strict=True))
    print(f"{out}: candidate {found.best.number} of {len(found.tried)}, {reached}")
    for one in found.tried:
        if one.baseline and one.objectives:
            print(f"  {one.baseline}: {', '.join(f'{value:.4f}' for value in one.objectives)}")
    for place, value in found.best.values.items():
        print(f"  {place}: {value:.4g}" if isinstance(value, float) else f"  {place}: {value}")
    for name, value in tested.items():
        print(f"  {name} on test: {value:.4f}")
