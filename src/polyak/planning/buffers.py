"""Buffers that a library computes when it loads a model, so that it does not matter which files hold them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ..checkpoint import TensorSpec
from .compatibility import Opened

_COMPUTED = re.compile(
    r"(?:^|[._])(?:position_ids|token_type_ids|inv_freq|cos_cached|sin_cached|num_batches_tracked|relative_position_index"
    r"|relative_coords_table|masked_bias|attn_mask|causal_mask)$"
)
# GPT-2's masks; in other models a tensor of this name is a bias, so that the shape decides.
_MASK = re.compile(r"(?:^|\.)(?:self_)?(?:attn|attention)\.(?:\w+\.)?bias$")


def partial_buffers(models: Sequence[Opened], names: Iterable[str]) -> dict[str, list[str]]:
    """Computed buffers that some models hold and others do not, each with the models that hold it.

    Args:
        models: The base and the models.
        names: The tensors to look at.
    """
    partial: dict[str, list[str]] = {}
    for name in names:
        specs = {model.name: spec for model in models if (spec := model.find(name)) is not None}
        if len(specs) < len(models) and all(_is_computed(name, spec) for spec in specs.values()):
            partial[name] = list(specs)
    return partial


def buffer_notes(partial: Mapping[str, Sequence[str]], reference: Opened) -> Iterator[str]:
    """Notes on the buffers that are copied from the reference, and on those that it lacks, which are left out."""
    copied = [name for name, holders in partial.items() if reference.name in holders]
    dropped = [name for name in partial if name not in copied]
    if copied:
        yield f"buffers that not all models have are those of {reference.name}: {_listed(copied)}."
    if dropped:
        holders = ", ".join(dict.fromkeys(holder for name in dropped for holder in partial[name]))
        yield f"buffers that only {holders} has are left out; they are computed at loading: {_listed(dropped)}."


def _is_computed(name: str, spec: TensorSpec) -> bool:
    if _MASK.search(name):  # (1, 1, positions, positions)
        return len(spec.shape) == 4 and spec.shape[:2] == (1, 1) and spec.shape[2] == spec.shape[3]
    return _COMPUTED.search(name) is not None


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
