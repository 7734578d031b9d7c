"""Averages over the checkpoints of a training run: selection and weights of checkpoints, as a recipe."""

from .choosing import Choice as Choice
from .choosing import chosen as chosen
from .opening import Opener as Opener
from .recipes import averaged as averaged
from .recipes import relative_to as relative_to
from .runs import RunCheckpoint as RunCheckpoint
from .runs import read_run as read_run
from .strategies import Strategies as Strategies
from .strategies import best_by as best_by
from .strategies import best_on as best_on
from .strategies import compare_strategies as compare_strategies
from .strategies import weightings as weightings
from .weighting import BY_METRIC as BY_METRIC
from .weighting import Weighting as Weighting
from .weighting import by_metric as by_metric
from .weighting import exponential as exponential
