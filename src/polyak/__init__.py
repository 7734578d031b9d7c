"""Turn many sets of neural-network weights into one better model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._version import __version__ as __version__

if TYPE_CHECKING:
    from .api import load_recipe as load_recipe
    from .api import merge as merge
    from .api import merge_state_dicts as merge_state_dicts
    from .api import plan as plan
    from .checkpoint import Checkpoint as Checkpoint
    from .checkpoint import open as open
    from .checkpoint import renamed as renamed
    from .checkpoint import subset as subset
    from .checkpoint import with_lora as with_lora
    from .checkpoint import with_masks as with_masks
    from .engine import Report as Report
    from .errors import PolyakError as PolyakError
    from .planning import Plan as Plan
    from .recipe import Recipe as Recipe

# What lives where: names are imported when first used, because NumPy alone takes longer than `polyak --help` may.
_HOMES = {
    "load_recipe": ".api",
    "merge": ".api",
    "merge_state_dicts": ".api",
    "plan": ".api",
    "Checkpoint": ".checkpoint",
    "open": ".checkpoint",
    "renamed": ".checkpoint",
    "subset": ".checkpoint",
    "with_lora": ".checkpoint",
    "with_masks": ".checkpoint",
    "Report": ".engine",
    "PolyakError": ".errors",
    "Plan": ".planning",
    "Recipe": ".recipe",
}
__all__ = [
    "Checkpoint",
    "Plan",
    "PolyakError",
    "Recipe",
    "Report",
    "__version__",
    "load_recipe",
    "merge",
    "merge_state_dicts",
    "open",
    "plan",
    "renamed",
    "subset",
    "with_lora",
    "with_masks",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'polyak' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name], __name__), name)
