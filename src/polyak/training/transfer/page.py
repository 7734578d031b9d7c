"""The report of a cross-lingual run: strategies by language, averages over runs, the spread over hyperparameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from ...display import table
from ...report import Dot, Row, document, figure, rows_plot
from ...runs import Results
from ...tasks import Interval
from .intervals import Spread, interval_of_mean, paired, spread
from .judging import SOURCE, means
from .options import TOGETHER, Options, Run, judged, tuned

MEAN, LAST, ORACLE = "mean of the targets", "LAST", "TRG-DEV"
Scores = Mapping[str, Mapping[str, Mapping[str, float]]]  # by strategy, language and run


def page(options: Options, results: Results, failed: Mapping[str, str]) -> str:
    """The report of a run.

    Args:
        options: The settings.
        results: Results of the units that were done.
        failed: Why others failed.
    """
    parts = [f"<h1>Cross-lingual transfer</h1><p>{escape(_words(options))}</p>", _failures(failed)]
    for title, prefix in (("Zero-shot", ""), ("Few-shot", "few.")):
        scores = scores_by_run(options, results, few_shot=bool(prefix))
        if scores:
            parts += [f"<h2>{title}</h2>", _plot(scores), _by_language(options, scores), _spread(options, scores)]
    if TOGETHER in results:
        parts.append(_over_runs(options, results[TOGETHER]["scores"]))
    parts.append(_notes(results))
    return document("Cross-lingual transfer", "".join(parts))


def scores_by_run(options: Options, results: Results, *, few_shot: bool = False) -> Scores:
    """The test scores of every strategy, by language (and `mean of the targets`) and run."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for run in options.runs:
        unit = judged(tuned(run.name) if few_shot else run.name)
        for strategy, row in results[unit]["scores"].items() if unit in results else ():
            mean = sum(row[language] for language in options.targets) / len(options.targets)
            for language, value in {**row, MEAN: mean}.items():
                found.setdefault(strategy, {}).setdefault(language, {})[run.name] = value
    return found


def spreads(options: Options, scores: Scores, language: str = MEAN) -> dict[str, Spread]:
    """By strategy, the spread over configurations of the mean over seeds; nothing for one configuration."""
    by_configuration: dict[str, list[Run]] = {}
    for run in options.runs:
        by_configuration.setdefault(run.configuration, []).append(run)
    found: dict[str, Spread] = {}
    for strategy, languages in scores.items():
        values = languages.get(language, {})
        groups = [[values[run.name] for run in runs if run.name in values] for runs in by_configuration.values()]
        averages = [sum(group) / len(group) for group in groups if group]
        if len(averages) > 1:
            found[strategy] = spread(averages)
    return found


def _words(options: Options) -> str:
    shared = "share the head of a full run, which is fixed" if options.head == "frozen" else "train heads of their own"
    return (
        f"{len(options.runs)} runs, which {shared}; {options.snapshots} checkpoints per epoch. Scores are "
        f"{options.setup.task().metric} on the test split, with 95 % Student intervals over runs; differences are "
        "paired. TRG-DEV selects checkpoints on target data: an oracle, an upper bound for selecting one."
    )


def _failures(failed: Mapping[str, str]) -> str:
    items = "".join(f"<li>{escape(name)}: {escape(error)}</li>" for name, error in failed.items())
    return f"<h2>Left out</h2><ul>{items}</ul>" if failed else ""


def _plot(scores: Scores) -> str:
    rows: list[Row] = []
    for strategy, languages in scores.items():
        found = interval_of_mean(list(languages[MEAN].values()))
        rows.append(Row(label(strategy), [Dot(found.value, found.low, found.high, words=shown(found))]))
    return figure("Mean of the target languages", rows_plot(rows, "mean score", name="Mean scores of the strategies"))


def _by_language(options: Options, scores: Scores) -> str:
    languages = [MEAN, SOURCE, *options.targets]
    rows = [[label(name), *_cells(of_strategy, languages)] for name, of_strategy in scores.items()]
    differences = [
        [label(name), *(shown(paired(of[k], scores[LAST][k]), "+.4f") if k in of else "" for k in languages)]
        for name, of in scores.items()
        if name != LAST
    ]
    return table(["", *languages], rows, "Means over runs") + table(["", *languages], differences, "Minus LAST")


def _cells(languages: Mapping[str, Mapping[str, float]], names: Sequence[str]) -> list[str]:
    return [shown(interval_of_mean(list(languages[n].values()))) if n in languages else "" for n in names]


def _spread(options: Options, scores: Scores) -> str:
    found = spreads(options, scores)
    rows = [[label(name), f"{one.deviation:.4f}", f"{one.range:.4f}"] for name, one in found.items()]
    caption = "Spread over hyperparameters, mean of the target languages"
    return table(["", "standard deviation", "largest minus smallest"], rows, caption) if rows else ""


def _over_runs(options: Options, scores: Mapping[str, Mapping[str, float]]) -> str:
    languages, mean = [SOURCE, *options.targets], means(scores)
    rows = [[name, f"{mean[name]:.4f}", *(f"{row[k]:.4f}" for k in languages)] for name, row in scores.items()]
    return "<h2>Averages over runs</h2>" + table(["", MEAN, *languages], rows)


def _notes(results: Results) -> str:
    notes = [f"{unit}: {note}" for unit, result in results.items() for note in result.get("notes", ())]
    return f"<h2>Notes</h2><ul>{''.join(f'<li>{escape(note)}</li>' for note in notes)}</ul>" if notes else ""


def label(strategy: str) -> str:
    """The name of a strategy for readers: the oracle is marked."""
    return f"{strategy} (oracle)" if strategy == ORACLE else strategy


def shown(found: Interval, form: str = ".4f") -> str:
    """A number with its interval."""
    ends = f" ({found.ends(form)})" if found.low is not None else ""
    return f"{found.value:{form}}{ends}"
