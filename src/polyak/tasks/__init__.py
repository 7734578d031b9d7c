"""Tasks: what a model should be able to do, measured with one number an example."""

from ..modules.live import LiveModel as LiveModel
from ..modules.recognition import bring_to_life as bring_to_life
from ..modules.recognition import from_factory as from_factory
from ._api import IGNORED as IGNORED
from ._api import SPLITS as SPLITS
from ._api import Asked as Asked
from ._api import Batch as Batch
from ._api import Likelihood as Likelihood
from ._api import Outcome as Outcome
from ._api import Scorer as Scorer
from ._api import Task as Task
from .comparing import Comparison as Comparison
from .comparing import compare as compare
from .description import read_task as read_task
from .description import task_of as task_of
from .evaluating import Scores as Scores
from .evaluating import evaluate as evaluate
from .function import FunctionScorer as FunctionScorer
from .likelihood import negative_log_likelihood as negative_log_likelihood
from .loading import load_task as load_task
from .paired import Bootstrap as Bootstrap
from .paired import Interval as Interval
