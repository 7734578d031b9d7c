"""The base class of statistics: sums over batches that pass through a module."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from ..checkpoint import MemoryCheckpoint, fingerprint
from ..errors import NotFinite, PolyakError, TaskError
from ._measurement import Measurement
from ._tree import bytes_of, flatten

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Outputs: TypeAlias = "Callable[[nn.Module, Any], Tensor]"  # (module, batch) -> outputs
Identify: TypeAlias = Callable[[Any], Iterable[bytes]]  # batch -> one identity per example


@dataclass(frozen=True)
class State:
    """Sums over the batches observed so far; replaced as a whole, so that an interruption never leaves half a batch.

    Attributes:
        sums: Sums over observations, float64, by tensor.
        rows: Number of observations in each sum.
        examples: Number of observed examples.
        data: Digest of the observed examples.
    """

    sums: Mapping[str, Tensor] = field(default_factory=dict[str, "Tensor"])
    rows: Mapping[str, int] = field(default_factory=dict[str, int])
    examples: int = 0
    data: str = ""


class Statistic(ABC):
    """A measurement in progress: construct one, `observe` batches, and `finish`.

    A subclass sets `kind`, lists what it measures in `measurable`, and adds to the sums in `accumulate`; the result is
    the mean of what was added, one tensor per tensor of the model. The module is in evaluation mode while a batch is
    observed, and returns to its own mode afterwards.

    Args of the constructor:
        module: The torch module.
        names: From parameters to tensors of the checkpoint (default: the same names); others are left out.
        identify: batch -> bytes that identify each example (default: those of its tensors).

    Attributes:
        kind: The name in recipes.
        module: The torch module.
        notes: Messages for the user, such as layers that were left out.
    """

    kind: ClassVar[str]

    def __init__(
        self, module: nn.Module, names: Mapping[str, str] | None = None, identify: Identify | None = None
    ) -> None:
        self.module, self._names, self._identify = module, names, identify
        self._state = State()
        self._sums: dict[str, Tensor] = {}  # of the batch that is being observed, as `_rows`
        self._rows: dict[str, int] = {}
        self.notes: list[str] = []

    @abstractmethod
    def measurable(self) -> list[str]:
        """The names of the tensors that may be measured, before anything is."""

    @abstractmethod
    def accumulate(self, batch: Any, identities: list[bytes]) -> None:
        """Add a batch to the sums, by `add`.

        Args:
            batch: The examples.
            identities: One per example.
        """

    @property
    def facts(self) -> dict[str, str]:
        """Settings of the measurement, kept in the file; files with other facts are not combined."""
        return {}

    def explain_zero(self) -> str:
        """The error message for a measurement that is zero everywhere."""
        return f"the {self.kind} is zero everywhere: look for constant inputs or dead layers."

    def cost(self, examples: int) -> str:
        """Compute and memory for a number of examples, in words."""
        return f"{examples} examples, one forward pass each"

    def add(self, name: str, amount: torch.Tensor, rows: int) -> None:
        """Add to the sum of a tensor, in float64.

        Args:
            name: The tensor, as the checkpoint calls it.
            amount: The sum over some observations of a batch.
            rows: Number of observations in the sum.
        """
        import torch

        if name not in self._sums:
            self._sums[name] = torch.zeros(amount.shape, dtype=torch.float64, device=amount.device)
        self._sums[name] += amount
        self._rows[name] = self._rows.get(name, 0) + rows

    @property
    def examples(self) -> int:
        """Number of observed examples."""
        return self._state.examples

    def observe(self, batch: Any) -> None:
        """Add some examples.

        Args:
            batch: The argument of the outputs function: tensors with the examples along their first axis, alone or in
                mappings, lists and tuples.

        Raises:
            TaskError: the module fails on the batch, or its outputs do not fit the likelihood.
            NotFinite: outputs or gradients are not finite.
        """
        identities = self._identities(batch)
        if not identities:
            return
        self._sums, self._rows = {}, {}
        with evaluating(self.module):
            try:
                self.accumulate(batch, identities)
            except PolyakError:
                raise
            except Exception as error:  # whatever a module raises
                message = " ".join(str(error).split())[:500]
                raise TaskError(f"the module fails on a batch: {message} ({type(error).__name__}).") from error
        self._check_sums()
        self._commit(identities)

    def _commit(self, identities: list[bytes]) -> None:
        """Merge the sums of a batch into the state."""
        before, data = self._state, self._state.data
        for name, total in before.sums.items():
            self._sums[name] = self._sums[name].add_(total) if name in self._sums else total
            self._rows[name] = self._rows.get(name, 0) + before.rows[name]
        for identity in identities:
            data = chained(data, identity)
        self._state = State(self._sums, self._rows, before.examples + len(identities), data)

    def _identities(self, batch: Any) -> list[bytes]:
        if self._identify is not None:
            return list(self._identify(batch))
        tensors, _ = flatten(batch)
        return [bytes_of(tensors, i) for i in range(len(tensors[0]))]

    def _check_sums(self) -> None:
        import torch

        for name, total in self._sums.items():
            if not bool(torch.isfinite(total).all()):
                raise NotFinite(
                    f"the {self.kind} of {name!r} is not finite after {self.examples} examples: look for NaN or very "
                    "large numbers in the data or the outputs."
                )

    def finish(self) -> Measurement:
        """The means over everything observed.

        Raises:
            TaskError: nothing was observed, or the statistic is zero everywhere.
        """
        import torch

        done = self._state
        if not done.examples:
            raise TaskError("nothing was observed: the data has no examples.")
        if not any(bool(torch.any(total != 0)) for total in done.sums.values()):
            raise TaskError(self.explain_zero())
        tensors = {name: (total / max(done.rows[name], 1)).float().cpu().numpy() for name, total in done.sums.items()}
        model, notes = self.model_digest(tensors), tuple(self.notes)
        return Measurement(self.kind, tensors, dict(done.rows), done.examples, model, done.data, self.facts, notes)

    def model_digest(self, names: Iterable[str]) -> str:
        """The fingerprint of some weights of the module, by the names of the checkpoint's tensors."""
        parameters = {self.name_of(name): parameter for name, parameter in self.module.named_parameters()}
        checkpoint = MemoryCheckpoint({name: parameters[name] for name in names})
        return fingerprint(checkpoint, ((name, checkpoint.spec(name)) for name in names))

    def count(self, batch: Any) -> int:
        """Number of examples in a batch."""
        return len(self._identities(batch))

    def name_of(self, parameter: str) -> str:
        """The name of a parameter's tensor in checkpoints; empty if it has none."""
        return parameter if self._names is None else self._names.get(parameter, "")

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The state from which a measurement can be resumed: arrays, and plain data."""
        done = self._state
        arrays = {name: total.cpu().numpy() for name, total in done.sums.items()}
        return arrays, {"rows": dict(done.rows), "examples": done.examples, "data": done.data}

    def restore(self, arrays: Mapping[str, Any], plain: Mapping[str, Any]) -> None:
        """Resume from a `state`."""
        import torch

        device = next(iter(self.module.parameters())).device
        sums = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
        self._state = State(sums, dict(plain["rows"]), plain["examples"], plain["data"])


def chained(digest: str, example: bytes) -> str:
    """The digest of examples up to this one; it does not depend on batches."""
    import xxhash

    return xxhash.xxh3_128_hexdigest(digest.encode() + xxhash.xxh3_128_digest(example))


@contextmanager
def evaluating(module: nn.Module) -> Generator[None]:
    """Evaluation mode for every submodule inside a `with`; the mode of each is restored."""
    before = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, was in before.items():
            part.training = was
