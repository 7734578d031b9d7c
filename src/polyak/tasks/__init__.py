"""Tasks: what a model should be able to do, measured with one number an example."""

from ._api import IGNORED as IGNORED
from ._api import SPLITS as SPLITS
from ._api import Batch as Batch
from ._api import Likelihood as Likelihood
from ._api import Task as Task
from .likelihood import negative_log_likelihood as negative_log_likelihood
from .live import LiveModel as LiveModel
from .recognition import bring_to_life as bring_to_life
from .recognition import from_factory as from_factory
