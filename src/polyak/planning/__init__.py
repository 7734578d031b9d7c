"""Plans: a recipe plus headers, priced in bytes, before any tensor is read."""

from ..recipe import BASE as BASE
from ._model import NestedMerge as NestedMerge
from ._model import Plan as Plan
from ._model import PlanPart as PlanPart
from ._model import Read as Read
from ._model import Sidecars as Sidecars
from ._model import Step as Step
from .build import open_source as open_source
from .build import plan as plan
from .replan import with_numbers as with_numbers
