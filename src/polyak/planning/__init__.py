"""Plans: every step of a merge with its cost in bytes, from a recipe and headers, before any tensor is read."""

from ..recipe import BASE as BASE
from ._plan import NestedMerge as NestedMerge
from ._plan import Plan as Plan
from ._plan import as_data as as_data
from ._plan import peak_nbytes as peak_nbytes
from ._plan import tensors_kept as tensors_kept
from ._plan import workers_within as workers_within
from .build import open_source as open_source
from .build import plan as plan
from .replan import with_numbers as with_numbers
from .resolve import depths as depths
from .statistics import MODEL_DIGEST as MODEL_DIGEST
from .statistics import STATISTICS_KIND as STATISTICS_KIND
from .steps import Read as Read
from .steps import Sidecars as Sidecars
from .steps import Step as Step
