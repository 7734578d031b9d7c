"""Hyperparameter search: values that a recipe leaves open, chosen by the scores of candidates on tasks."""

from .job import Search as Search
from .results import Found as Found
from .results import Tried as Tried
from .results import as_data as as_data
from .running import search as search
from .scoring import Examples as Examples
