"""Strict reading of plain data: YAML and JSON, with unknown keys refused and errors that locate the value."""

from .scalars import resolve_scalar as resolve_scalar
from .strict import LARGEST_INTEGER as LARGEST_INTEGER
from .strict import Place as Place
from .strict import Read as Read
from .strict import Table as Table
from .strict import boolean as boolean
from .strict import each as each
from .strict import integer as integer
from .strict import is_list as is_list
from .strict import is_mapping as is_mapping
from .strict import is_small as is_small
from .strict import mapping as mapping
from .strict import number as number
from .strict import one_of as one_of
from .strict import pattern as pattern
from .strict import patterns as patterns
from .strict import positive as positive
from .strict import problem_with_pattern as problem_with_pattern
from .strict import text as text
from .yaml import parse_documents as parse_documents
from .yaml import parse_yaml as parse_yaml
from .yaml import read_documents as read_documents
from .yaml import read_file as read_file
from .yaml import write_yaml as write_yaml
