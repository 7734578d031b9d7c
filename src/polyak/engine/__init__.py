"""The engine: carries out plans, in bounded memory, with the same bytes whatever the workers."""

from .memory import run_in_memory as run_in_memory
from .run import Progress as Progress
from .run import Report as Report
from .run import run as run
