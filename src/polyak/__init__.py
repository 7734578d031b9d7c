"""Turn many sets of neural-network weights into one better model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .api import merge as merge
    from .api import merge_state_dicts as merge_state_dicts
    from .api import plan as plan
    from .checkpoint import Checkpoint as Checkpoint
    from .checkpoint import open as open
    from .checkpoint import renamed as renamed
    from .checkpoint import subset as subset
    from .checkpoint import with_lora as with_lora
    from .engine import Report as Report
    from .errors import PolyakError as PolyakError
    from .planning import Plan as Plan
    from .recipe import Recipe as Recipe
    from .recipe import load as load_recipe

# What lives where: names are imported when first used, because NumPy alone takes longer than `polyak --help` may.
_HOMES = {
    "merge": ".api",
    "merge_state_dicts": ".api",
    "plan": ".api",
    "Checkpoint": ".checkpoint",
    "open": ".checkpoint",
    "renamed": ".checkpoint",
    "subset": ".checkpoint",
    "with_lora": ".checkpoint",
    "Report": ".engine",
    "PolyakError": ".errors",
    "Plan": ".planning",
    "Recipe": ".recipe",
    "load_recipe": ".recipe",
}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'polyak' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name], __name__), "load" if name == "load_recipe" else name)
