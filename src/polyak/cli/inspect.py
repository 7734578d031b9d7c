"""polyak inspect"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import _options
from ._app import INSPECT, app

if TYPE_CHECKING:
    from ..checkpoint import Checkpoint


@app.command(rich_help_panel=INSPECT)
def inspect(
    model: Annotated[Path, typer.Argument(help="Folder or file of a model.", show_default=False)],
    key: _options.Key = "",
    as_json: _options.AsJson = False,
) -> None:
    """Show tensors, dtypes, sizes, ties and metadata, reading headers only."""
    from .. import checkpoint

    with checkpoint.open(model, key=key or None) as opened:
        if as_json:
            print(json.dumps(_as_data(opened)))
        else:
            _show(opened)


def _as_data(model: Checkpoint) -> dict[str, Any]:
    return {
        "model": model.label,
        "nbytes": sum(spec.nbytes for spec in model.specs.values()),
        "parameters": sum(spec.numel for spec in model.specs.values()),
        "tensors": {
            n: {"dtype": s.dtype.name, "shape": list(s.shape), "nbytes": s.nbytes} for n, s in model.specs.items()
        },
        "ties": dict(model.ties),
        **({"sparsity": share} if (share := _sparsity(model)) is not None else {}),
        "metadata": dict(model.metadata),
        "files": [str(stamp.path) for stamp in model.stamps],
    }


def _show(model: Checkpoint) -> None:
    from ..display import human_size, natural_key, shown

    specs = sorted(model.specs.values(), key=lambda spec: natural_key(spec.name))
    counts = Counter(spec.dtype.name for spec in specs)
    parameters, nbytes = sum(spec.numel for spec in specs), sum(spec.nbytes for spec in specs)
    print(f"{model.label}: {len(specs)} tensors, {parameters:,} parameters, {human_size(nbytes)}")
    print(f"dtypes: {', '.join(f'{n} x {name}' for name, n in counts.most_common())}")
    print(f"files: {', '.join(stamp.path.name for stamp in model.stamps) or 'none'}")
    if (share := _sparsity(model)) is not None:
        print(f"sparsity: {share:.2%} of the entries are zero, of tensors that are stored sparse")
    for alias, name in model.ties.items():
        print(f"tied: {shown(alias)} = {shown(name)}")
    for name, text in model.metadata.items():
        print(f"metadata: {shown(name)} = {shown(text[:120])}")
    nonzeros = _nonzeros(model)
    width = max((len(shown(spec.name)) for spec in specs), default=0)
    for spec in specs:
        zeros = f"  {1 - nonzeros[spec.name] / spec.numel:.2%} zero" if spec.name in nonzeros else ""
        size = f"{list(spec.shape)!s:<20} {human_size(spec.nbytes)}"
        print(f"  {shown(spec.name):<{width}}  {spec.dtype.name:<8} {size}{zeros}")


def _nonzeros(model: Checkpoint) -> Mapping[str, int]:
    """Number of entries that are not zero, of the tensors of a compact sparse file."""
    from ..checkpoint import SparseFile

    return model.nonzeros if isinstance(model, SparseFile) else {}


def _sparsity(model: Checkpoint) -> float | None:
    """Share of zeros of a compact sparse file; None for other models, whose data would have to be read."""
    nonzeros = _nonzeros(model)
    return 1 - sum(nonzeros.values()) / sum(model.specs[name].numel for name in nonzeros) if nonzeros else None
