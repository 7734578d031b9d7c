"""An average as a folder: a plain model, with its provenance."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..._version import __version__
from ...checkpoint import MemoryCheckpoint
from ...engine import PROVENANCE
from ...inspection import tensor_digests
from ...modules import write_tensors
from ...storage import as_json, drafted, model_digest, write_text, writing
from ._sharded import rank, whole

if TYPE_CHECKING:
    from torch import Tensor, nn

_ALGORITHM = "xxh3-128"
WEIGHTS = "model.safetensors"


def write_model(
    module: nn.Module, out: Path, facts: Mapping[str, Any], *, sharded: bool, force: bool, tokenizer: Any
) -> None:
    """Write a module as it is now.

    Args:
        module: The module.
        out: The folder.
        facts: Description of the average, for the provenance.
        sharded: Gather the parameters from all processes, which must all call this; the first one writes.
        force: Replace a model that is there.
        tokenizer: Anything with `save_pretrained`, or None.

    Raises:
        OutputError: the folder is taken or cannot be written.
    """
    state = _state(module) if sharded else None
    if rank()[0]:
        return
    with drafted(out, as_json(facts), force=force) as draft:
        with writing(out):
            _write_weights(module, draft.model, state)
            if tokenizer is not None:
                tokenizer.save_pretrained(draft.model)
        written = dict(sorted(tensor_digests(draft.model, _ALGORITHM)))
        provenance = {
            "polyak": __version__,
            "digest": _ALGORITHM,
            "average": dict(facts),
            "models": {},
            "result": {"digest": model_digest(written, _ALGORITHM), "tensors": written},
        }
        with writing(out):
            write_text(draft.model / PROVENANCE, as_json(provenance))


def _state(module: nn.Module) -> dict[str, Tensor]:
    import torch

    entries = module.state_dict().items()  # also holds what is no tensor, for modules with extra state
    return {name: whole(entry).cpu() for name, entry in entries if isinstance(entry, torch.Tensor)}


def _write_weights(module: Any, folder: Path, state: dict[str, Tensor] | None) -> None:
    if hasattr(module, "save_pretrained"):
        module.save_pretrained(folder, **({} if state is None else {"state_dict": state}))
        return
    state = _state(module) if state is None else state
    # Tied tensors are written once; the metadata name the alias, as `safetensors.torch.load_model` expects.
    ties = MemoryCheckpoint(state).ties
    kept = {name: tensor for name, tensor in state.items() if name not in ties}
    write_tensors(folder / WEIGHTS, kept, {"format": "pt", **ties})
