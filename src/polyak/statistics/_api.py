"""What a statistic is: something that looks at batches going through a module, and keeps sums."""

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

Outputs: TypeAlias = "Callable[[nn.Module, Any], Tensor]"  # (module, batch) -> what the module says of the batch
Identify: TypeAlias = Callable[[Any], Iterable[bytes]]  # what tells the examples of a batch from others


@dataclass(frozen=True)
class State:
    """What has been observed so far; replaced as a whole, so that an interruption finds no half of a batch in it.

    Attributes:
        sums: Sums over observations, float64, by tensor.
        rows: How many observations went into each.
        examples: How many examples were observed.
        data: Their digest.
    """

    sums: Mapping[str, Tensor] = field(default_factory=dict[str, "Tensor"])
    rows: Mapping[str, int] = field(default_factory=dict[str, int])
    examples: int = 0
    data: str = ""


class Statistic(ABC):
    """A measurement under way: make one, let it `observe` batches, and `finish`.

    The module is put into evaluation mode while a batch is observed, and back afterwards.

    Attributes:
        kind: What recipes call it.
        notes: What the user should know.
    """

    kind: ClassVar[str]

    def __init__(self, module: nn.Module, names: Mapping[str, str] | None, identify: Identify | None) -> None:
        self._module, self._names, self._identify = module, names, identify
        self._state = State()
        self._sums: dict[str, Tensor] = {}  # of the batch that is being observed, as `_rows`
        self._rows: dict[str, int] = {}
        self.notes: list[str] = []

    @property
    def examples(self) -> int:
        """How many examples have been observed."""
        return self._state.examples

    @property
    @abstractmethod
    def facts(self) -> dict[str, str]:
        """How it is measured."""

    @abstractmethod
    def _observe(self, batch: Any, identities: list[bytes]) -> None:
        """`_add` what a batch shows."""

    def observe(self, batch: Any) -> None:
        """Look at some examples.

        Args:
            batch: Whatever the outputs function takes: tensors with the examples along their first axis, alone or in
                mappings, lists and tuples.

        Raises:
            TaskError: the module fails on the batch, or what it says does not fit the likelihood.
            NotFinite: outputs or gradients are not finite.
        """
        identities = self._identities(batch)
        if not identities:
            return
        self._sums, self._rows = {}, {}
        with evaluating(self._module):
            try:
                self._observe(batch, identities)
            except PolyakError:
                raise
            except Exception as error:  # whatever a module raises
                said = " ".join(str(error).split())[:500]
                raise TaskError(f"the module fails on a batch: {said} ({type(error).__name__}).") from error
        self._check_sums()
        self._commit(identities)

    def _commit(self, identities: list[bytes]) -> None:
        """Take a batch into the state."""
        before, data = self._state, self._state.data
        for name, total in before.sums.items():
            self._sums[name] = self._sums[name].add_(total) if name in self._sums else total
            self._rows[name] = self._rows.get(name, 0) + before.rows[name]
        for one in identities:
            data = chained(data, one)
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
            TaskError: nothing was observed, or there is nothing in it.
        """
        import torch

        done = self._state
        if not done.examples:
            raise TaskError("nothing was observed: the data has no examples.")
        if not any(bool(torch.any(total != 0)) for total in done.sums.values()):
            raise TaskError(self._nothing())
        tensors = {name: (total / max(done.rows[name], 1)).float().cpu().numpy() for name, total in done.sums.items()}
        model, notes = self.model_digest(tensors), tuple(self.notes)
        return Measurement(self.kind, tensors, dict(done.rows), done.examples, model, done.data, self.facts, notes)

    @abstractmethod
    def _nothing(self) -> str:
        """What it means that everything is zero."""

    def model_digest(self, names: Iterable[str]) -> str:
        """The fingerprint of those weights of the module, by the names of the checkpoint's tensors."""
        found = {self.name_of(name): place for name, place in self._module.named_parameters()}
        held = MemoryCheckpoint({name: found[name] for name in names})
        return fingerprint(held, ((name, held.spec(name)) for name in names))

    @abstractmethod
    def measurable(self) -> list[str]:
        """The tensors that may be measured, before anything is."""

    def count(self, batch: Any) -> int:
        """How many examples a batch has."""
        return len(self._identities(batch))

    def name_of(self, parameter: str) -> str:
        """The tensor that a parameter is in checkpoints; empty if it is none."""
        return parameter if self._names is None else self._names.get(parameter, "")

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Everything that is needed to go on later: arrays, and plain data."""
        done = self._state
        arrays = {name: total.cpu().numpy() for name, total in done.sums.items()}
        return arrays, {"rows": dict(done.rows), "examples": done.examples, "data": done.data}

    def restore(self, arrays: Mapping[str, Any], plain: Mapping[str, Any]) -> None:
        """Go on from a `state`."""
        import torch

        device = next(iter(self._module.parameters())).device
        sums = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
        self._state = State(sums, dict(plain["rows"]), plain["examples"], plain["data"])

    def _add(self, name: str, amount: torch.Tensor, rows: int) -> None:
        """Add to a sum of this batch, in float64."""
        import torch

        if name not in self._sums:
            self._sums[name] = torch.zeros(amount.shape, dtype=torch.float64, device=amount.device)
        self._sums[name] += amount
        self._rows[name] = self._rows.get(name, 0) + rows


def chained(digest: str, example: bytes) -> str:
    """The digest of examples up to this one; it does not depend on batches."""
    import xxhash

    return xxhash.xxh3_128_hexdigest(digest.encode() + xxhash.xxh3_128_digest(example))


@contextmanager
def evaluating(module: nn.Module) -> Generator[None]:
    """Every part of a module in evaluation mode for the length of a `with`; then each as it was."""
    before = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, was in before.items():
            part.training = was
