"""polyak diff"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import _options
from ._app import INSPECT, app

if TYPE_CHECKING:
    from ..checkpoint import Checkpoint
    from ..inspection import Diff, TensorDiff


@app.command(rich_help_panel=INSPECT)
def diff(
    a: Annotated[Path, typer.Argument(help="The reference model or adapter.", show_default=False)],
    b: Annotated[Path, typer.Argument(help="The changed model or adapter.", show_default=False)],
    top: Annotated[int, typer.Option(help="Number of tensors to list, largest relative change first.", min=0)] = 10,
    as_json: _options.AsJson = False,
) -> None:
    """Compare two models or LoRA adapters: relative change and cosine per layer, and the tensors that changed most."""
    from ..inspection import diff as compare

    first_model, second_model = _opened(a, b)
    with first_model as first, second_model as second:
        differences = compare(first, second)
    if as_json:
        from dataclasses import asdict

        print(json.dumps(asdict(differences)))
    else:
        _show(differences, top)


def _opened(a: Path, b: Path) -> tuple[Checkpoint, Checkpoint]:
    """Two models, or the updates s B A of two adapters."""
    from .. import adapters, checkpoint
    from ..errors import Mismatch

    are_adapters = [(path / "adapter_config.json").is_file() for path in (a, b)]
    if all(are_adapters):
        return adapters.updates(a), adapters.updates(b)
    if any(are_adapters):
        adapter, model = (a, b) if are_adapters[0] else (b, a)
        raise Mismatch(
            f"{adapter} is an adapter and {model} is not. Compare two adapters, or write the model that the adapter "
            f"makes of its base by `polyak lora bake BASE {adapter} OUT`, and compare OUT."
        )
    return checkpoint.open(a), checkpoint.open(b)


def _show(differences: Diff, top: int) -> None:
    from ..display import natural_key, shown

    for title, names in [
        ("only in the first", differences.only_a),
        ("only in the second", differences.only_b),
        ("other shape", differences.reshaped),
    ]:
        if names:
            print(
                f"{title}: {', '.join(map(shown, names[:5]))}"
                + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            )
    if all(t.differing == 0 for t in differences.tensors):
        print(f"the {len(differences.tensors)} tensors that both have are equal")
        return
    print("by layer")
    _table(sorted(differences.layers, key=lambda layer: natural_key(layer.name)))
    if top:
        print("largest movers")
        _table(sorted(differences.tensors, key=lambda t: -t.change)[:top])


def _table(rows: list[TensorDiff]) -> None:
    from ..display import shown

    width = max(len(shown(row.name)) for row in rows)
    print(f"  {'':<{width}}  {'change':>10}  {'cosine':>10}  {'largest':>10}  differing")
    for row in rows:
        name = shown(row.name)
        print(f"  {name:<{width}}  {row.change:10.3g}  {row.cosine:10.6f}  {row.largest:10.3g}  {row.differing:9.2%}")
