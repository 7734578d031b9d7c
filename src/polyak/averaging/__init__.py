"""Averages over the checkpoints of a training run: which checkpoints, with which weights, as a recipe."""

from .choosing import Choice as Choice
from .choosing import chosen as chosen
from .recipes import averaged as averaged
from .runs import RunCheckpoint as RunCheckpoint
from .runs import read_run as read_run
from .weighting import BY_METRIC as BY_METRIC
from .weighting import Weighting as Weighting
from .weighting import by_metric as by_metric
from .weighting import exponential as exponential
