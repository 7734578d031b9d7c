"""Averages over the checkpoints of a training run as a recipe, and averages kept while a model trains (`live`)."""

from . import live as live
from .choosing import Choice as Choice
from .choosing import chosen as chosen
from .decay import Curve as Curve
from .decay import curve_weights as curve_weights
from .decay import implied_decay as implied_decay
from .decay import weights_of_decay as weights_of_decay
from .opening import Opener as Opener
from .power_function import Profile as Profile
from .power_function import Synthesis as Synthesis
from .power_function import exponent_of as exponent_of
from .power_function import synthesise as synthesise
from .power_function import width_of as width_of
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
