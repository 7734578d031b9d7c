"""Merge adapters into an adapter."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint import DTYPE_NAMES, Checkpoint, locate
from ..engine import PROVENANCE, refuse_inputs, stream
from ..errors import InputChanged, Mismatch, RecipeError, SettingError
from ..events import Reporter, Watcher, ignore
from ..inspection import digest_of
from ..methods import Law
from ..planning import BASE, Plan, Step
from ..planning import plan as planned
from ..reading import compiled
from ..recipe import Factorisation, Recipe
from ..storage import ALGORITHMS, cpu_count, drafted, model_digest
from ._configuration import merged_configuration
from ._fit import fitted
from ._meeting import meet
from ._memory import workers_within
from ._opened import Adapter, Module, Products, Zeros, as_matrix
from ._report import ModuleReport, Report, card, provenance
from ._writing import CONFIG, Spool, put_factors, write_texts
from .low_rank import Factors, Limit, Term, added, averaged_apart, factorised

DIGEST = next(iter(ALGORITHMS))


def merge(
    recipe: Recipe,
    out: str | Path,
    *,
    workers: int | None = None,
    memory: int | None = None,
    force: bool = False,
    progress: Watcher = ignore,
) -> Report:
    """Merge adapters of one base into an adapter, by any method.

    The method sees the exact updates s B A of each module, with a base of zeros.  Methods with the law `LINEAR`
    are computed on the factors, exactly unless a rank or an energy limits the result; the result of other
    methods is a full matrix, of which the best approximation within the limit is kept; the loss is reported.
    Tensors that the adapters keep whole (`modules_to_save`, biases) are averaged.

    Args:
        recipe: Its models are folders of adapters; `recipe.adapter` has the settings of the result.
        out: Output folder; it appears whole or not at all, and PEFT loads it.
        workers: Threads (default: one per CPU that this process may use).
        memory: Maximum anonymous memory, bytes; fewer workers run if necessary (default: no limit).
        force: Replace an existing result.
        progress: Receives the events of the merge, from any thread.

    Raises:
        RecipeError: the recipe has keys that do not apply to adapters.
        CheckpointError: an adapter is damaged, of another kind, or does not fit the others.
        BudgetError: not even one worker fits into `memory`.
        OutputError: the output folder exists, is in use or cannot be written, or is one of the inputs.

    Source: Hu et al., 2021. LoRA. arXiv:2106.09685; Stoica et al., 2024. KnOTS. arXiv:2410.19735 (merging products)
    """
    began = time.perf_counter()
    with Reporter(progress, "merging adapters") as reporter:
        merge = _Merge(recipe, workers or cpu_count(), memory, reporter)
        return merge.run(Path(os.path.abspath(out)), force, began)


class _Merge:
    def __init__(self, recipe: Recipe, workers: int, memory: int | None, progress: Reporter) -> None:
        self._recipe, self._progress = recipe, progress
        self._factorisation = recipe.adapter or Factorisation()
        self._limit = Limit(self._factorisation.rank, self._factorisation.energy)
        self._adapters = {adapter.name: adapter for adapter in _opened(recipe)}
        for note in meet(list(self._adapters.values())):
            progress.say(f"note: {note}")
        self._plan = self._planned()
        self._steps = [step for step in self._plan.steps if step.kind == "merge"]
        self._modules = {
            f"{name}.weight": (name, m) for a in reversed(self._adapters.values()) for name, m in a.modules.items()
        }
        self._weighted = {s.out.name: c for s in self._steps if (c := coefficients(s)) is not None}
        self._reports: dict[str, ModuleReport] = {}
        self._check()
        adapters = list(self._adapters.values())
        self._workers = workers_within(self._plan, self._weighted, self._modules, adapters, workers, memory)

    def _planned(self) -> Plan:
        skip = compiled(self._recipe.skip) if self._recipe.skip else None
        adapters = list(self._adapters.values())
        shapes = fitted(adapters, self._factorisation, lambda name: skip is not None and skip.search(name))
        checkpoints: dict[str, Checkpoint] = {a.name: Products(a, shapes) for a in adapters}
        checkpoints[BASE] = Zeros(checkpoints[adapters[0].name].specs)
        return planned(replace(self._recipe, adapter=None, dtype=None), checkpoints)

    def _check(self) -> None:
        """Refuse recipes that no step can carry out, before anything is read."""
        if not any(step.out.name in self._modules for step in self._steps):
            raise Mismatch("there is nothing to merge: no module is left after `skip:`.")
        largest = max(min(m.b.shape[0], m.a.numel // m.rank) for _, m in self._modules.values())
        if (self._limit.rank or 0) > largest:
            raise SettingError(
                f"rank {self._limit.rank} is more than any module's matrix can have, which is {largest}."
            )
        for step in self._steps:
            if step.out.name in self._modules:
                self._check_module(step)
            else:
                self._check_whole(step)

    def _check_module(self, step: Step) -> None:
        name, method = step.out.name, step.method.name if step.method else ""
        if name in self._weighted:
            return
        if self._factorisation.space == "factors":
            raise RecipeError(
                f"{name!r}: method {method!r} is no weighted sum, so it cannot merge factors by themselves."
            )
        if self._limit.is_open:
            raise RecipeError(
                f"{name!r}: method {method!r} gives no matrix of low rank. Say how much of it to keep: "
                "`adapter: {rank: 16}` or `adapter: {energy: 0.95}`; --rank or --energy."
            )

    def _check_whole(self, step: Step) -> None:
        weights = self._weighted.get(step.out.name)
        if weights is None or abs(sum(weights) - 1) > 1e-6:
            raise RecipeError(
                f"{step.out.name!r} is kept whole by the adapters (modules_to_save or bias), so only an average of it "
                f"means something, and {step.method and step.method.name!r} gives none. Add a rule that averages it, "
                f"`- {{match: {re.escape(step.out.name)!r}, method: linear}}`, or leave it out by `skip:`."
            )

    def run(self, out: Path, force: bool, began: float) -> Report:
        refuse_inputs(self._plan, out)
        dtype = DTYPE_NAMES[self._recipe.dtype or "float32"]
        with drafted(out, self._plan.digest, force=force) as draft, Spool(draft, dtype) as spool:
            self._compute(spool)
            self._check_inputs()
            outputs = spool.finish(DIGEST)
            inputs = {name: self._digests(adapter) for name, adapter in self._adapters.items()}
            reports = tuple(self._reports[step.out.name] for step in self._steps if step.out.name in self._reports)
            report = Report(out, reports, spool.nbytes, time.perf_counter() - began, model_digest(outputs, DIGEST))
            stated = provenance(self._recipe, inputs, outputs, DIGEST, self._adapters, report)
            write_texts(
                draft, {CONFIG: self._configuration(), PROVENANCE: stated, **card(self._recipe, self._adapters, report)}
            )
        return report

    def _compute(self, spool: Spool) -> None:
        self._progress.start(sum(step.nbytes_read for step in self._steps))
        weighted = [s for s in self._steps if s.out.name in self._weighted]
        each(lambda step: self._weigh(step, spool), weighted, self._workers)
        dense = replace(self._plan, steps=tuple(s for s in self._steps if s.out.name not in self._weighted))
        take = partial(self._factorise, spool=spool)
        stream(dense, take, workers=self._workers, advance=self._progress.advance)

    def _weigh(self, step: Step, spool: Spool) -> None:
        weights = self._weighted[step.out.name]
        if step.out.name in self._modules:
            self._put(step, self._summed(step, weights), spool)
        else:
            spool.put(self._adapters[step.reads[0].model].whole[step.out.name].name, _average(step, weights))
        self._progress.advance(step.nbytes_read)

    def _summed(self, step: Step, weights: Sequence[float]) -> Factors:
        name, own = self._modules[step.out.name]
        terms: list[Term] = []
        scalings: list[float] = []
        for read, weight in zip(step.reads, weights, strict=True):
            adapter = self._adapters[read.model]
            if name in adapter.modules:
                terms.append(Term(float(weight), *adapter.factors(name)))
                scalings.append(adapter.modules[name].scaling)
        if self._factorisation.space == "factors":
            _check_ranks(step, terms)
            return averaged_apart(terms, scalings)
        scaled = [replace(t, coefficient=t.coefficient * s) for t, s in zip(terms, scalings, strict=True)]
        return added(scaled or [_nothing(own)], self._limit)

    def _factorise(self, step: Step, matrix: Any, spool: Spool) -> None:
        _, module = self._modules[step.out.name]
        self._put(step, factorised(as_matrix(matrix, module), self._limit), spool)

    def _put(self, step: Step, factors: Factors, spool: Spool) -> None:
        name, module = self._modules[step.out.name]
        put_factors(spool, name, factors, module.a.shape, module.b.shape, module.embedding)
        self._reports[step.out.name] = ModuleReport(name, factors.rank, factors.energy, factors.lost)

    def _check_inputs(self) -> None:
        for adapter in self._adapters.values():
            for stamp in adapter.stamps:
                if problem := stamp.problem():
                    raise InputChanged(f"{adapter.name} changed during the merge: {problem}. Nothing was published.")

    def _digests(self, adapter: Adapter) -> dict[str, str]:
        return {name: digest_of(adapter.tensors, name, DIGEST) for name in adapter.tensors.specs}

    def _configuration(self) -> dict[str, Any]:
        ranks = {report.name: report.rank for report in self._reports.values()}
        whole = any(step.out.name not in self._modules for step in self._steps)
        return merged_configuration(list(self._adapters.values()), ranks, self._factorisation.base, whole=whole)


def _opened(recipe: Recipe) -> list[Adapter]:
    if recipe.base is not None or recipe.heads is not None:
        raise RecipeError("a merge of adapters has neither `base:` nor `heads:`: it merges the updates of adapters.")
    adapters: list[Adapter] = []
    for model in recipe.models:
        source = model.source
        if source.path is None or source.lora or source.key or source.strip_prefix:
            raise RecipeError(
                f"{model.name}: a merge of adapters wants the folder of an adapter as `path:`, and nothing else."
            )
        adapters.append(Adapter(model.name, Path(locate(source.path, recipe.folder))))
    return adapters


def coefficients(step: Step) -> Sequence[float] | None:
    """Coefficient of each model if the method is a weighted sum, from its values at the unit vectors."""
    method = step.method
    if method is None or Law.LINEAR not in method.laws:
        return None
    k = len(step.reads)
    return [float(c) for c in method(np.eye(k), np.zeros(k), **step.settings)]


def each(work: Any, items: Sequence[Any], workers: int) -> None:
    """Do some work on each item, on threads; stop at the first failure."""
    pool = ThreadPoolExecutor(max(min(workers, len(items)), 1), "polyak")
    try:
        for future in [pool.submit(work, item) for item in items]:
            future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _average(step: Step, weights: Sequence[float]) -> Any:
    total = np.zeros(step.out.shape)
    for read, weight in zip(step.reads, weights, strict=True):
        total += weight * read.checkpoint.read(read.spec.name).astype(np.float64)
    return total


def _check_ranks(step: Step, terms: Sequence[Term]) -> None:
    ranks = {term.right.shape[0] for term in terms}
    if len(ranks) != 1:
        raise Mismatch(
            f"{step.out.name!r} has factors of the ranks {sorted(ranks)}, which cannot be averaged by themselves. "
            "Merge the products: `space: product`."
        )


def _nothing(module: Module) -> Term:
    return Term(0.0, np.zeros((module.b.shape[0], 1)), np.zeros((1, module.a.numel // module.rank)))
