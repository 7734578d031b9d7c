"""polyak plan"""

from __future__ import annotations

from typing import Annotated

import typer

from . import _inline, _options
from ._app import MERGE, app

_SOURCES = "A recipe (a mergekit file too, or - for standard input), or the models to merge."


@app.command(rich_help_panel=MERGE)
def plan(
    sources: Annotated[list[str], typer.Argument(metavar="RECIPE|MODEL...", help=_SOURCES, show_default=False)],
    method: _inline.Method = "",
    base: Annotated[str, typer.Option("--base", "-b", help="Base model, for models without a recipe.")] = "",
    weight: _inline.Weights = None,
    given: _inline.Settings = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="Also sample tensors, to find NaN and unrelated models.")
    ] = False,
    as_json: _options.AsJson = False,
) -> None:
    """Show what a merge will do and cost, and find its errors, reading headers only."""
    from .. import api

    planned = api.plan(_inline.recipe_of(sources, _inline.Inline(method, base, weight or [], given or [])))
    warnings = _probe(planned) if probe else []
    if as_json:
        import json

        from ..planning import as_data

        print(json.dumps(as_data(planned) | {"warnings": warnings}))
        return
    print(planned.explain())
    for warning in warnings:
        print(f"warning: {warning}")
    if probe and not warnings:
        print("probe: the sampled tensors are finite and the models are related")


def _probe(planned: object) -> list[str]:
    from ..inspection import probe
    from ..planning import Plan

    assert isinstance(planned, Plan)
    return probe(planned)
