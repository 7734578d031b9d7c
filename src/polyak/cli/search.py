"""polyak search"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import _options
from ._app import DATA, app

if TYPE_CHECKING:
    from ..recipe import Recipe
    from ..search import Found, Search, Tried

_PRUNE = "Stop candidates early that score badly on a quarter or a half of the examples."
_MEMORY = "Memory for cached models, such as 4GB (default: half of what is free)."
_STUDY = "SQLite file of the study, from which a search continues (default: OUT with .study.db)."


@app.command(rich_help_panel=DATA)
def search(
    recipe: Annotated[Path, typer.Argument(help="A recipe with `search:` in it.", show_default=False)],
    task: _options.Tasks,
    out: Annotated[Path, typer.Option("--out", "-o", help="Output recipe, with the best values.", show_default=False)],
    trials: Annotated[int, typer.Option(help="Number of candidates, with those already in the study.", min=1)] = 100,
    minutes: Annotated[float | None, typer.Option(help="Start no new candidate after N minutes.", min=0)] = None,
    sampler: Annotated[str, typer.Option(help="Sampler: tpe, cma-es, nsga-ii or random.")] = "tpe",
    objective: Annotated[str, typer.Option(help="Objective: mean of the tasks' metrics, or each.")] = "mean",
    expert: Annotated[
        list[str] | None, typer.Option(help="TASK=MODEL: divide the metric by that of this expert.", show_default=False)
    ] = None,
    split: Annotated[str, typer.Option(help="Split to score on: validation or calibration.")] = "validation",
    limit: _options.Limit = None,
    prune: Annotated[bool, typer.Option("--prune", help=_PRUNE)] = False,
    batch_size: _options.BatchSize = 32, device: _options.Device = "cpu", module: _options.Module = "",
    seed: Annotated[int, typer.Option(help="Seed of the sampler.", min=0)] = 0,
    study: Annotated[Path | None, typer.Option(help=_STUDY, show_default=False)] = None,
    jobs: Annotated[int, typer.Option(help="Parallel processes; runs with more than one differ.", min=1)] = 1,
    workers: _options.Workers = 0,
    memory: Annotated[str, typer.Option(help=_MEMORY)] = "",
    report: Annotated[bool, typer.Option("--report", help="Also score the best candidate on the test split.")] = False,
    html: _options.Html = None,
    force: _options.Force = False, as_json: _options.AsJson = False, quiet: _options.Quiet = False,
) -> None:  # fmt: skip
    """Search the hyperparameters that a recipe leaves open, and write the recipe with the best ones."""
    from .. import api
    from ..search import Examples, Search
    from ..storage import available_memory, cpu_count
    from ._evaluation import load_tasks, named
    from ._size import parse_size

    loaded, examples = api.load_recipe(recipe), Examples(split, limit, batch_size, device)
    _refuse_to_overwrite(out, loaded, force=force)
    tasks = partial(load_tasks, task, module)
    experts = _experts(named(expert or [], "--expert"), tasks, examples)
    job = Search(
        loaded, tasks, study or out.with_name(f"{out.stem}.study.db"), sampler.replace("_", "-"), objective, experts,
        examples, seed, prune, parse_size(memory, "--memory") if memory else available_memory() // 2,
        workers or cpu_count(),
    )  # fmt: skip
    result = _run(job, trials=trials, minutes=minutes, jobs=jobs, quiet=quiet, as_json=as_json)
    _write(result, out)
    tested = _on_test(out, tasks, batch_size, device) if report else {}
    if html is not None:
        _write_page(html, result, tested)
    _show(result, out, tested, as_json=as_json)


def _run(job: Search, *, trials: int, minutes: float | None, jobs: int, quiet: bool, as_json: bool) -> Found:
    """Search with progress; candidates of an earlier part of the study count as done.

    Raises:
        Interrupted: by the user; the study is kept.
    """
    from ..search import search as run
    from ._errors import Interrupted
    from ._progress import reporter

    with reporter("searching", "candidates", quiet=quiet, as_json=as_json) as progress:
        progress.start(trials)
        done = 0

        def tell(tried: Tried) -> None:
            nonlocal done
            progress.trial(tried.number, tried.state, tried.objectives, tried.baseline, tried.error)
            progress.advance(max(0, tried.number + 1 - done))
            done = max(done, tried.number + 1)

        try:
            return run(job, trials=trials, minutes=minutes, jobs=jobs, progress=tell)
        except KeyboardInterrupt:
            raise Interrupted("interrupted. The study is kept: the same command continues it.") from None


def _write_page(html: Path, result: Found, tested: dict[str, float]) -> None:
    from ..report import search_page
    from ..storage import write_whole

    write_whole(html, search_page(result, tested))


def _refuse_to_overwrite(out: Path, searched: Recipe, *, force: bool) -> None:
    """An existing file may only be the result of an earlier part of this search."""
    from .. import recipe
    from ..errors import OutputExists, PolyakError

    if force or not out.exists():
        return
    try:
        provenance = recipe.load(out).provenance
    except PolyakError:
        provenance = {}
    if provenance.get("learned_by") != "search" or provenance.get("recipe") != recipe.digest(searched):
        raise OutputExists(
            f"{out} exists, and is not from this search. Choose another path, or replace it with --force."
        )


def _experts(models: dict[str, str], tasks: Any, examples: Any) -> dict[str, float]:
    """The score of each task's expert on the examples of the search."""
    from ..errors import TaskError, suggestion
    from ..tasks import evaluate
    from ._evaluation import open_model

    if not models:
        return {}
    by_name = {task.name: task for task in tasks()}
    scores: dict[str, float] = {}
    for name, path in models.items():
        if name not in by_name:
            raise TaskError(
                f"an expert is given for {name!r}, which is not a task of this search. {suggestion(name, by_name)}"
            )
        with open_model(path) as model:
            scores[name] = evaluate(
                model, by_name[name], split=examples.split, limit=examples.limit, batch_size=examples.batch_size,
                device=examples.device,
            ).metric_value  # fmt: skip
    return scores


def _write(result: Found, out: Path) -> None:
    from .. import recipe
    from ..storage import write_whole

    is_beside = result.recipe.folder.resolve() == out.parent.resolve()
    write_whole(out, recipe.dump(result.recipe, None if is_beside else out.parent))


def _on_test(out: Path, tasks: Any, batch_size: int, device: str) -> dict[str, float]:
    """The score of the written recipe on the test examples, merged again."""
    from ..tasks import evaluate
    from ._evaluation import open_model

    with open_model(str(out)) as model:
        return {
            task.name: evaluate(model, task, split="test", batch_size=batch_size, device=device).metric_value
            for task in tasks()
        }


def _show(result: Found, out: Path, tested: dict[str, float], *, as_json: bool) -> None:
    from ..search import as_data

    if as_json:
        import json

        print(json.dumps({**as_data(result), "out": str(out), **({"test": tested} if tested else {})}))
        return
    scores = ", ".join(f"{n} {v:.4f}" for n, v in zip(result.objectives, result.best.objectives, strict=True))
    print(f"{out}: candidate {result.best.number} of {len(result.tried)}, {scores}")
    for tried in result.tried:
        if tried.baseline and tried.objectives:
            print(f"  {tried.baseline}: {', '.join(f'{value:.4f}' for value in tried.objectives)}")
    for name, value in result.best.values.items():
        print(f"  {name}: {value:.4g}" if isinstance(value, float) else f"  {name}: {value}")
    for name, value in tested.items():
        print(f"  {name} on test: {value:.4f}")
