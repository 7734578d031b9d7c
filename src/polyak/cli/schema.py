"""polyak schema"""

from __future__ import annotations

import json

from ._app import INSPECT, app


@app.command(rich_help_panel=INSPECT)
def schema() -> None:
    """Print the JSON schema of recipes, for editors and validators."""
    from ..recipe import schema as recipe_schema

    print(json.dumps(recipe_schema(), indent=2))
