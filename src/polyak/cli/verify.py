"""polyak verify"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ._app import app


@app.command()
def verify(
    model: Annotated[Path, typer.Argument(help="A model merged by polyak.", show_default=False)],
    inputs: Annotated[bool, typer.Option("--inputs", help="Also read again what it was merged from.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The findings as JSON.")] = False,
) -> None:
    """Recompute the digests in a merged model's provenance, and say what differs."""
    from ..errors import VerificationFailed
    from ..inspection.verification import verify as check

    found = check(model, inputs=inputs)
    if as_json:
        from dataclasses import asdict

        print(json.dumps(asdict(found)))
    else:
        print(f"{model}: {found.tensors} tensors read, {len(found.differing)} differ from the provenance")
        for name, state in found.inputs.items():
            print(f"  input {name}: {state}")
    changed = [f"input {name} is {state}" for name, state in found.inputs.items() if state.startswith("changed")]
    if found.differing or changed:
        raise VerificationFailed("\n  ".join([f"{model} is not what its provenance says:", *found.differing, *changed]))
