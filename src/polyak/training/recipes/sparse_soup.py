"""Sparse model soups: prune, retrain copies of the same pruned model, average them, and prune the average further."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from ...errors import RecipeError
from ...reading import Place, is_list, pattern, positive, text
from ...runs import Stage, Unit
from .._declaration import TrainingPlan, training_recipe
from .._models import live_model
from .._setup import TRAIN, Setup
from ..sparse.averages import average, average_of_runs, prune_again
from ..sparse.layers import prunable
from ..sparse.options import DENSE, MAIN, Branch, Keep, Options, Soup, Vary
from ..sparse.page import page
from ..sparse.schedules import Original, Retraining
from ..sparse.selectors import check_selector
from ..sparse.testing import test, test_ensemble
from ..sparse.work import dense as train_dense
from ..sparse.work import longer, prune, retrain

AVERAGED, REPRUNED, LONGER, TESTED = "imp.average", "imp.average.pruned", "dense.longer", "test."
_SOURCE = "Zimmer, Spiegel and Pokutta, 2024. Sparse Model Soups. ICLR. arXiv:2306.16788"
_BASELINES = ("imp", "imp_long", "imp_average", "dense")


def _below_one(value: object, place: Place) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        hint = " A sparsity of 1 leaves no weight." if value == 1 else ""
        raise place.expected("at least 0 and below 1", value, hint.strip())
    return float(value)


def _share(value: object, place: Place) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise place.expected("between 0 and 1", value)
    return float(value)


def _numbers(value: object, place: Place) -> tuple[float, ...]:
    if not is_list(value) or any(isinstance(x, bool) or not isinstance(x, int | float) or x < 0 for x in value):
        raise place.expected("a list of numbers, at least 0", value)
    return tuple(float(number) for number in value if isinstance(number, int | float))


def _baselines(value: object, place: Place) -> tuple[str, ...]:
    if not is_list(value) or any(name not in _BASELINES for name in value):
        raise place.expected(f"a list of any of {', '.join(_BASELINES)}", value)
    return tuple(str(name) for name in value)


def _tasks(value: object, place: Place) -> tuple[str, ...]:
    if not is_list(value):
        raise place.expected("a list of task files", value)
    return tuple(text(name, place[i]) for i, name in enumerate(value))


@training_recipe(
    "sparse_soup",
    source=_SOURCE,
    defaults={"optimizer": "sgd", "learning_rate": 0.1, "weight_decay": 1e-4, "batch_size": 128, "epochs": 10.0},
)
def sparse_soup(
    setup: Setup, *, sparsity: Annotated[float, _below_one] = 0.9, phases: Annotated[int, positive] = 1,
    copies: Annotated[int, positive] = 3, selector: str = "global", retrain_epochs: float | None = None,
    retrain_schedule: Retraining = "llr", schedule: Original = "linear", vary: Vary = "seed",
    values: Annotated[tuple[float, ...], _numbers] = (), soup: Soup = "uniform", dense: Annotated[str, pattern] = "",
    recalibrate: Annotated[float, _share] = 0.2, baselines: Annotated[Any, _baselines] = ("imp",),
    shifted: Annotated[tuple[str, ...], _tasks] = (), keep: Keep = "averages",
) -> TrainingPlan:  # fmt: skip
    """Prune, retrain copies of the same pruned model, average them, and repeat; the average is as sparse as the copies.

    In phase k of K the model is pruned to the sparsity s_k = 1 - (1 - sparsity)^(k / K); the copies are retrained with
    its mask, and averaged.

    Departures:
        Biases and norms do not decay; the authors decay everything.

    Args:
        setup: The common keys.
        sparsity: Share of the weights of linear and convolutional layers that are pruned in the end.
        phases: Number of times to prune and retrain.
        copies: Number of copies per phase.
        selector: `global`, `uniform` or `random`, or N:M to keep N of M consecutive inputs.
        retrain_epochs: Epochs of retraining per phase (default: `epochs`).
        retrain_schedule: Learning rate of retraining: `ft`, `lrw`, `slr`, `clr`, `llr` or `allr`.
        schedule: Learning rate of the dense training: `constant`, `linear`, `cosine` or `step`.
        vary: The difference between copies: `seed`, `weight_decay`, `length` (epochs) or `learning_rate`.
        values: The values of what varies, one per copy; none for seeds.
        soup: `uniform`, or `greedy`: a copy is taken if the validation score does not get worse.
        dense: Regular expression for tensors that are not pruned, such as heads.
        recalibrate: Share of the training examples on which BatchNorm statistics of averages are measured again.
        baselines: `imp` (one copy), `imp_long` (one copy, retrained `copies` times as long), `imp_average` (`copies`
            independent runs averaged, and pruned again), `dense` (no pruning, trained as long).
        shifted: Tasks with shifted test examples, to report on too.
        keep: Weights that stay on disk: `all`, the `averages`, or the `result` with those of the baselines.

    Raises:
        RecipeError: values do not fit together, or there is nothing to prune.
        TaskError: the task lacks a split.
    """
    task = setup.checked_task()
    options = Options(
        setup, sparsity, phases, copies, selector, setup.epochs if retrain_epochs is None else retrain_epochs,
        retrain_schedule, schedule, vary, values, soup, dense, recalibrate, baselines,
        _placed(shifted, setup.folder), keep, task.count(TRAIN),
    )  # fmt: skip
    _check(options)
    nbytes, notes = _check_model(options)
    result = Branch(MAIN, ()).average(phases)
    return TrainingPlan(
        _stages(options, nbytes), partial(page, options), result, scored=f"{TESTED}{result}", notes=notes
    )  # fmt: skip


def _placed(sources: Sequence[str], folder: Path) -> tuple[str, ...]:
    return tuple(source if ":" in source else str((folder / source).absolute()) for source in sources)


def _check(options: Options) -> None:
    """Refuse settings that do not fit together.

    Raises:
        RecipeError: the message names them.
    """
    if options.retrain_epochs <= 0:
        raise RecipeError(f"`retrain_epochs` must be above 0; got {options.retrain_epochs:g}.")
    if options.vary == "seed" and options.values:
        raise RecipeError("`values` are given, and copies differ in their seeds. Say what varies with `vary:`.")
    if options.vary != "seed" and len(options.values) != options.copies:
        raise RecipeError(
            f"`vary: {options.vary}` needs a value per copy: `values` has {len(options.values)}, and `copies` is "
            f"{options.copies}."
        )
    if options.vary in ("length", "learning_rate") and not all(options.values):
        raise RecipeError(f"`values` of `vary: {options.vary}` must be above 0.")
    if options.sparsity and re.fullmatch(r"\d+:\d+", options.selector) is None:
        check_selector(options.selector, options.sparsity, {})


def _check_model(options: Options) -> tuple[int, tuple[str, ...]]:
    """Check that the model runs and has layers to prune; its size in bytes, and notes."""
    with options.setup.start() as start:
        live = live_model(options.setup, start)
        names = prunable(live, options.dense)
        check_selector(options.selector, options.sparsity, {name: start.spec(name).shape for name in names})
        nbytes = sum(spec.nbytes for spec in start.specs.values())
        weights = sum(start.spec(name).numel for name in names)
        total = sum(spec.numel for spec in start.specs.values())
    notes = [f"{weights:,} of {total:,} weights can be pruned, in {len(names)} layers"]
    if not options.sparsity:
        notes.append("the sparsity is 0: a soup without pruning")
    return nbytes, tuple(notes)


def _branches(options: Options) -> list[Branch]:
    every = tuple(range(1, options.copies + 1))
    branches = [Branch(MAIN, every)]
    runs = every if "imp_average" in options.baselines else (1,) * ("imp" in options.baselines)
    branches += [Branch(f"imp{number}", (number,), shares=True) for number in runs]
    if "imp_long" in options.baselines:
        branches.append(Branch("long", (1,), times=float(options.copies)))
    return branches


def _stages(options: Options, nbytes: int) -> list[Stage]:
    branches, setup = _branches(options), options.setup
    steps = 0 if setup.model is not None else options.original_steps
    stages = [Stage([Unit(DENSE, train_dense, options, steps, nbytes, continues=setup.continues)])]
    for phase in range(1, options.phases + 1):
        stages += _phase(options, branches, phase, nbytes)
    stages += _ends(options, branches, nbytes)
    return stages


def _phase(options: Options, branches: Sequence[Branch], phase: int, nbytes: int) -> list[Stage]:
    pruned: dict[str, Unit] = {}
    copies: dict[str, Unit] = {}
    for branch in branches:
        unit = branch.pruned(phase)
        pruned.setdefault(unit, Unit(unit, prune, (options, branch, phase), nbytes=nbytes))
        for number in branch.copies:
            unit, steps = branch.copy(phase, number), options.copy(number, branch.times).steps
            given = (options, branch, phase, number)
            copies.setdefault(
                unit, Unit(unit, retrain, given, steps, nbytes, continues=options.setup.continues)
            )  # fmt: skip
    if phase == 1 and "dense" in options.baselines:
        steps = options.copy(1, options.phases).steps
        copies[LONGER] = Unit(LONGER, longer, options, steps, nbytes, continues=options.setup.continues)
    averages = [Unit(b.average(phase), average, (options, b, phase), nbytes=nbytes) for b in branches]
    needed = {branches[0].copy(options.phases, number) for number in branches[0].copies} | {LONGER}
    gone = [] if options.keep == "all" else [*pruned, *(name for name in copies if name not in needed)]
    earlier = [b.average(phase - 1) for b in branches] if phase > 1 and options.keep == "result" else []
    return [
        Stage(list(pruned.values()), needs=0),
        Stage(list(copies.values()), needs=0),
        Stage(averages, needs=0, removes=[*gone, *earlier]),
    ]


def _ends(options: Options, branches: Sequence[Branch], nbytes: int) -> list[Stage]:
    last, stages = options.phases, list[Stage]()
    tested = [DENSE, *(branch.average(last) for branch in branches)]
    if "imp_average" in options.baselines:
        runs = [branch for branch in branches if branch.name.startswith("imp")]
        stages.append(Stage([Unit(AVERAGED, average_of_runs, (options, runs), nbytes=nbytes)], needs=0))
        stages.append(Stage([Unit(REPRUNED, prune_again, (options, AVERAGED), nbytes=nbytes)], needs=0))
        tested += [AVERAGED, REPRUNED]
    if "dense" in options.baselines:
        tested.append(LONGER)
    copies = [branches[0].copy(last, number) for number in branches[0].copies]
    units = [Unit(f"{TESTED}{name}", test, (options, name), nbytes=nbytes // 4) for name in [*tested, *copies]]
    if options.setup.task().likelihood == "classification":
        units.append(Unit(f"{TESTED}ensemble", test_ensemble, (options, copies)))
    stages.append(Stage(units, needs=0, removes=[] if options.keep == "all" else copies))
    return stages
