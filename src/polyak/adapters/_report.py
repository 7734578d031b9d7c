"""Reports of merges and extractions of adapters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import recipe as recipes
from .._version import __version__
from ..display import human_size, table
from ..engine import PROVENANCE
from ..planning import Plan
from ..recipe import Recipe
from ..storage import model_digest
from ._opened import Adapter


@dataclass(frozen=True)
class ModuleReport:
    """One module of a result.

    Attributes:
        name: Its name.
        rank: The rank of its factors.
        energy: Sum of the squares of the update that it approximates.
        lost: Sum of the squares of the approximation error.
    """

    name: str
    rank: int
    energy: float
    lost: float

    @property
    def share_lost(self) -> float:
        return self.lost / self.energy if self.energy else 0.0


@dataclass(frozen=True)
class Report:
    """An adapter that was written.

    Attributes:
        out: The output folder.
        modules: Its modules.
        nbytes_written: Bytes of its tensors.
        seconds: Wall time.
        digest: Its digest.
        left_out: Tensors that differ but are not in the adapter, with the sum of the squares of each difference.
    """

    out: Path
    modules: tuple[ModuleReport, ...]
    nbytes_written: int
    seconds: float
    digest: str
    left_out: Mapping[str, float] | None = None

    @property
    def share_lost(self) -> float:
        """Fraction of the energy of all modules that is lost."""
        energy = math.fsum(m.energy for m in self.modules)
        return math.fsum(m.lost for m in self.modules) / energy if energy else 0.0

    @property
    def ranks(self) -> tuple[int, int]:
        """The smallest and the largest rank."""
        ranks = [m.rank for m in self.modules]
        return min(ranks), max(ranks)

    def __repr__(self) -> str:
        return f"<adapters.Report: {self}>"

    def __str__(self) -> str:
        low, high = self.ranks
        ranks = f"rank {low}" if low == high else f"ranks {low} to {high}"
        return (
            f"{self.out}: {len(self.modules)} modules of {ranks}, {human_size(self.nbytes_written)} written in "
            f"{self.seconds:.1f} s; energy lost: {self.share_lost:.3g} (relative error {self.share_lost**0.5:.3g})"
        )

    def _repr_html_(self) -> str:
        """The report in a notebook."""
        rows = [[m.name, str(m.rank), f"{m.share_lost:.3g}"] for m in self.modules]
        return table(["module", "rank", "share of energy lost"], rows, str(self))

    def as_data(self) -> dict[str, Any]:
        """The report for `--json`."""
        return {
            "out": str(self.out),
            "nbytes_written": self.nbytes_written,
            "seconds": self.seconds,
            "digest": self.digest,
            "share_lost": self.share_lost,
            "relative_error": math.sqrt(self.share_lost),
            "modules": {m.name: {"rank": m.rank, "energy": m.energy, "lost": m.lost} for m in self.modules},
            "left_out": dict(self.left_out or {}),
        }


def provenance(
    recipe: Recipe,
    inputs: Mapping[str, Mapping[str, str]],
    outputs: Mapping[str, str],
    algorithm: str,
    adapters: Mapping[str, Adapter],
    report: Report,
) -> dict[str, Any]:
    """The contents of polyak.json, in the format of merges of models, with the loss of each module."""
    return {
        "polyak": __version__,
        "digest": algorithm,
        "recipe": recipes.dump(recipe),
        "recipe_digest": recipes.digest(recipe),
        "models": {
            name: {
                "path": str(adapters[name].folder),
                "digest": model_digest(tensors, algorithm),
                "tensors": dict(sorted(tensors.items())),
            }
            for name, tensors in inputs.items()
        },
        "result": {"digest": report.digest, "tensors": dict(sorted(outputs.items()))},
        "modules": report.as_data()["modules"],
    }


def card(recipe: Recipe, adapters: Mapping[str, Adapter], report: Report) -> dict[str, str]:
    """The recipe, and a model card in the Hub's format."""
    text = recipes.dump(recipe)
    low, high = report.ranks
    lines = ["---", "library_name: peft", "tags:", "- merge", "- lora", "- polyak", "---", ""]
    lines += [f"# Merge of {', '.join(adapters)}", ""]
    lines += [f"{len(adapters)} LoRA adapters merged with polyak {__version__} by {recipe.method}.", ""]
    lines += ["| adapter | read from |", "|---|---|", *(f"| {n} | `{a.folder}` |" for n, a in adapters.items()), ""]
    lines += [f"{len(report.modules)} modules of rank {low} to {high}; {report.share_lost:.3g} of the energy is lost."]
    lines += [f"`{PROVENANCE}` says what each module lost and holds the digests; `polyak verify` checks them.", ""]
    lines += ["## Recipe", "", "```yaml", text.rstrip(), "```", ""]
    return {"README.md": "\n".join(lines), "recipe.yaml": text}


def extraction_card(plan: Plan, report: Report, outputs: Mapping[str, str], algorithm: str) -> dict[str, Any]:
    """The provenance of an extraction, and a model card."""
    labels = {name: model.label for name, model in plan.models.items()}
    low, high = report.ranks
    left = math.fsum((report.left_out or {}).values())
    lines = ["---", "library_name: peft", "tags:", "- lora", "- polyak", "---", ""]
    lines += ["# Adapter of a fine-tune", ""]
    lines += [f"What `{labels['tuned']}` changed of `{labels['untuned']}`, taken with polyak {__version__}.", ""]
    lines += [
        f"{len(report.modules)} modules of rank {low} to {high}; {report.share_lost:.3g} of their energy is lost."
    ]
    lines += [f"{len(report.left_out or {})} tensors differ and are left out (energy {left:.3g}).", ""]
    stated = {
        "polyak": __version__,
        "digest": algorithm,
        "models": {name: {"path": label, "tensors": {}} for name, label in labels.items()},
        "result": {"digest": report.digest, "tensors": dict(sorted(outputs.items()))},
        "modules": report.as_data()["modules"],
        "left_out": dict(report.left_out or {}),
    }
    return {"README.md": "\n".join(lines), PROVENANCE: stated}
