"""Declarations: settings read from the signature of a function, a registry of functions, and values bound to settings.

Methods, learners, statistics, averages, kinds of task and checkpoint formats are all declared through this room.
"""

from __future__ import annotations

from .binding import bind as bind
from .keys import Key as Key
from .keys import keys_of as keys_of
from .keys import read_keys as read_keys
from .registry import Registry as Registry
from .setting import REQUIRED as REQUIRED
from .setting import Fraction as Fraction
from .setting import In as In
from .setting import Pattern as Pattern
from .setting import PerModel as PerModel
from .setting import Setting as Setting
from .signature import annotation_mark as annotation_mark
from .signature import argument_help as argument_help
from .signature import check_docstring as check_docstring
from .signature import settings_of as settings_of
from .signature import summary_of as summary_of
