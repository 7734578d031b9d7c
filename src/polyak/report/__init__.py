"""HTML reports of evaluations, comparisons, searches and averages, each in one file that needs nothing else."""

from __future__ import annotations

from .decay import decay_page as decay_page
from .evaluation import comparison_page as comparison_page
from .evaluation import evaluation_page as evaluation_page
from .html import document as document
from .html import figure as figure
from .plots import Dot as Dot
from .plots import Point as Point
from .plots import Row as Row
from .plots import points_plot as points_plot
from .plots import rows_plot as rows_plot
from .search import search_page as search_page
