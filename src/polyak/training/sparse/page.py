"""The report of a sparse soup: scores, sizes and phases, in one HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ...display import human_size, table
from ...report import Dot, Row, document, figure, rows_plot
from ...runs import Results
from .options import DENSE, MAIN, Branch, Options

_NAMES = {
    DENSE: "dense", "dense.longer": "dense, trained as long", "imp.average": "average of IMP runs",
    "imp.average.pruned": "average of IMP runs, pruned again", "ensemble": "ensemble of the copies",
}  # fmt: skip


def page(options: Options, results: Results, failed: Mapping[str, str]) -> str:
    """The report of a run.

    Args:
        options: The settings.
        results: Results of the units that were done.
        failed: Why others failed.
    """
    tested = _tested(options, results)
    tested = dict(sorted(tested.items(), key=lambda item: not item[0].startswith(MAIN)))
    parts = [
        f"<h1>Sparse soup of {options.copies} copies</h1><p>{escape(_words(options))}</p>",
        _failures(failed), _scores(options, tested, results), _copies_table(options, results),
        _phases(options, results), _costs(tested), _layers(tested),
    ]  # fmt: skip
    return document("Sparse soup", "".join(parts))


def label(options: Options, unit: str) -> str:
    """The name of a model for readers."""
    last = options.phases
    if unit == Branch(MAIN, ()).average(last):
        return f"soup ({options.soup})"
    if unit == Branch("long", ()).average(last):
        return f"IMP, {options.copies} times the retraining"
    if unit.startswith("imp") and unit.endswith(f".{last}.average"):
        return f"IMP, run {unit.split('.', maxsplit=1)[0].removeprefix('imp')}"
    return _NAMES.get(unit, unit)


def _words(options: Options) -> str:
    varied = options.vary.replace("_", " ")
    return (
        f"Sparsity {options.sparsity:.1%} ({options.selector}), reached in {options.phases} phase(s) of "
        f"{options.retrain_epochs:g} epochs with the schedule {options.retrain_schedule}; copies differ in their "
        f"{varied}. Scores on the test split; copies of a greedy soup are chosen on the validation split."
    )


def _failures(failed: Mapping[str, str]) -> str:
    if not failed:
        return ""
    items = "".join(f"<li>{escape(name)}: {escape(error)}</li>" for name, error in failed.items())
    return f"<h2>Left out</h2><ul>{items}</ul>"


def _tested(options: Options, results: Results) -> dict[str, Mapping[str, Any]]:
    """The results on the test split, by the unit whose model was tested; those of single copies are apart."""
    tested = {name.removeprefix("test."): result for name, result in results.items() if name.startswith("test.")}
    return {unit: result for unit, result in tested.items() if ".copy" not in unit and result["metrics"]}


def _copies(options: Options, results: Results) -> dict[str, Mapping[str, Any]]:
    branch = Branch(MAIN, tuple(range(1, options.copies + 1)))
    units = [branch.copy(options.phases, number) for number in branch.copies]
    return {unit: results[f"test.{unit}"] for unit in units if unit in results}


def summary(options: Options, results: Results) -> dict[str, Mapping[str, float]]:
    """The measures on the test split of every model and of the copies' best and mean, by the name for readers."""
    rows = {label(options, unit): result["metrics"] for unit, result in _tested(options, results).items()}
    copies = _copies(options, results)
    if copies:
        keys = next(iter(copies.values()))["metrics"].keys()
        mean = {key: sum(copy["metrics"][key] for copy in copies.values()) / len(copies) for key in keys}
        better = max if options.setup.task().higher_is_better else min
        best = better(copies, key=lambda unit: results[unit]["metrics"]["validation"])
        rows |= {"mean copy": mean, "best copy (on validation)": copies[best]["metrics"]}
    return rows


def _scores(options: Options, tested: Mapping[str, Any], results: Results) -> str:
    rows = summary(options, results)
    keys = list(dict.fromkeys(key for metrics in rows.values() for key in metrics))
    metric = options.setup.task().metric
    head = ["model", *(metric if key == "test" else key for key in keys)]
    cells = [[name, *(f"{m[key]:.4f}" if key in m else "" for key in keys)] for name, m in rows.items()]
    dots = [Row(name, [Dot(m["test"], words=f"{name}: {m['test']:.4f}")]) for name, m in rows.items()]
    plot = rows_plot(dots, metric, name=f"{metric} of each model on the test split")
    return figure("Test split", plot) + table(head, cells, "Test split") + _shifted(options, tested)


def _shifted(options: Options, tested: Mapping[str, Any]) -> str:
    rows = [
        [label(options, unit), name, f"{value:.4f}"]
        for unit, result in tested.items()
        for name, value in result.get("shifted", {}).items()
    ]
    return table(["model", "task", "score"], rows, "Shifted test examples") if rows else ""


def _copies_table(options: Options, results: Results) -> str:
    average = results.get(Branch(MAIN, ()).average(options.phases))
    if average is None:
        return ""
    rows = [
        [unit, f"{results[unit]['metrics']['validation']:.4f}", f"{far['distance']:.4g}", f"{far['angle']:.2f}°",
         "yes" if unit in average["taken"] else "no"]
        for unit, far in average["distances"].items()
    ]  # fmt: skip
    head = ["copy", "validation", "distance from the mean", "angle to the mean", "in the soup"]
    return table(head, rows, "Copies of the last phase")


def _phases(options: Options, results: Results) -> str:
    rows: list[Sequence[str]] = []
    for phase in range(1, options.phases + 1):
        branch = Branch(MAIN, tuple(range(1, options.copies + 1)))
        units = [branch.pruned(phase), *(branch.copy(phase, n) for n in branch.copies), branch.average(phase)]
        for unit in units:
            if unit in results:
                metrics = results[unit]["metrics"]
                sparsity = f"{metrics['sparsity']:.4%}" if "sparsity" in metrics else ""
                rows.append([str(phase), unit, sparsity, f"{metrics['validation']:.4f}"])
    return table(["phase", "unit", "sparsity", "validation"], rows, "Phases")


def _costs(tested: Mapping[str, Any]) -> str:
    rows = [
        [unit, human_size(r["nbytes"]["dense"]), human_size(r["nbytes"]["compact"]),
         f"{r['multiplications']['dense']:,}", f"{r['multiplications']['sparse']:,}",
         f"{r['multiplications']['dense'] / max(1, r['multiplications']['sparse']):.2f}"]
        for unit, r in tested.items() if "nbytes" in r
    ]  # fmt: skip
    head = ["model", "dense file", "compact file", "multiplications", "without zeros", "ratio"]
    note = (
        "<p>Multiplications of linear and convolutional layers per example. The ratio is what a perfect sparse "
        "implementation would save; no time was measured.</p>"
    )
    return table(head, rows, "Sizes") + note if rows else ""


def _layers(tested: Mapping[str, Any]) -> str:
    sparse = [result for result in tested.values() if "layers" in result]
    if not sparse:
        return ""
    rows = [[name, f"{share:.2%}"] for name, share in sparse[0]["layers"].items()]
    return table(["layer", "sparsity"], rows, "Layers of the soup")
