"""Carry out a plan into a folder."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from .. import recipe as recipes
from ..display import fields, human_size
from ..errors import BudgetError, InputChanged, OutputError, SettingError, suggestion, told_at
from ..events import Reporter, Watcher, ignore
from ..native import saying_when_compiling
from ..planning import Plan, Step, peak_nbytes, workers_within
from ..storage import ALGORITHMS, Draft, as_json, copy_regular, cpu_count, followed, model_digest, write_text, writing
from .nested import opened
from .output.completed import CompletedChunks
from .output.provenance import PROVENANCE, card, provenance
from .output.published import published_digest
from .output.shards import ShardWriter, indices_of, shards_of
from .schedule.stages import grouped
from .schedule.threads import Scheduler
from .step.chunks import Chunk
from .step.device import Device, device_of
from .step.masks import file_metadata
from .step.merge import Merger
from .step.prepared import prepared_steps
from .step.sink import Sink

SHARD_NBYTES = 5_000_000_000


@dataclass(frozen=True)
class Report:
    """The outcome of a merge.

    Attributes:
        out: The output folder.
        tensors: Number of tensors.
        nbytes_read: Bytes of the inputs.
        nbytes_written: Bytes of tensors written.
        resumed: Pieces that an earlier run had done.
        seconds: Wall time.
        digest: The result's digest.
    """

    out: Path
    tensors: int
    nbytes_read: int
    nbytes_written: int
    resumed: int
    seconds: float
    digest: str

    def __str__(self) -> str:
        rate = human_size(self.nbytes_read / max(self.seconds, 1e-9))
        return (
            f"{self.out}: {self.tensors} tensors, {human_size(self.nbytes_written)} written in {self.seconds:.1f} s "
            f"({human_size(self.nbytes_read)} of inputs, {rate}/s)"
        )

    def _repr_html_(self) -> str:
        """The report in a notebook."""
        values = {
            "tensors": str(self.tensors),
            "read": human_size(self.nbytes_read),
            "written": human_size(self.nbytes_written),
            "time": f"{self.seconds:.1f} s",
            "digest": self.digest,
        }
        return fields(str(self.out), values)


def run(
    plan: Plan,
    out: str | Path,
    *,
    workers: int | None = None,
    memory: int | None = None,
    shard_nbytes: int = SHARD_NBYTES,
    tile: int | None = None,
    digest: str = "xxh3-128",
    resume: bool = False,
    force: bool = False,
    progress: Watcher = ignore,
    device: str = "cpu",
) -> Report:
    """Merge, and write the result to a folder.

    The bytes written depend on the plan and the device only: not on workers, tiles, or on having been interrupted. The
    folder appears whole or not at all.

    Args:
        plan: The plan.
        out: Output folder.
        workers: Threads (default: one per CPU that this process may use).
        memory: The most anonymous memory to hold, bytes: fewer workers run if need be (default: no limit).
        shard_nbytes: Maximum size of a shard, bytes.
        tile: Entries that are merged at a time (default: as many as fit the processor's cache).
        digest: `xxh3-128` or `sha256`.
        resume: Continue an unfinished merge of the same plan.
        force: Replace a model that is there, and throw away unfinished work.
        progress: Receives the events of the merge, from any thread.
        device: Device for whole-matrix merges, such as those of spectral methods: `cpu` (NumPy), `cuda` (torch) or
            `auto`, CUDA if there are torch and a GPU. Everything else is merged on the CPU.

    Raises:
        SettingError: there is no such digest or device, or `progress` cannot be called.
        BudgetError: not even one worker fits into `memory`.
        OutputError: the place is taken, busy, full or not writable, or is one of the inputs.
        NotFinite: an input or the result holds NaN or infinity.
        InputChanged: an input changed under the merge.
    """
    began = time.perf_counter()
    if digest not in ALGORITHMS:
        raise SettingError(f"there is no digest {digest!r}. {suggestion(digest, ALGORITHMS)}")
    out = followed(Path(os.path.abspath(out)))
    refuse_inputs(plan, out)
    with told_at(plan.recipe.door), Reporter(progress) as reporter:
        merge = _Merge(plan, out, shard_nbytes, digest, reporter, device_of(device))
        if resume and not force and (done := merge.published(began)):
            return done
        return merge.run(_workers(plan, workers, memory), tile, resume, force, began)


def _workers(plan: Plan, workers: int | None, memory: int | None) -> int:
    requested = workers or cpu_count()
    if memory is None:
        return requested
    if not (allowed := workers_within(plan, requested, memory)):
        raise BudgetError(
            f"this merge needs about {peak_nbytes(plan, 1)} bytes of memory with one worker; --memory allows {memory}."
        )
    return allowed


def refuse_inputs(plan: Plan, out: Path) -> None:
    """A result may not replace, hold, or lie in what it is made of."""
    folder = out.resolve()
    for name, model in plan.inputs.items():
        inside = Path(model.label).is_dir() and folder.is_relative_to(Path(model.label).resolve())
        if inside or any(stamp.path.resolve().is_relative_to(folder) for stamp in model.stamps):
            raise OutputError(f"{out} is where {name} lies ({model.label}); a merge does not write over its inputs.")
    if folder == plan.recipe.folder.resolve() or Path.cwd().is_relative_to(folder):
        raise OutputError(f"{out} is the folder you are in or that the recipe lies in; choose another folder.")


class _Merge(Sink):
    def __init__(
        self, plan: Plan, out: Path, shard_nbytes: int, algorithm: str, progress: Reporter, device: Device | None
    ) -> None:
        self._plan, self._algorithm, self._progress, self._device = plan, algorithm, progress, device
        self._draft = Draft(out)
        self._layout = shards_of(plan.steps, shard_nbytes, plan.sidecars)
        self._shard_nbytes = shard_nbytes
        self._completed = CompletedChunks(plan, algorithm)
        self._files: ShardWriter | None = None
        self._resumed = 0

    def run(self, workers: int, tile: int | None, resume: bool, force: bool, began: float) -> Report:
        key = f"{self._plan.digest}/{self._shard_nbytes}/{self._algorithm}"
        key += f"/{self._device.said}" if self._device else ""
        entries = self._draft.open(key, resume=resume, force=force)
        try:
            self._files = ShardWriter(self._draft, self._layout, partial(file_metadata, self._plan))
            self._take_back(entries)
            with saying_when_compiling(self._progress.say):
                self._compute(workers, tile)
            self._files.close()
            self._check_inputs()
            digest = self._write_sidecars()
            self._draft.publish()
        except BaseException:
            self._abandon()
            raise
        plan = self._plan
        return Report(
            self._draft.out,
            len(plan.steps),
            plan.nbytes_read,
            plan.nbytes_written,
            self._resumed,
            time.perf_counter() - began,
            digest,
        )

    def published(self, began: float) -> Report | None:
        """The report of a result that this very merge has published already."""
        if self._draft.home.exists():
            return None
        out, plan = self._draft.out, self._plan
        digest = published_digest(plan, out, self._layout, self._algorithm, self._device)
        if digest is None:
            return None
        self._progress.say(f"done already: {out} is the result of this recipe, and no input has changed since.")
        return Report(out, len(plan.steps), 0, 0, 0, time.perf_counter() - began, digest)

    def _compute(self, workers: int, tile: int | None) -> None:
        groups = grouped(self._in_order(workers), Merger(self, self._algorithm, tile), self._completed.is_missing)
        self._progress.start(sum(group.nbytes for group in groups))
        Scheduler(groups, workers, self._progress.advance).run()

    def _in_order(self, workers: int) -> list[Any]:
        """Tensors that must be equal come first: if they are not, it is known at once."""
        plan = opened(self._plan, workers, self._device)
        return sorted(prepared_steps(plan, self._device), key=lambda one: one.step.kind != "same")

    def write(self, step: Step, start: int, data: Any) -> None:
        assert self._files is not None
        self._files.write(step, start, data)

    def write_whole(self, steps: Sequence[Step], data: Any) -> None:
        assert self._files is not None
        self._files.write_whole(steps, data)

    def done(self, chunk: Chunk, out: bytes, reads: Sequence[bytes]) -> None:
        assert self._files is not None
        entry = self._completed.enter(chunk, out, reads)
        self._files.note(entry, (chunk.stop - chunk.start) * chunk.prepared.step.out.dtype.itemsize)

    def _take_back(self, entries: Sequence[Mapping[str, Any]]) -> None:
        assert self._files is not None
        self._completed.take_back(entries, self._files)
        self._resumed = len(self._completed)
        if self._resumed:
            self._progress.say(f"resuming: {self._resumed} chunks were complete and are intact")

    def _check_inputs(self) -> None:
        for name, model in self._plan.inputs.items():
            for stamp in model.stamps:
                if problem := stamp.problem():
                    raise InputChanged(
                        f"an input of {name} changed during the merge: {problem}. Nothing was published; run again."
                    )

    def _write_sidecars(self) -> str:
        """Write everything except the tensors; returns the result's digest."""
        model, side = self._draft.model, self._plan.sidecars
        outputs, inputs = self._completed.digests()
        used = sorted({s.method.name for s in self._plan.steps if s.method})
        with writing(self._draft.out):
            if side.config is not None:
                write_text(model / "config.json", as_json(side.config))
            for name, contents in side.written.items():
                (model / name).parent.mkdir(parents=True, exist_ok=True)
                write_text(model / name, contents if isinstance(contents, str) else as_json(contents))
            for name, path in side.files.items():
                (model / name).parent.mkdir(parents=True, exist_ok=True)
                _copy(path, model / name)
            for name, index in indices_of(self._layout).items():
                write_text(model / name, as_json(index))
            write_text(model / "recipe.yaml", recipes.dump(self._plan.recipe))
            write_text(model / "README.md", card(self._plan, used))
            write_text(
                model / PROVENANCE, as_json(provenance(self._plan, self._algorithm, outputs, inputs, self._device))
            )
        return model_digest(outputs, self._algorithm)

    def _abandon(self) -> None:
        """Leave what is done for a resumption; if nothing is, leave nothing."""
        if self._files is not None:
            try:
                self._files.close()
            except BaseException:  # the first error is the one to report
                pass
        if self._completed:
            self._draft.close()
        else:
            self._draft.discard()


def _copy(source: Path, target: Path) -> None:
    try:
        copy_regular(source, target)
    except OSError as error:
        if error.filename != str(source):
            raise
        raise InputChanged(f"{source} can no longer be copied: {error.strerror}. Restore it and run again.") from error
