"""Extract an adapter from a fine-tune: the best low-rank approximation of its task vector."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint import DTYPE_NAMES, read_floats
from ..engine import refuse_inputs
from ..errors import InputChanged, Mismatch, NotFinite, SettingError, told_at
from ..events import Reporter, Watcher, ignore
from ..planning import Read, Step
from ..reading import Pattern, compiled
from ..storage import cpu_count, drafted, model_digest
from ._comparing import compared
from ._configuration import configuration
from ._parameters import Form, experts_factorised, wrapper
from ._report import ModuleReport, Report, extraction_card
from ._writing import CONFIG, Spool, put_factors, write_texts
from .low_rank import Factors, Limit, almost_best
from .merging import DIGEST, each


@dataclass(frozen=True)
class Choice:
    """Selection of the tensors of a fine-tune that go into the adapter.

    Attributes:
        modules: Pattern for the names of matrices that become factors (default: changed matrices
            of linear layers, experts and routers, whose names do not mention embeddings, heads, norms or
            convolutions).
        whole: Pattern for the names of tensors to keep whole, as `modules_to_save`.
        transposed: True if matrices are stored as (in, out); needed only for models whose class is unknown, since
            GPT-2 and others with such layers are recognised.
    """

    modules: str | None = None
    whole: str | None = None
    transposed: bool = False


def extract(
    base: str | Path,
    tuned: str | Path,
    out: str | Path,
    *,
    rank: int | None = None,
    energy: float | None = None,
    choice: Choice = Choice(),
    dtype: str = "float32",
    workers: int | None = None,
    force: bool = False,
    progress: Watcher = ignore,
) -> Report:
    """Write the difference of two models as a LoRA adapter.

    For each chosen matrix, B A is the best approximation of tuned - base within the limits, in the Frobenius norm; with
    a rank and no energy, its squared error is within a factor of 1 + 1e-9 of the best one's.
    Differences that are not in the adapter are listed in the report, with their energy. Heads that the base lacks, and
    embeddings with more rows than the base's, are kept whole (`modules_to_save`): PEFT loads them onto a base that has
    such a head, or was resized.

    Args:
        base: The model before fine-tuning.
        tuned: The fine-tuned model.
        out: Output folder; it appears whole or not at all, and PEFT loads it onto `base`.
        rank: Maximum rank of a module.
        energy: Minimum fraction of the sum of squares of each module's difference to keep, in (0, 1].
        choice: Selection of tensors.
        dtype: Dtype of the stored factors.
        workers: Threads; each holds one matrix (default: one per CPU that this process may use).
        force: Replace an existing result.
        progress: Receives the events of the extraction, from any thread.

    Raises:
        SettingError: neither rank nor energy is given, or one is out of range.
        CheckpointError: a model cannot be read, or they do not fit together, or do not differ.
        OutputError: the output folder exists, is in use or cannot be written, or is one of the inputs.
    """
    began = time.perf_counter()
    limit = _limit(rank, energy)
    if dtype not in DTYPE_NAMES:
        raise SettingError(f"unknown dtype {dtype!r}. Known: {', '.join(DTYPE_NAMES)}.")
    with Reporter(progress, "extracting") as reporter, told_at("extract"):
        work = _Extraction(str(base), str(tuned), limit, choice, reporter)
        return work.run(Path(os.path.abspath(out)), dtype, workers or cpu_count(), force, began)


def _limit(rank: int | None, energy: float | None) -> Limit:
    if rank is None and energy is None:
        raise SettingError("say how much to keep: a rank, or an energy such as 0.95.")
    if rank is not None and rank < 1:
        raise SettingError(f"the rank must be at least 1; got {rank}.")
    if energy is not None and not 0 < energy <= 1:
        raise SettingError(f"the energy must be above 0 and at most 1; got {energy}.")
    return Limit(rank, energy)


class _Extraction:
    def __init__(self, base: str, tuned: str, limit: Limit, choice: Choice, progress: Reporter) -> None:
        self._base, self._limit, self._choice, self._progress = base, limit, choice, progress
        self._modules = _pattern(choice.modules, "modules")
        self._compared = compared(base, tuned, self._modules)
        self._parameters, self._plan = self._compared.parameters, self._compared.plan
        self._steps = [step for step in self._plan.steps if step.kind == "merge"]
        self._whole = _pattern(choice.whole, "whole")
        self._targets = self._parameters.targets([s.out.name for s in self._steps if self._form(s) == "parameter"])
        self._check()
        self._reports: dict[str, ModuleReport] = {}
        self._left_out: dict[str, float] = {}
        self._kept: list[str] = []

    def _check(self) -> None:
        chosen = [s for s in self._steps if self._is_module(s)]
        if self._choice.modules is not None and not chosen:
            raise SettingError(f"{self._choice.modules!r} is found in the name of no matrix.")
        if self._whole is not None and not any(self._is_whole(s) for s in self._steps):
            raise SettingError(f"{self._choice.whole!r} is found in the name of no tensor.")
        largest = max((min(_matrix_shape(s)) for s in chosen), default=0)
        if (self._limit.rank or 0) > largest:
            raise SettingError(f"rank {self._limit.rank} is more than any matrix can have, which is {largest}.")

    def _is_whole(self, step: Step) -> bool:
        return self._whole is not None and self._whole.search(step.out.name)

    def _form(self, step: Step) -> Form:
        return "none" if self._is_whole(step) else self._parameters.form(step.out.name, step.out.shape)

    def _is_module(self, step: Step) -> bool:
        return self._form(step) != "none"

    def run(self, out: Path, dtype: str, workers: int, force: bool, began: float) -> Report:
        refuse_inputs(self._plan, out)
        with drafted(out, self._plan.digest, force=force) as draft, Spool(draft, DTYPE_NAMES[dtype]) as spool:
            self._progress.start(sum(step.nbytes_read for step in self._steps))
            each(lambda step: self._take(step, spool), self._steps, workers)
            self._check_outcome()
            self._keep_apart(spool)
            outputs = spool.finish(DIGEST)
            modules = tuple(self._reports[s.out.name] for s in self._steps if s.out.name in self._reports)
            left_out = {s.out.name: self._left_out[s.out.name] for s in self._steps if s.out.name in self._left_out}
            seconds = time.perf_counter() - began
            report = Report(out, modules, spool.nbytes, seconds, model_digest(outputs, DIGEST), left_out)
            texts = extraction_card(self._plan, report, outputs, DIGEST)
            write_texts(draft, {CONFIG: self._configuration(), **texts})
        return report

    def _keep_apart(self, spool: Spool) -> None:
        """Store heads and tables that the base lacks or has in another shape, for PEFT to replace the base's."""
        for spec in self._compared.apart:
            self._kept.append(spec.name)
            spool.put(f"base_model.model.{spec.name}", _read(Read("tuned", self._compared.tuned, spec)))
        if self._compared.apart:
            listed = ", ".join(f"{spec.name} {list(spec.shape)}" for spec in self._compared.apart)
            self._progress.say(f"kept whole, since the base has them in no such shape: {listed}")

    def _check_outcome(self) -> None:
        for name, model in self._plan.models.items():
            for stamp in model.stamps:
                if problem := stamp.problem():
                    raise InputChanged(f"the {name} model changed meanwhile: {problem}. Nothing was published.")
        if not self._reports:
            raise Mismatch("no matrix that could become factors differs between the two models.")

    def _take(self, step: Step, spool: Spool) -> None:
        base, tuned = (_read(read) for read in step.reads)
        difference = tuned - base
        if self._is_whole(step):
            self._kept.append(step.out.name)
            spool.put(f"base_model.model.{step.out.name}", tuned)
        elif difference.any():
            self._keep_or_leave(step, difference, spool)
        self._progress.advance(step.nbytes_read)

    def _keep_or_leave(self, step: Step, difference: Any, spool: Spool) -> None:
        if not self._is_module(step):
            self._left_out[step.out.name] = float(np.sum(difference.astype(np.float64) ** 2))
            return
        if self._form(step) == "parameter":
            self._factorise_parameter(step, difference, spool)
        else:
            self._factorise_module(step, difference, spool)

    def _factorise_module(self, step: Step, difference: Any, spool: Spool) -> None:
        module, shape = step.out.name.removesuffix(".weight"), step.out.shape
        embedding, transposed = self._form(step) == "embedding", self._is_transposed(step)
        matrix = difference.T if transposed else difference.reshape(shape[0], -1)
        factors: Factors = almost_best(matrix, self._limit)
        a, b = (
            ((0, shape[0]), (shape[1], 0)) if transposed else ((0, *shape[1:]), (shape[0], 0, *[1] * (len(shape) - 2)))
        )
        put_factors(spool, module, factors, a, b, embedding)
        self._reports[step.out.name] = ModuleReport(module, factors.rank, factors.energy, factors.lost)

    def _factorise_parameter(self, step: Step, difference: Any, spool: Spool) -> None:
        name = step.out.name
        factors = experts_factorised(difference, self._limit, transposed=self._parameters.transposed(name))
        a, b = (0, factors.right.shape[1]), (factors.left.shape[0], 0)
        put_factors(spool, wrapper(name, self._targets), factors, a, b, embedding=False)
        experts = difference.shape[0] if difference.ndim == 3 else 1
        self._reports[name] = ModuleReport(name, factors.rank // experts, factors.energy, factors.lost)

    def _is_transposed(self, step: Step) -> bool:
        if self._form(step) == "embedding":
            return True
        return len(step.out.shape) == 2 and (self._choice.transposed or self._parameters.transposed(step.out.name))

    def _configuration(self) -> dict[str, Any]:
        ranks = {report.name: report.rank for report in self._reports.values()}
        matrices = [
            step.out.name.removesuffix(".weight") for step in self._plan.steps if step.out.name.endswith(".weight")
        ]
        kept = sorted({name.rpartition(".")[0] for name in self._kept})
        modules = [report.name for name, report in self._reports.items() if report.name != name]
        settings: dict[str, Any] = {
            "base_model_name_or_path": self._base,
            "target_modules": _targets(modules, matrices),
            "fan_in_fan_out": any(self._is_transposed(s) and self._form(s) == "module" for s in self._steps),
            "modules_to_save": kept or None,
        }
        parameters = sorted(set(ranks) - set(modules))
        return configuration(ranks, settings | ({"target_parameters": parameters} if parameters else {}))


def _pattern(text: str | None, what: str) -> Pattern | None:
    try:
        return None if text is None else compiled(text)
    except SettingError as error:
        raise SettingError(f"{what}: {error}") from None


def _matrix_shape(step: Step) -> tuple[int, int]:
    if len(step.out.shape) == 3 and not step.out.name.endswith(".weight"):  # of one expert
        return step.out.shape[1], step.out.shape[2]
    rows, *columns = step.out.shape
    return rows, int(np.prod(columns))


def _read(read: Read) -> Any:
    values = np.empty(read.spec.numel, np.float32)
    read_floats(read.checkpoint, read.spec, 0, read.spec.numel, values)
    if not np.isfinite(values).all():
        raise NotFinite(f"{read.spec.name!r} of {read.model} ({read.checkpoint.label}) holds NaN or infinity.")
    return values.reshape(read.spec.shape)


def _targets(modules: Sequence[str], matrices: Sequence[str]) -> list[str]:
    """The last parts of the names if these match exactly the modules, else whole names."""
    last = {name.rpartition(".")[2] for name in modules}
    meant = {name for name in matrices if name.rpartition(".")[2] in last}
    return sorted(last if meant == set(modules) else modules)
