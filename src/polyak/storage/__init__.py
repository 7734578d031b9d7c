"""Durable files and folders: atomic writes, locked staging folders with a journal, digests; on every system."""

from __future__ import annotations

from .digest import ALGORITHMS as ALGORITHMS
from .digest import LEAF_NBYTES as LEAF_NBYTES
from .digest import Leaves as Leaves
from .digest import Unhashed as Unhashed
from .digest import model_digest as model_digest
from .digest import of_small as of_small
from .digest import root as root
from .files import exchange as exchange
from .files import open_for_writing as open_for_writing
from .files import read_at as read_at
from .files import read_into as read_into
from .files import sync_data as sync_data
from .files import sync_file as sync_file
from .files import sync_folder as sync_folder
from .files import write_at as write_at
from .files import write_text as write_text
from .files import write_whole as write_whole
from .files import writing as writing
from .handles import Handle as Handle
from .journal import Journal as Journal
from .journal import read_journal as read_journal
from .json_text import as_json as as_json
from .json_text import is_deeper as is_deeper
from .locks import Lock as Lock
from .locks import locked as locked
from .machine import available_memory as available_memory
from .machine import cpu_count as cpu_count
from .own import check_own as check_own
from .own import claim as claim
from .own import remove_own as remove_own
from .regular import MAX_COPIED_NBYTES as MAX_COPIED_NBYTES
from .regular import copy_regular as copy_regular
from .regular import open_regular as open_regular
from .regular import read_regular as read_regular
from .regular import regular_file as regular_file
from .staging import Draft as Draft
from .staging import drafted as drafted
from .staging import followed as followed
