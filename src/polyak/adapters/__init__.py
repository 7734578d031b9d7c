"""LoRA adapters: merged into an adapter, taken from a fine-tune, and put into a model."""

from ._report import ModuleReport as ModuleReport
from ._report import Report as Report
from .merging import merge as merge
