"""The averager: averages of the weights of a model while it trains."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ...errors import Mismatch
from ._arithmetic import no_grad
from ._averages import Averages
from ._best import Best
from ._declaration import Average
from ._kept import Kept
from ._loops import loop
from ._options import check_averages, check_options, check_timing
from ._selection import Buffers, Selection, unwrapped
from ._state import read_state, restore, state_of, write_state

if TYPE_CHECKING:
    import torch
    from lightning.pytorch import Callback
    from torch import Tensor, nn
    from transformers import TrainerCallback

Batches = Callable[[], Iterable[Any]]


class Averager:
    """Averages of the weights of a model, updated by `step()` after each step of the optimizer.

    The weights are read once for all averages. An average keeps one copy of the weights, or as many as its schedule
    says.

    Args of the constructor:
        model: The model that trains. Tied parameters are averaged once; parameters that are not floating-point numbers
            are left alone.
        averages: Such as `live.ema(0.999)`; two of one kind need names, `live.ema(0.99).named("fast")`.
        best: Such as `live.Best("ema", "eval_loss")`: the best value so far of an average, by a metric that `note`
            gets. It is one more copy of the weights, read like an average: `best-ema`.
        device: Device of the copies (default: that of each parameter).
        dtype: Dtype of the copies (default: that of each parameter, but float32 for 16 bits and fewer).
        every: Count only every N-th step for all averages; their own `every` must be a multiple.
        start: Step after which averaging begins; steps of the schedules count from here.
        exclude: Regular expressions; parameters in whose names one matches are left out. They keep the weights of the
            model when an average is swapped in or saved, as everything does that is not averaged.
        trainable_only: Leave out parameters without gradients, such as all but the adapter of a LoRA run.
        buffers: `copied`: an average has the buffers that the model has when it is read. `averaged`: floating-point
            buffers are averaged like parameters. `remeasured`: as `copied`, but the statistics of BatchNorms are
            measured again on `batches` whenever an average is swapped in or saved.
        batches: Function that returns batches for `remeasured`, as `polyak.statistics.recalibrate` takes them.
        not_finite: For weights with NaN or infinity: `raise` an error and leave the averages as they were; `skip` the
            update with a warning; `unchecked`: do not look, which saves reading the weights once more per update, and
            refuse only to read the average.
        together: Number of updates that are folded into the averages at once, with the same result bit for bit; in the
            meantime, `together - 1` more copies of the weights are kept. Worth it for several averages of float32
            weights on a CPU; elsewhere it changes nothing.
        threaded: Update on another thread, while the next forward and backward passes run. The next step of any torch
            optimizer waits for it; before weights change otherwise, call `wait`.

    Raises:
        SettingError: no averages, two of one name, or options that contradict each other.
        Mismatch: the model has nothing to average.
    """

    def __init__(
        self,
        model: nn.Module,
        *averages: Average,
        best: Sequence[Best] = (),
        device: str | torch.device | None = None, dtype: torch.dtype | None = None,
        every: int = 1, start: int = 0,
        exclude: Sequence[str] = (), trainable_only: bool = False,
        buffers: Buffers = "copied", batches: Batches | None = None,
        not_finite: Literal["raise", "skip", "unchecked"] = "raise",
        together: int = 1, threaded: bool = False,
    ) -> None:  # fmt: skip
        check_averages(averages, best, every, start)
        check_options(dtype, buffers, batches is not None, not_finite)
        check_timing(averages, together, threaded=threaded)
        self.model, self._batches, self._swapped = unwrapped(model), batches, ""
        self._own: list[Tensor] | None = None
        selection = Selection(self.model, exclude, trainable_only=trainable_only, buffers=buffers)
        kept = {average.name: Kept(average, device, dtype) for average in averages}
        with no_grad():
            self.averages = Averages(
                selection, kept, best, every=every, start=start, not_finite=not_finite, together=together,
                threaded=threaded,
            )  # fmt: skip

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the averages, and of the best ones so far."""
        return (*self.averages.kept, *self.averages.trackers)

    @property
    def steps(self) -> int:
        """Training steps that have been counted."""
        return self.averages.steps

    @property
    def skipped(self) -> int:
        """Steps that were left out because the weights were not finite."""
        return self.averages.skipped

    def step(self, samples: int = 1) -> None:
        """Count a training step, and update the averages that are due.

        Args:
            samples: Training examples of this step, for a half-life in samples.

        Raises:
            Mismatch: the model has changed, or an average is swapped in.
            NotFinite: the weights hold NaN or infinity, unless they are to be skipped.
        """
        self.refuse_while_swapped("count a step")
        with no_grad():
            self.averages.count_step(samples)

    def wait(self) -> None:
        """End an update that runs on another thread, before the weights change by other means than an optimizer.

        Raises:
            NotFinite: the weights held NaN or infinity, unless they are to be skipped.
        """
        with no_grad():
            self.averages.wait()

    def note(self, metrics: Mapping[str, float]) -> None:
        """Give metrics of an evaluation to those `best` averages that go by them; also while an average is swapped in.

        A metric that is not finite is never the best, and of equal ones the earlier is.

        Args:
            metrics: Numbers by name; names that nothing goes by are ignored.

        """
        with no_grad():
            self.averages.note(metrics, self._own or self.averages.selection.tensors())

    def updates(self, name: str) -> int:
        """Number of updates of an average so far."""
        self.wait()
        return self.averages.named(name).updates

    def weights(self, name: str, **options: Any) -> dict[str, Tensor]:
        """The tensors of an average by name, on this process; copies, in the dtype in which the average is kept.

        Args:
            name: The average.
            **options: Those of the schedule, such as `width=0.1` of `posthoc_ema`.

        Raises:
            Mismatch: there was no update yet.
            NotFinite: the average holds NaN or infinity.
        """
        with no_grad():
            kept, mix = self.averages.mix(name, options)
            lives = self.averages.selection.tensors()
            values = [kept.value(i, mix, live) for i, live in enumerate(lives)]
            self.averages.refuse_not_finite(values, f"the average {name!r}")
            kinds = [kept.dtype_of(live) for live in lives]
            tensors = [value.to(kind, copy=True) for value, kind in zip(values, kinds, strict=True)]
        return dict(zip(self.averages.selection.shapes, tensors, strict=True))

    @contextmanager
    def swapped(self, name: str, **options: Any) -> Generator[nn.Module]:
        """The model with the weights of an average for the length of a `with`.

        Its own weights come back at the end, also after an exception. Needs memory for one more copy of the averaged
        weights while it lasts.

        Args:
            name: The average.
            **options: As for `weights`.

        Raises:
            Mismatch: there was no update yet, or another average is swapped in.
            NotFinite: the average holds NaN or infinity; the model is as it was.
        """
        self.refuse_while_swapped("swap another average in")
        with no_grad():
            kept, mix = self.averages.mix(name, options)
            lives = self.averages.selection.tensors()
            own = [live.clone() for live in lives]
            statistics = [] if self._batches is None else [(b, b.clone()) for b in self.model.buffers()]
        self._swapped, self._own = name, own
        try:
            with no_grad():
                for i, live in enumerate(lives):
                    live.copy_(kept.value(i, mix, own[i]))
                self.averages.refuse_not_finite(lives, f"the average {name!r}")
            self._remeasure()
            yield self.model
        finally:
            self._swapped, self._own = "", None
            with no_grad():
                for live, before in [*zip(lives, own, strict=True), *statistics]:
                    live.copy_(before)

    def save(self, name: str, out: str | Path, *, force: bool = False, tokenizer: Any = None, **options: Any) -> None:
        """Write an average as a folder that holds a plain model, with its provenance in `polyak.json`.

        Models with `save_pretrained` (transformers, PEFT) write their own files; of others the state dict is written as
        `model.safetensors`. What is not averaged is that of the model now. Dtypes are those of the model.

        Args:
            name: The average.
            out: The folder; it appears whole or not at all.
            force: Replace a model that is there.
            tokenizer: Anything with `save_pretrained`, written into the same folder.
            **options: As for `weights`.

        Raises:
            Mismatch: there was no update yet.
            OutputError: the folder is taken or cannot be written.
        """
        from ._saving import write_model

        kept, _ = self.averages.mix(name, options)
        with self.swapped(name, **options):
            facts = kept.facts(self.averages.now, options)
            sharded = self.averages.selection.is_sharded
            write_model(self.model, Path(out), facts, sharded=sharded, force=force, tokenizer=tokenizer)

    def state_dict(self) -> dict[str, Any]:
        """Counters and copies; the copies themselves, not clones, as in the state of an optimizer.

        Raises:
            Mismatch: an average is swapped in.
        """
        self.refuse_while_swapped("take the state")
        return state_of(self.averages)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put a state back, bit for bit; the weights of the model are restored by the training loop.

        Raises:
            CannotResume: the state is that of other averages, options or another model; nothing has changed.
        """
        self.refuse_while_swapped("load a state")
        restore(self.averages, state)

    def save_state(self, path: str | Path) -> None:
        """Write the state as a safetensors file, which appears whole or not at all.

        Where parameters are sharded, each process writes NAME-RANK-of-RANKS.safetensors; otherwise the first process.

        Raises:
            OutputError: the file cannot be written.
        """
        self.refuse_while_swapped("save the state")
        write_state(self.averages, Path(path))

    def load_state(self, path: str | Path) -> None:
        """Put the state in a file back, bit for bit.

        Raises:
            CheckpointError: there is no such file, or it is damaged.
            CannotResume: it is that of other averages, options or another model; nothing has changed.
        """
        self.refuse_while_swapped("load a state")
        read_state(self.averages, Path(path))

    def for_transformers(self, *, resume_from: str | Path | None = None) -> TrainerCallback:
        """A callback for the Trainer of transformers: counts steps, and writes and restores the state with checkpoints.

        The state is `averages.safetensors` in the folder of a checkpoint.

        Args:
            resume_from: Folder of the checkpoint to resume from, if it is not `checkpoint-STEP` in the output folder.

        Raises:
            SettingError: transformers is not installed.
        """
        return loop("transformers", "transformers").AveragerCallback(self, resume_from)

    def for_lightning(self) -> Callback:
        """A callback for Lightning's Trainer: counts steps; the state is saved in Lightning's checkpoints."""
        return loop("lightning", "lightning").AveragerCallback(self)

    def refuse_while_swapped(self, action: str) -> None:
        """Raise a Mismatch for what would mix an average with the weights that train."""
        if self._swapped:
            raise Mismatch(
                f"cannot {action} while the average {self._swapped!r} is swapped in. Leave its `with` first."
            )

    def _remeasure(self) -> None:
        if self._batches is not None:
            from ...statistics import recalibrate

            recalibrate(self.model, self._batches())
