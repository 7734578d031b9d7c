"""polyak plan"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ._app import app


@app.command()
def plan(
    recipe: Annotated[Path, typer.Argument(help="A recipe, or a mergekit YAML file.", show_default=False)],
    probe: Annotated[
        bool, typer.Option("--probe", help="Also sample tensors for NaN and for unrelated models.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The plan as JSON, step by step.")] = False,
) -> None:
    """Say what a merge will do, what it costs and what is wrong, reading headers only."""
    from .. import api

    planned = api.plan(recipe)
    warnings = _probe(planned) if probe else []
    if as_json:
        import json

        from ..planning.explain import as_data

        print(json.dumps(as_data(planned) | {"warnings": warnings}))
        return
    print(planned.explain())
    for warning in warnings:
        print(f"warning: {warning}")
    if probe and not warnings:
        print("probe: the sampled tensors are finite and the models are related")


def _probe(planned: object) -> list[str]:
    from ..inspection.probing import probe
    from ..planning import Plan

    assert isinstance(planned, Plan)
    return probe(planned)
