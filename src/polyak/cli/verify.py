"""polyak verify"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from . import _options
from ._app import INSPECT, app


@app.command(rich_help_panel=INSPECT)
def verify(
    model: Annotated[Path, typer.Argument(help="A model merged by polyak.", show_default=False)],
    inputs: Annotated[bool, typer.Option("--inputs", help="Also check the models it was merged from.")] = False,
    as_json: _options.AsJson = False,
) -> None:
    """Recompute the digests in a merged model's provenance and list the tensors that differ."""
    from ..display import shown
    from ..errors import VerificationFailed
    from ..inspection import verify as check

    result = check(model, inputs=inputs)
    if as_json:
        from dataclasses import asdict

        print(json.dumps(asdict(result)))
    else:
        print(f"{model}: {result.tensors} tensors read, {len(result.differing)} differ from the provenance")
        for name, state in result.inputs.items():
            print(f"  input {shown(name)}: {shown(state)}")
    changed = [f"input {name} is {state}" for name, state in result.inputs.items() if state.startswith("changed")]
    if result.differing or changed:
        raise VerificationFailed(
            "\n  ".join([f"{model} differs from its provenance:", *map(shown, [*result.differing, *changed])])
        )
