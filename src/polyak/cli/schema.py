"""polyak schema"""

from __future__ import annotations

import json

from ._app import app


@app.command()
def schema() -> None:
    """Print the JSON schema of recipes, for editors and checkers."""
    from ..recipe import schema as recipe_schema

    print(json.dumps(recipe_schema(), indent=2))
