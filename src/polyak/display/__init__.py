"""Output for people: progress, sizes, names in natural order, HTML tables."""

from __future__ import annotations

from .html import fields as fields
from .html import table as table
from .progress import JsonLines as JsonLines
from .progress import watcher_for as watcher_for
from .text import columns as columns
from .text import human_size as human_size
from .text import natural_key as natural_key
from .text import printable as printable
from .text import shown as shown
