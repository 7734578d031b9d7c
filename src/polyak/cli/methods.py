"""polyak methods"""

from __future__ import annotations

import inspect
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import _options
from ._app import INSPECT, app

if TYPE_CHECKING:
    from ..methods import Method, Setting


@app.command(rich_help_panel=INSPECT)
def methods(
    name: Annotated[str, typer.Argument(help="A method to describe in full.", show_default=False)] = "",
    as_json: _options.AsJson = False,
) -> None:
    """List the merge methods, or show the formula, settings, laws and source of one."""
    from .. import methods as catalogue

    catalogue.load_all()
    chosen = [catalogue.resolve(name)] if name else sorted(catalogue.registry.values(), key=lambda m: m.name)
    if as_json:
        print(json.dumps([as_data(method) for method in chosen]))
    elif name:
        _show(chosen[0])
    else:
        width = max(len(method.name) for method in chosen)
        for method in chosen:
            print(f"{method.name:<{width}}  {method.summary}")


def as_data(method: Method) -> dict[str, Any]:
    """A method as plain data, from its signature."""
    return {
        "name": method.name,
        "summary": method.summary,
        "description": inspect.getdoc(method.fn),
        "source": method.source,
        "models": list(method.models),
        "needs_base": method.needs_base,
        "uses_base": method.uses_base,
        "random": method.is_random,
        "laws": sorted(law.name.lower() for law in method.laws),
        "first_passes": list(method.passes),
        "fused": method.kernel_form is not None,
        "settings": {s.name: setting_data(s) for s in method.settings.values()},
    }


def setting_data(setting: Setting) -> dict[str, Any]:
    """A setting as plain data."""
    from ..methods import REQUIRED

    word = "regex" if setting.kind is str else None
    return {
        "kind": list(setting.kind) if isinstance(setting.kind, tuple) else word or setting.kind.__name__,
        "default": None if setting.default is REQUIRED else setting.default,
        "required": setting.default is REQUIRED,
        "per_model": setting.per_model,
        "range": str(setting.range) if setting.range else None,
    }


def _show(method: Method) -> None:
    data = as_data(method)
    print(f"{method.name}\n\n{data['description']}\n")
    for name, setting in data["settings"].items():
        kind = " | ".join(setting["kind"]) if isinstance(setting["kind"], list) else setting["kind"]
        extras = [e for e in ("one per model" if setting["per_model"] else "", setting["range"] or "") if e]
        default = "required" if setting["required"] else f"default {setting['default']}"
        print(f"  {name}: {kind} ({', '.join([*extras, default])})")
    print(f"\nneeds a base: {'yes' if method.needs_base else 'no, but uses it' if method.uses_base else 'no'}")
    print(f"laws: {', '.join(data['laws']) or 'none'}")
    print(f"source: {method.source}")
