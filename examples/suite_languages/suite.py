"""Train the runs, score every strategy, and keep the results: `python -m examples.suite_languages.suite`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from polyak import training
from polyak.training import Trained

from ..report import say
from ..suite_text.results import machine
from .claims import claims
from .data import SETS, SOURCE, Set, Sizes, missing, texts, write
from .encoder import pretrained, trim

RESULTS = Path("benchmarks/suite_languages.json")


@dataclass(frozen=True)
class Plan:
    """How large the suite is.

    Attributes:
        sets: The tasks.
        sizes: How many examples.
        rates: Learning rates, ascending; the first is too small on purpose.
        seeds: Runs per learning rate.
        epochs: Epochs of a run.
        snapshots: Checkpoints per epoch.
        batch_size: Examples per step.
        freeze: Regular expression for tensors that are not trained.
    """

    sets: tuple[Set, ...] = tuple(SETS.values())
    sizes: Sizes = field(default_factory=Sizes)
    rates: tuple[float, ...] = (5e-6, 5e-5, 1e-4, 3e-4)
    seeds: int = 5
    epochs: float = 4.0
    snapshots: int = 2
    batch_size: int = 32
    freeze: str = "embeddings"


def main() -> None:
    """Run the suite into `suite-languages-out` and `benchmarks/suite_languages.json`, or say what it lacks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("suite-languages-out"), help="for models and runs")
    parser.add_argument("--only", nargs="+", choices=SETS, default=list(SETS), help="these tasks alone")
    parser.add_argument("--workers", type=int, default=1, help="runs at the same time, one thread each")
    given = parser.parse_args()
    plan = Plan(sets=tuple(SETS[name] for name in given.only))
    encoder = pretrained()
    if encoder is None:
        say("skipped: no weights. Set POLYAK_E5 to a folder of multilingual-e5-small for transformers.")
    elif lacks := missing(plan.sets):
        say(f"skipped: {lacks}")
    else:
        results = RESULTS if len(plan.sets) == len(SETS) else given.out / "results.json"
        print(json.dumps(run(encoder, given.out, results, plan, workers=given.workers)["tasks"], indent=1))


def run(encoder: Path, out: Path, results: Path, plan: Plan, *, workers: int = 1) -> dict[str, Any]:
    """Train and score what is not done yet; results are written once all of it is.

    Args:
        encoder: Folder of the pretrained encoder.
        out: Folder for models and runs; a run that was ended is continued.
        results: The file of results.
        plan: How large the suite is.
        workers: Runs at the same time.
    """
    trim(encoder, texts(plan.sets), out / "encoder")
    tasks: dict[str, Any] = {}
    for one in plan.sets:
        folder = out / "tasks" / one.name
        write(one, plan.sizes, folder, out / "encoder")
        shared = _trained(plan, one, folder, out / f"{one.name}.shared", workers, {"learning_rates": list(plan.rates)})
        middle = plan.rates[1:][len(plan.rates[1:]) // 2]
        own = _trained(plan, one, folder, out / f"{one.name}.own", workers, {"head": "own", "learning_rate": middle})
        tasks[one.name] = measured(shared.results, own.results, plan)
    found = {"command": "make suite-languages", "machine": machine(), "plan": _plain(plan), "tasks": tasks}
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return found


def _trained(plan: Plan, one: Set, folder: Path, out: Path, workers: int, keys: Mapping[str, Any]) -> Trained:
    say(f"{out.name}: {plan.seeds} seeds")
    recipe = {
        "task": str(folder / f"{SOURCE}.json"), "targets": str(folder / "{language}.json"),
        "languages": list(one.languages), "model": str(folder.parents[1] / "encoder"), "runs": plan.seeds,
        "epochs": plan.epochs, "snapshots": plan.snapshots, "batch_size": plan.batch_size, "freeze": plan.freeze,
        "heads": r"^(classifier|pooler)\.", "checkpoint_every": 20, "unseen_labels": "count", "keep": "result",
        "learning_rate": plan.rates[1:][len(plan.rates[1:]) // 2], **keys,
    }  # fmt: skip
    return training.train("cross_lingual", recipe, out, resume=True, workers=workers, progress=True)


def measured(shared: Mapping[str, Any], own: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """Scores and claims of a task from the results of its units.

    Args:
        shared: Results of the runs that share a head.
        own: Results of those with heads of their own.
        plan: How large the suite is.
    """
    rates, seeds = [f"{rate:g}" for rate in plan.rates], [f"seed{i + 1}" for i in range(plan.seeds)]
    units = {rate: {seed: f"scores.rate{rate}.linear.{seed}" for seed in seeds} for rate in rates}
    strategies: Sequence[str] = list(shared[units[rates[0]][seeds[0]]]["metrics"])
    scores = {
        name: {rate: {seed: shared[unit]["metrics"][name] for seed, unit in of.items()} for rate, of in units.items()}
        for name in strategies
        if all(name in shared[unit]["metrics"] for of in units.values() for unit in of.values())
    }
    means = shared["together"]["metrics"]
    over = {
        rate: {name: means[f"RA of {name}, learning rate {rate}, linear"] for name in ("LAST", "CA")} for rate in rates
    }
    alone = {
        "runs": {seed: own[f"scores.{seed}"]["metrics"]["LAST"] for seed in seeds},
        "average": own["together"]["metrics"]["RA of LAST"],
    }
    by_language = {unit: shared[unit]["scores"] for of in units.values() for unit in of.values()}
    return {
        "scores": scores, "over_runs": {**over, "all": means}, "own_heads": alone, "languages": by_language,
        "claims": claims(scores, over, alone),
    }  # fmt: skip


def _plain(plan: Plan) -> dict[str, Any]:
    return {**asdict(plan), "sets": {one.name: list(one.languages) for one in plan.sets}}


if __name__ == "__main__":
    main()
