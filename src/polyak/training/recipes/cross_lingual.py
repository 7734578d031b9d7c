"""Cross-lingual transfer: fine-tune on one language, and get one model for others from all checkpoints and runs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import Annotated, Any

from ...averaging import Curve
from ...errors import RecipeError
from ...reading import Place, is_mapping, pattern, patterns, positive, text
from ...runs import Stage, Unit
from .._declaration import TrainingPlan, training_recipe
from .._setup import TRAIN, Setup
from ..transfer.judging import judge, together
from ..transfer.languages import check_targets, read_targets, targets_of
from ..transfer.options import FULL, START, TOGETHER, FewShot, Head, Keep, Options, Run, Schedule, Unseen, judged, tuned
from ..transfer.page import page
from ..transfer.running import begin, beginning, few_shot, new_head, train

_SOURCE = "Schmidt, Vulic and Glavas, 2023. Free Lunch: Robust Cross-Lingual Transfer. arXiv:2305.16834"
_HEADS = r"^(classifier|qa_outputs|score|head)\."


def _targets(value: object, place: Place) -> Any:
    return value if is_mapping(value) else text(str(value) if hasattr(value, "__fspath__") else value, place)


def _share(value: object, place: Place) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise place.expected("at least 0 and below 1", value)
    return float(value)


@training_recipe(
    "cross_lingual",
    source=_SOURCE,
    defaults={"optimizer": "adamw", "learning_rate": 2e-5, "weight_decay": 0.05, "batch_size": 32, "epochs": 10.0},
)
def cross_lingual(
    setup: Setup, *, targets: Annotated[Any, _targets], languages: tuple[str, ...] = (),
    runs: Annotated[int, positive] = 5, learning_rates: tuple[float, ...] = (),
    schedules: tuple[Schedule, ...] = ("linear",), warmup: Annotated[float, _share] = 0.1,
    snapshots: Annotated[int, positive] = 1, heads: Annotated[str, pattern] = _HEADS, head: Head = "frozen",
    freeze: Annotated[str, patterns] = "", floor: Annotated[float, _share] = 0.9, last: Annotated[int, positive] = 3,
    decay: Annotated[float, _share] = 0.9, penalty: float = 0.7, curve: Curve = "1-sqrt", few_shot: FewShot = "none",
    shots: Annotated[int, positive] = 10, few_shot_epochs: Annotated[int, positive] = 1, vaccinate: bool = False,
    unseen_labels: Unseen = "refuse", keep: Keep = "all",
) -> TrainingPlan:  # fmt: skip
    """Fine-tune on a source language, and compare the ways to get one model for other languages from its checkpoints.

    A full run trains body and head. Further runs begin with the pretrained body and the head of the full run's last
    checkpoint, which stays fixed, so that they can be averaged. They differ in their seeds, and in learning rate and
    schedule where several are given.

    Departures:
        Checkpoints whose score on the source is below `floor` of the best are left out of averages; the authors average
        all, which is reported as `CA of all`.

    Args:
        setup: The common keys; the task is that of the source language.
        targets: Task files of the target languages, a path with `{language}`; in Python also a mapping to tasks.
        languages: The target languages (default: all that have a file).
        runs: Number of seeds.
        learning_rates: Peak learning rates; each is trained with every seed and schedule (default: `learning_rate`).
        schedules: Learning rate after the warm-up: `constant`, `linear` or `cosine`.
        warmup: Share of the steps in which the learning rate rises.
        snapshots: Checkpoints per epoch.
        heads: Regular expression for the tensors of the head.
        head: `frozen`: all runs share the head of the full run; `own`: each trains its own.
        freeze: Regular expression for other tensors that are not trained, such as embeddings.
        floor: Share of the best score on the source's validation data below which a checkpoint is not averaged.
        last: Number of checkpoints in LAWA.
        decay: Decay of EMA per checkpoint.
        penalty: Penalty of MWA, by the mean training loss since the checkpoint before.
        curve: Decay curve of WSM: `linear`, `1-sqrt` or `cosine`.
        few_shot: Train further on a few examples of the targets: `mixed` with the source in every step, with the
            mean loss over languages, or one language after another, `in_turn`.
        shots: Training examples per target.
        few_shot_epochs: Epochs of that: over the source's examples if mixed, over a target's if in turn.
        vaccinate: Make each mixed step orthogonal to the gradient of a random target that it would harm.
        unseen_labels: Labels of a target that the source's training examples lack: `refuse`, or `count` as wrong.
        keep: Weights that stay on disk: `all` checkpoints, or the `result`.

    Raises:
        RecipeError: languages have no data, or keys do not fit together.
        TaskError: a task does not fit, labels are unseen, or no tensor is one of the head.
    """
    task = setup.checked_task()
    if vaccinate and few_shot != "mixed":
        raise RecipeError(f"`vaccinate` is for `few_shot: mixed`; got {few_shot!r}.")
    fine = _runs(setup, learning_rates or (setup.how.learning_rate,), schedules, runs)
    options = Options(
        setup, targets_of(targets, languages, setup.folder), fine, heads, head, freeze, snapshots, warmup, floor, last,
        decay, penalty, curve, few_shot, shots, float(few_shot_epochs), vaccinate, unseen_labels, keep,
        task.count(TRAIN),
    )  # fmt: skip
    return _plan(options, check_targets(task, read_targets(options), options))


def _plan(options: Options, notes: Sequence[str]) -> TrainingPlan:
    setup, heads = options.setup, options.heads
    _, tensors, of_head = new_head(setup, heads, setup.seed)
    stages = _stages(options, sum(tensor.nbytes for tensor in tensors.values()))
    told = (f"the head is {', '.join(sorted(of_head))}", *notes)
    begins = partial(beginning, setup, heads)
    return TrainingPlan(stages, partial(page, options), TOGETHER, notes=told, begins=begins)


def _runs(setup: Setup, rates: Sequence[float], schedules: Sequence[Schedule], count: int) -> tuple[Run, ...]:
    several = len(rates) * len(schedules) > 1
    if not all(rate > 0 for rate in rates):
        raise RecipeError(f"learning rates must be above 0; got {min(rates):g}.")
    if len({*product(rates, schedules)}) < len(rates) * len(schedules):
        raise RecipeError("`learning_rates` or `schedules` has the same value twice.")
    return tuple(
        Run(f"{f'rate{rate:g}.{schedule}.' if several else ''}seed{index}", rate, schedule, setup.seed + index, index)
        for rate, schedule in product(rates, schedules)
        for index in range(1, count + 1)
    )


def _stages(options: Options, nbytes: int) -> list[Stage]:
    setup, names = options.setup, [run.name for run in options.runs]
    size = (1 + len(options.snapshot_steps(options.steps, setup.epochs))) * nbytes
    stages = [Stage([Unit(START, begin, options, nbytes=nbytes)])]
    if options.head == "frozen":
        full = Run(FULL, setup.how.learning_rate, options.runs[0].schedule, setup.seed, 0)
        stages.append(Stage([Unit(FULL, train, (options, full), options.steps, size, continues=setup.continues)]))
    fits = [
        Unit(run.name, train, (options, run), options.steps, size, continues=setup.continues) for run in options.runs
    ]
    stages.append(Stage(fits, needs=1))
    few, prefix, lasts = _few_shot_stages(options, size)
    stages += few
    units = [unit.name for stage in stages for unit in stage.units]
    stages.append(Stage([Unit(judged(name), judge, (options, name)) for name in names], needs=1))
    if lasts:
        stages.append(Stage([Unit(judged(name), judge, (options, name)) for name in lasts], needs=1))
    removed = units if options.keep == "result" else ()
    stages.append(Stage([Unit(TOGETHER, together, (options, prefix), nbytes=nbytes)], removes=removed))
    return stages


def _few_shot_stages(options: Options, nbytes: int) -> tuple[list[Stage], str, list[str]]:
    """The stages of few-shot training, what precedes the names of the runs in their last units, and those units."""
    setup = options.setup
    if options.few_shot == "none":
        return [], "", []
    if options.few_shot == "mixed":
        steps, languages = setup.steps(options.few_shot_epochs, options.examples), [""]
    else:
        steps, languages = setup.steps(options.few_shot_epochs, options.shots), list(options.targets)
    stages: list[Stage] = []
    before = {run.name: run.name for run in options.runs}
    for language in languages:
        is_last = language == languages[-1]
        units = [tuned(run.name, "" if is_last else language) for run in options.runs]
        stages.append(
            Stage(
                [
                    Unit(unit, few_shot, (options, run, before[run.name], language), steps, nbytes, setup.continues)
                    for unit, run in zip(units, options.runs, strict=True)
                ],
                needs=1,
            )
        )
        before = dict(zip(before, units, strict=True))
    return stages, "few.", list(before.values())
