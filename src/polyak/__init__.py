"""Model merging: combine fine-tuned checkpoints and LoRA adapters into one model."""

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

# Names are imported when first used, because NumPy alone takes longer than `polyak --help` may.
_HOMES = {
    "Checkpoint": ".checkpoint",
    "Plan": ".planning",
    "PolyakError": ".errors",
    "Recipe": ".recipe",
    "Report": ".engine",
    "load_recipe": ".api",
    "merge": ".api",
    "merge_state_dicts": ".api",
    "open": ".checkpoint",
    "plan": ".api",
    "renamed": ".checkpoint",
    "subset": ".checkpoint",
    "with_lora": ".checkpoint",
    "with_masks": ".checkpoint",
}
__all__ = ["__version__", *_HOMES]  # noqa: PLE0604  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'polyak' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
