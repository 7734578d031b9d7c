"""Tasks: examples on which models are scored, with one score per example.

To add a kind of task, add one file to `kinds/`, or name a module in the entry-point group `polyak.tasks`.
"""

from __future__ import annotations

from ..modules import Build as Build
from ..modules import LiveModel as LiveModel
from ..modules import bring_to_life as bring_to_life
from ..modules import from_factory as from_factory
from ._batch import IGNORED as IGNORED
from ._batch import Batch as Batch
from ._batch import Likelihood as Likelihood
from ._batch import Outcome as Outcome
from ._batch import ScoreRequest as ScoreRequest
from ._task import Scorer as Scorer
from ._task import Task as Task
from .classification import Classification as Classification
from .classification import labelled as labelled
from .comparing import Comparison as Comparison
from .comparing import Result as Result
from .comparing import TaskComparison as TaskComparison
from .comparing import compare as compare
from .comparing import compare_scores as compare_scores
from .description import read_task as read_task
from .description import task_of as task_of
from .dividing import Divided as Divided
from .evaluating import Scores as Scores
from .evaluating import evaluate as evaluate
from .evaluating import score_interval as score_interval
from .evaluating import summary as summary
from .examples import Body as Body
from .examples import ExampleTask as ExampleTask
from .examples import digest_of_model as digest_of_model
from .frame import Frame as Frame
from .frame import TaskKind as TaskKind
from .frame import registry as registry
from .frame import task_kind as task_kind
from .function import FunctionScorer as FunctionScorer
from .likelihood import check_labels as check_labels
from .loading import import_function as import_function
from .loading import load_task as load_task
from .paired import Bootstrap as Bootstrap
from .paired import Interval as Interval
from .paired import interval as interval
from .paired import resampled_means as resampled_means
from .rows import Rows as Rows
from .rows import read_rows as read_rows
from .running import Part as Part
from .running import guarded as guarded
from .running import joined as joined
from .running import on_device as on_device
from .running import scored as scored
from .texts import Tokens as Tokens

resolve, load_all = registry.resolve, registry.load_all
