"""Live torch modules, and the mapping between their parameters and the tensors of a checkpoint."""

from __future__ import annotations

from .heads import with_new_head as with_new_head
from .live import LiveModel as LiveModel
from .live import entries as entries
from .pooling import pool as pool
from .recognition import Build as Build
from .recognition import bring_to_life as bring_to_life
from .recognition import from_factory as from_factory
from .tensor_file import read_tensor as read_tensor
from .tensor_file import write_tensors as write_tensors
from .transformers import from_transformers as from_transformers
from .transformers import pooled_classifier as pooled_classifier
from .transformers import quietly as quietly
from .transformers import read_tokenizer as read_tokenizer
