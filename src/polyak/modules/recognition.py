"""From a checkpoint to a live module, with the correspondence between parameters and tensors.

Libraries rename, fuse, tie and drop tensors when they load them. The correspondence is not guessed from names: the
module is first built from a checkpoint in which every tensor holds unique marker values. A parameter with the markers
of a tensor corresponds to it; a parameter with other values was transformed or not loaded, which is an error, as is a
tensor whose markers are in no parameter.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..checkpoint import Checkpoint, TensorSpec
from ..errors import TaskError
from .live import LiveModel, entries, listed

if TYPE_CHECKING:
    from torch import Tensor, nn

Build: TypeAlias = "Callable[[dict[str, Tensor]], nn.Module]"  # a module filled from a state dict


def bring_to_life(
    build: Build, checkpoint: Checkpoint, *, heads: str = "", head: Checkpoint | None = None, unused: str = ""
) -> LiveModel:
    """Build a module from a checkpoint, and match its parameters to tensors.

    Args:
        build: Builds the module from a state dict, by any library.
        checkpoint: The weights.
        heads: Regular expression for the names of tensors that belong to the task and are not exchanged.
        head: The checkpoint of those tensors; None takes them from `checkpoint`.
        unused: Regular expression for tensors of the checkpoint that the module does not use.

    Raises:
        TaskError: the module cannot be built, a parameter corresponds to no tensor, a tensor to no parameter, or there
            is no head.
    """
    parts = _parts(checkpoint, head or checkpoint, heads, unused)
    marks = _marks(parts)
    module = _built(build, marks, checkpoint.label)
    tensor_of = _recognised(module, marks, checkpoint.label)
    lost = _lost(tensor_of, marks, parts, checkpoint.label)
    own = {name: tensor for name, tensor in tensor_of.items() if tensor in parts.heads}
    live = LiveModel(
        module,
        {name: tensor for name, tensor in tensor_of.items() if name not in own},
        heads=own,
        unused={*lost, *parts.heads, *(name for name in checkpoint.specs if name not in parts.body)},
        label=checkpoint.label,
    )
    live.load(checkpoint)
    LiveModel(module, own, label=parts.head.label).load({tensor: parts.head.read(tensor) for tensor in own.values()})
    return live


def from_factory(factory: Callable[[], nn.Module]) -> Build:
    """A builder from a function that makes a module whose state dict has the names of the checkpoint."""

    def build(state: dict[str, Tensor]) -> nn.Module:
        module = _module(factory())
        module.load_state_dict(state, strict=False)  # missing and unexpected tensors are detected by their markers
        return module

    return build


def _module(made: object) -> nn.Module:
    from torch import nn

    if not isinstance(made, nn.Module):
        raise TypeError(
            f"the function that makes the module returns an object of type {type(made).__name__}, not a torch module"
        )
    return made.float()


@dataclass(frozen=True)
class _Parts:
    """The tensors that a module is made of.

    Attributes:
        body: Those that are exchanged.
        heads: Those that stay with the task.
        checkpoint: The checkpoint of the body.
        head: The checkpoint of the heads.
    """

    body: Mapping[str, TensorSpec]
    heads: Mapping[str, TensorSpec]
    checkpoint: Checkpoint
    head: Checkpoint


def _parts(checkpoint: Checkpoint, head: Checkpoint, heads: str, unused: str) -> _Parts:
    def chosen(source: Checkpoint, *, is_head: bool) -> dict[str, TensorSpec]:
        used = {name: spec for name, spec in source.specs.items() if not _is_found(unused, name)}
        return {name: spec for name, spec in used.items() if _is_found(heads, name) == is_head}

    head_tensors = chosen(head, is_head=True)
    if heads and not head_tensors:
        raise TaskError(
            f"{head.label} has no head: no tensor's name matches {heads!r}. Name the model that has it as `from:` in "
            "the task's `heads:`."
        )
    return _Parts(chosen(checkpoint, is_head=False), head_tensors, checkpoint, head)


def _marks(parts: _Parts) -> dict[str, Tensor]:
    """A state dict with unique marker values; tensors of small integer types keep their values."""
    import torch

    rng, seen, marks = np.random.default_rng(0), set[str](), dict[str, Any]()
    for specs, source in ((parts.body, parts.checkpoint), (parts.heads, parts.head)):
        for name, spec in specs.items():
            values = _mark(spec, rng, seen) if _can_be_marked(spec) else source.read(name)
            marks[name] = torch.from_numpy(values.copy())
        marks |= {alias: marks[name] for alias, name in source.ties.items() if name in specs and alias not in marks}
    return marks


def _can_be_marked(spec: TensorSpec) -> bool:
    return spec.numel > 0 and (spec.stored.floating or spec.dtype.name in ("I64", "I32"))


def _mark(spec: TensorSpec, rng: np.random.Generator, seen: set[str]) -> npt.NDArray[Any]:
    while True:
        drawn = rng.random(spec.shape, np.float32) if spec.stored.floating else rng.integers(2**31 - 1, size=spec.shape)
        values = np.asarray(drawn, np.float32 if spec.stored.floating else spec.dtype.numpy)
        fingerprint = _fingerprint(values)
        if fingerprint not in seen:
            seen.add(fingerprint)
            return values


def _built(build: Build, marks: Mapping[str, Tensor], label: str) -> nn.Module:
    try:
        return build(dict(marks))
    except TaskError:
        raise
    except Exception as error:
        message = " ".join(str(error).split())[:500]
        raise TaskError(
            f"no module can be built from {label}: {message} ({type(error).__name__}). "
            "If it is the head that differs, name the task's own as `heads: {match: ..., from: ...}`."
        ) from error


def _recognised(module: nn.Module, marks: Mapping[str, Tensor], label: str) -> dict[str, str]:
    """The tensor that each entry of the module holds."""
    by_mark: dict[str, str] = {}
    for name, mark in marks.items():
        by_mark.setdefault(_fingerprint(mark.numpy()), name)
    tensor_of: dict[str, str] = {}
    for name, entry in entries(module).items():
        array = entry.detach().cpu().numpy()
        is_marked = array.size > 0 and array.dtype.name in ("float32", "int64", "int32")
        tensor = by_mark.get(_fingerprint(array)) if is_marked else _namesake(name, marks)
        if tensor is None:
            raise TaskError(
                f"{name!r} of the module is filled by no tensor of {label} as it is: the tensor is missing, or it is "
                "fused or changed while it is loaded. Use a module that keeps each tensor apart."
            )
        tensor_of[name] = tensor
    _refuse_shared(tensor_of, label)
    return tensor_of


def _refuse_shared(names: Mapping[str, str], label: str) -> None:
    for tensor, times in Counter(names.values()).items():
        if times > 1:
            raise TaskError(f"two parameters of the module hold {tensor!r} of {label}; tie them in the module.")


def _namesake(name: str, marks: Mapping[str, Tensor]) -> str | None:
    """The integer (or empty) tensor of this name, with or without a prefix; small types cannot hold a marker."""
    if name in marks:
        return name
    near = [other for other in marks if name.endswith(f".{other}") or other.endswith(f".{name}")]
    return near[0] if len(near) == 1 else None


def _lost(names: Mapping[str, str], marks: Mapping[str, Tensor], parts: _Parts, label: str) -> list[str]:
    """The integer tensors that the module does not have; libraries drop some, such as position ids."""
    kept = set(names.values())
    lost = [name for name in (*parts.body, *parts.heads) if name not in kept]
    if wrong := [name for name in lost if marks[name].is_floating_point()]:
        raise TaskError(
            f"the module has no parameters for {len(wrong)} tensors of {label}: {listed(wrong)}. If they belong to a "
            "task, name them in the task's `heads:`; if nothing uses them, in its `unused:`."
        )
    return lost


def _fingerprint(values: npt.NDArray[Any]) -> str:
    import xxhash

    stored: Any = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    return f"{xxhash.xxh3_128_hexdigest(stored)} {values.dtype} {values.shape}"


def _is_found(pattern: str, name: str) -> bool:
    return bool(pattern) and re.search(pattern, name) is not None
