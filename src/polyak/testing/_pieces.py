"""A problem in pieces, as the engine meets it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ..methods import FirstPass, Law, Masks, Method, Role
from ..methods._apply import settings_as_arrays
from ..methods._passes import Order, Rows, Sum, Top, answer, call, in_rows, moved
from ..methods._stat import supplied
from ._asserts import assert_close
from ._problems import Problem


class Answered:
    """A problem with settings bound and first passes answered, to be evaluated in pieces as the engine does."""

    def __init__(self, method: Method, problem: Problem, settings: Mapping[str, Any]) -> None:
        self.method, self.bound = method, method.bind(settings, problem.k)
        arrays = {Role.TENSORS: problem.tensors, Role.BASE: problem.base, Role.CHANCE: problem.chance}
        arrays[Role.DELTAS] = problem.tensors - problem.base
        self.stacks = {n: arrays[role] for n, role in method.inputs.items() if role in arrays}
        self.stacks |= {"tensors": problem.tensors, "deltas": arrays[Role.DELTAS], "base": problem.base}
        found = supplied(method.name, method.statistics, problem.statistics, problem.tensors, self.bound)
        self.absent = {name: None for name, stack in found.items() if stack is None}
        self.stacks |= {name: stack for name, stack in found.items() if stack is not None}
        self.supply = self.stacks | self.absent | settings_as_arrays(method, self.bound, problem.tensors)
        self.names = {n: "tensor" for n, role in method.inputs.items() if role is Role.NAME}
        self.supply |= self.names
        self.requests: dict[str, Any] = {}
        for name, kind in method.inputs.items():
            if isinstance(kind, FirstPass):
                request = self.requests[name] = call(kind.ask, self.bound)
                self.supply[name] = None if request is None else answer(request, self.supply)

    def slab(self, start: int, stop: int) -> dict[str, Any]:
        """The definition's arguments for the entries [start, stop): flat, or rows where rows are merged apart."""
        cut = {n: self._shaped(self._flat(stack)[..., start:stop].copy()) for n, stack in self.stacks.items()}
        settings = settings_as_arrays(self.method, self.bound, cut["tensors"])
        known = self.absent | settings | self.names
        return cut | known | {n: moved(self.supply[n], start, stop) for n in self.requests}

    def pieces(self, cuts: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Ranges of entries that the method can merge apart, near some cuts."""
        return pairwise(sorted({-(-cut // self._unit) * self._unit for cut in cuts}))

    def tile(self, start: int, stop: int, chance: Any) -> dict[str, Any]:
        """The twin's arguments for them."""
        kinds = self.method.settings
        numbers = {n: np.array(v, np.float32) if kinds[n].per_model else v for n, v in self.bound.items()}
        drawn = {n: chance for n, role in self.method.inputs.items() if role is Role.CHANCE}
        return self.slab(start, stop) | numbers | drawn

    def fused(self, start: int, stop: int, chance: Any) -> Any:
        """What the twin or the loop writes for them."""
        out, tile = np.full(stop - start, np.nan, np.float32), self.tile(start, stop, chance)
        if self.method.loop is None:
            assert self.method.twin is not None
            call(self.method.twin, tile | {"out": out})
            return out
        loop = call(self.method.loop, tile | {n: self.supply[n] for n in self.requests})
        stack = next(tile[n] for n, role in self.method.inputs.items() if isinstance(role, Role))
        loop.kernel(out, stack, start, *loop.args)
        return out

    def assert_fused_ranks_agree(self, cuts: Sequence[int]) -> None:
        """What first passes rank is the same in its fused form."""
        for name, request in self.requests.items():
            if isinstance(request, Top | Order) and request.fused is not None and request.of is not None:
                for start, stop in pairwise(cuts):
                    wanted = call(request.of, self.slab(start, stop))
                    found = call(request.fused, self.tile(start, stop, None))
                    assert_close(found, wanted, f"what {name!r} ranks differs in its fused form")

    def assert_sums_add_up(self, cuts: Sequence[int], keys: Any) -> None:
        """Fused sums over tiles come to the answer."""
        from ..kernels.philox import Stream

        for name, request in self.requests.items():
            if isinstance(request, Sum) and request.fused is not None and request.scope == "row":
                self._assert_sums_of_rows_agree(name, request.fused, cuts)
            elif isinstance(request, Sum) and request.fused is not None:
                tiles = [call(request.fused, self.tile(a, b, Stream(keys, a))) for a, b in self.pieces(cuts)]
                total = np.sum(tiles, axis=0) / (self.stacks["base"].size if request.of_means else 1)
                assert_close(total, self.supply[name], f"the fused sum {name!r} is not its term's")
            elif isinstance(request, Sum) and request.looped is not None:
                tiles = [self._tallied(request.looped, a, b, keys) for a, b in self.pieces(cuts)]
                total = np.sum(tiles, axis=0) / (self.stacks["base"].size if request.of_means else 1)
                assert_close(total, self.supply[name], f"the tally of {name!r} is not the sum of its terms")

    def _tallied(self, looped: Any, start: int, stop: int, keys: Any) -> Any:
        from ..kernels.philox import Stream
        from ..kernels.sums import LANES

        tile = self.tile(start, stop, Stream(keys, 0)) | {n: self.supply[n] for n in self.requests}
        deltas = np.asarray(tile["deltas"])
        tally = call(looped, tile | {"models": len(deltas)})
        lanes = np.zeros((tally.terms, LANES))
        tally.kernel(lanes, deltas.reshape(len(deltas), -1), start, *tally.args)
        return lanes.sum(axis=1)

    def _assert_sums_of_rows_agree(self, name: str, fused: Any, cuts: Sequence[int]) -> None:
        wanted = self.supply[name]
        assert isinstance(wanted, Rows)
        ends = sorted({-(-cut // wanted.row) * wanted.row for cut in cuts})
        tiles = [self.tile(a, b, None) for a, b in pairwise(ends)]
        sums = [call(fused, tile | in_rows(tile, wanted.row)) for tile in tiles]
        assert_close(np.concatenate(sums, axis=1), wanted.value, f"the fused sum {name!r} is not its term's")

    def masks(self, start: int, stop: int) -> Masks:
        """Which entries of [start, stop) belong to each model, (k, stop - start), and the scales, if it has masks."""
        assert self.method.masks is not None
        return call(self.method.masks, self.slab(start, stop))

    def packed(self, start: int, stop: int) -> tuple[Any, Any]:
        """The bits and scales of the method's fused masks, for the entries [start, stop)."""
        assert self.method.packs is not None
        bits = np.full((self.stacks["tensors"].shape[0], -(-(stop - start) // 8)), 255, np.uint8)
        scale = call(self.method.packs, self.tile(start, stop, None) | {"packed": bits})
        return bits, scale

    @property
    def _unit(self) -> int:
        return self.stacks["base"].shape[1] if self._by_rows else 1

    @property
    def _by_rows(self) -> bool:
        return Law.ROWS in self.method.laws and Law.ELEMENTWISE not in self.method.laws

    def _shaped(self, flat: Any) -> Any:
        return flat.reshape(*flat.shape[:-1], -1, self._unit) if self._by_rows else flat

    def _flat(self, stack: Any) -> Any:
        entries = math.prod(self.stacks["base"].shape)
        return stack.reshape(*stack.shape[: stack.ndim - self.stacks["base"].ndim], entries)
