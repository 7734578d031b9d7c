"""Durable files and folders: atomic writes, locked staging folders with a journal, digests."""

from __future__ import annotations

from .digest import ALGORITHMS as ALGORITHMS
from .digest import LEAF_NBYTES as LEAF_NBYTES
from .digest import Leaves as Leaves
from .digest import Unhashed as Unhashed
from .digest import model_digest as model_digest
from .digest import new_hash as new_hash
from .digest import of_small as of_small
from .digest import root as root
