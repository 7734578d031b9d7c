"""Checkpoints: named tensors that can be read a piece at a time, wherever they lie."""

from __future__ import annotations

from ._api import DTYPE_NAMES as DTYPE_NAMES
from ._api import DTYPES as DTYPES
from ._api import Checkpoint as Checkpoint
from ._api import DType as DType
from ._api import Stamp as Stamp
from ._api import TensorSpec as TensorSpec
from .formats import Format as Format
from .formats import checkpoint_format as checkpoint_format
from .hub import locate as locate
from .lora import with_lora as with_lora
from .masked import with_masks as with_masks
from .memory import MemoryCheckpoint as MemoryCheckpoint
from .opening import open as open
from .views import beneath as beneath
from .views import picked as picked
from .views import renamed as renamed
from .views import stripped as stripped
from .views import subset as subset
