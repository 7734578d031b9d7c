"""polyak diff"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._app import app

if TYPE_CHECKING:
    from ..inspection.differences import Diff, TensorDiff


@app.command()
def diff(
    a: Annotated[Path, typer.Argument(help="The model to compare with.", show_default=False)],
    b: Annotated[Path, typer.Argument(help="The model that changed.", show_default=False)],
    top: Annotated[int, typer.Option(help="How many of the largest movers to list.", min=0)] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Every tensor and layer, as JSON.")] = False,
) -> None:
    """Compare two models: relative change and cosine by layer, and the tensors that moved most."""
    from .. import checkpoint
    from ..inspection.differences import diff as compare

    with checkpoint.open(a) as first, checkpoint.open(b) as second:
        found = compare(first, second)
    if as_json:
        from dataclasses import asdict

        print(json.dumps(asdict(found)))
    else:
        _show(found, top)


def _show(found: Diff, top: int) -> None:
    for title, names in [
        ("only in the first", found.only_a),
        ("only in the second", found.only_b),
        ("other shape", found.reshaped),
    ]:
        if names:
            print(f"{title}: {', '.join(names[:5])}" + (f" and {len(names) - 5} more" if len(names) > 5 else ""))
    if all(t.differing == 0 for t in found.tensors):
        print(f"the {len(found.tensors)} tensors that both have are equal")
        return
    print("by layer")
    _table(found.layers)
    if top:
        print("largest movers")
        _table(sorted(found.tensors, key=lambda t: -t.change)[:top])


def _table(rows: tuple[TensorDiff, ...] | list[TensorDiff]) -> None:
    width = max(len(row.name) for row in rows)
    print(f"  {'':<{width}}  {'change':>10}  {'cosine':>10}  {'largest':>10}  differing")
    for row in rows:
        print(
            f"  {row.name:<{width}}  {row.change:10.3g}  {row.cosine:10.6f}  {row.largest:10.3g}  {row.differing:9.2%}"
        )
