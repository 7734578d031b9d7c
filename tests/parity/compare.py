"""How far two merges are apart, in units of the last place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

Tensors = Mapping[str, torch.Tensor]
BITS = {torch.float32: 23, torch.bfloat16: 7, torch.float16: 10}
SMALLEST = {torch.float32: -126, torch.bfloat16: -126, torch.float16: -14}  # exponent from which numbers are subnormal

# Both tools compute in float32, in different orders: this many roundings may lie between them.
FLOAT32_UNITS = 8


def assert_same_tensors(ours: Tensors, theirs: Tensors, inputs: Sequence[Tensors]) -> None:
    """Check names, shapes and dtypes, and that every entry is equal to one unit in the last place.

    Where a weight is nearly cancelled its own last place is below that of the arithmetic, which is float32: of the
    largest number that enters the sum, FLOAT32_UNITS units in its last place.
    """
    assert_same_specs(ours, theirs)
    for name, found in ours.items():
        assert too_far(found, theirs[name], inputs, name).sum() == 0, name


def assert_same_specs(ours: Tensors, theirs: Tensors) -> None:
    """Check names, shapes and dtypes."""
    assert {name: (t.dtype, t.shape) for name, t in ours.items()} == {n: (t.dtype, t.shape) for n, t in theirs.items()}


def too_far(found: torch.Tensor, wanted: torch.Tensor, inputs: Sequence[Tensors], name: str) -> torch.Tensor:
    """Where two results differ by more than `assert_same_tensors` allows."""
    apart = (found.double() - wanted.double()).abs()
    stored = [model[name].float() for model in inputs if name in model]
    largest = torch.stack([t.float().abs() for t in (found, wanted, *stored)]).amax(0)
    arithmetic = FLOAT32_UNITS * unit(largest)
    if found.dtype == torch.float32:
        return apart > arithmetic
    return apart > torch.stack([unit(found), unit(wanted), arithmetic]).amax(0)


def unit(numbers: torch.Tensor) -> torch.Tensor:
    """The unit in the last place of each number, in the tensor's own dtype."""
    _, exponent = torch.frexp(numbers.double())  # 2 ** (exponent - 1) <= |number|
    return torch.exp2((exponent - 1).clamp(min=SMALLEST[numbers.dtype]).double() - BITS[numbers.dtype])


def at_a_cut(deltas: torch.Tensor, kept: Sequence[int]) -> torch.Tensor:
    """Which entries have, in a model of the stack, a magnitude at which some count of the largest ends.

    Only where equals lie on both sides of the cut: there it is left open which of them survive.
    """
    found = torch.zeros(deltas.shape[1:], dtype=torch.bool)
    for delta in deltas:
        magnitudes = delta.abs()
        ordered = magnitudes.flatten().sort(descending=True).values
        for count in kept:
            if 0 < count < ordered.numel() and ordered[count - 1] == ordered[count]:
                found |= magnitudes == ordered[count]
    return found
