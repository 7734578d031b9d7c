"""A result that is there already, recognised by its provenance."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ... import recipe as recipes
from ..._version import __version__
from ...checkpoint import inside, read_json
from ...errors import CheckpointError
from ...planning import Plan
from ..step.device import Device
from .provenance import PROVENANCE


def published_digest(
    plan: Plan, out: Path, files: Iterable[str], algorithm: str, device: Device | None = None
) -> str | None:
    """The digest of the result in `out`, if it is that of this very plan and its inputs are older; else None.

    Args:
        plan: The plan.
        out: The output folder.
        files: The tensor files that the plan writes.
        algorithm: Digest algorithm.
        device: Device of whole-matrix merges, if not the CPU.
    """
    try:
        path = inside(out, PROVENANCE)
        stated = read_json(path)
        config = read_json(inside(out, "config.json")) if plan.sidecars.config is not None else None
    except CheckpointError:
        return None
    match stated:
        case {"result": {"digest": str(digest), "tensors": dict(tensors)}, "models": dict(models)}:
            names = {s.out.name if s.file is None else f"{s.file}:{s.out.name}" for s in plan.steps if s.out.numel}
        case _:
            return None
    same = (
        (stated.get("polyak"), stated.get("digest")) == (__version__, algorithm)
        and (stated.get("recipe"), stated.get("recipe_digest"))
        == (recipes.dump(plan.recipe), recipes.digest(plan.recipe))
        and stated.get("device") == (device and {"name": device.name, "said": device.said})
        and names <= tensors.keys()
        and models.keys() == plan.models.keys()
        and config == (plan.sidecars.config and dict(plan.sidecars.config))
        and all((out / name).is_file() for name in files)
    )
    return digest if same and _is_newer(path, plan) else None


def _is_newer(path: Path, plan: Plan) -> bool:
    """Test that no input was written to, or put in place, since the result was written."""
    written = path.stat().st_mtime_ns
    return all(max(s.mtime_ns, s.ctime_ns) <= written for model in plan.inputs.values() for s in model.stamps)
