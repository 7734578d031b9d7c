"""LoRA adapters: merged into an adapter, taken from a fine-tune, and put into a model."""

from ._opened import updates as updates
from ._report import ModuleReport as ModuleReport
from ._report import Report as Report
from .baking import bake as bake
from .extracting import Choice as Choice
from .extracting import extract as extract
from .merging import merge as merge
