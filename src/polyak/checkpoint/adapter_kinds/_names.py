"""The tensors of an adapter, sorted by module and role."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ...errors import CheckpointError, UnsupportedFormat

_WRAPPED = re.compile(r"\.base_layer(?=\.)|\.token_adapter(?=\.)|\.modules_to_save(?:\.[^.]+)?(?=\.[^.]+$)")


@dataclass(frozen=True, slots=True)
class AdapterNames:
    """The tensors of an adapter by their purpose.

    Attributes:
        modules: Module name to the stored names of its tensors, by role.
        replaced: Tensor of the base to the name of the tensor that takes its place.
    """

    modules: Mapping[str, Mapping[str, str]]
    replaced: Mapping[str, str]


def sort_adapter_names(names: Iterable[str], path: Path) -> AdapterNames:
    """Sort the tensors of an adapter by their purpose.

    Raises:
        CheckpointError: there are none, or several adapters are in one file.
        UnsupportedFormat: a tensor belongs to a kind of adapter that polyak does not merge.
    """
    modules: dict[str, dict[str, str]] = {}
    replaced: dict[str, str] = {}
    # With `bias: all` a saved module's bias comes as itself, as the wrapper's (the same values, a longer
    # name) and as the original's (unused): the shortest name comes first.
    for name in sorted(names, key=len):
        bare = name.removeprefix("base_model.model.")
        if match := _role_pattern().fullmatch(bare):
            module = match["module"].removesuffix(".token_adapter")
            leaf = ".bias" if match["leaf"] == ".bias" else ""
            _take(modules.setdefault(module, {}), match["role"] + leaf, name, path)
        elif ".lora_" in bare:
            raise UnsupportedFormat(f"{path}: {name!r} belongs to a kind of LoRA that polyak does not merge.")
        elif ".original_module." not in bare:
            _take_whole(replaced, bare, name, path)
    if not modules and not replaced:
        raise CheckpointError(f"{path}: the adapter holds no tensors.")
    return AdapterNames(modules, replaced)


@cache
def _role_pattern() -> re.Pattern[str]:
    from . import roles

    words = sorted({role.partition(".")[0] for role in roles()}, key=len, reverse=True)
    return re.compile(
        rf"(?P<module>.+)\.(?P<role>{'|'.join(map(re.escape, words))})(?:\.[^.]+)??(?P<leaf>\.weight|\.bias)?"
    )


def _take_whole(replaced: dict[str, str], bare: str, name: str, path: Path) -> None:
    target = _WRAPPED.sub("", bare)
    module, _, leaf = target.rpartition(".")
    if target not in replaced or bare != f"{module}.modules_to_save.{leaf}":
        _take(replaced, target, name, path)


def _take(taken: dict[str, str], key: str, name: str, path: Path) -> None:
    if key in taken:
        raise CheckpointError(
            f"{path}: {name!r} and {taken[key]!r} are for the same tensor; keep one adapter per file."
        )
    taken[key] = name
