"""The engine: carries out plans, in bounded memory, with the same bytes for any number of workers.

Four ways in: `run` merges into a folder, `run_in_memory` returns arrays, `stream` hands on tensor after tensor, and a
`Session` merges many plans of the same models. Everything else here is what these take and return.
"""

from __future__ import annotations

from .deltas import deltas as deltas
from .in_memory import run_in_memory as run_in_memory
from .into_folder import Report as Report
from .into_folder import refuse_inputs as refuse_inputs
from .into_folder import run as run
from .nested import Readers as Readers
from .nested import opened as opened
from .output.provenance import PROVENANCE as PROVENANCE
from .session.models import OpenModels as OpenModels
from .session.session import Session as Session
from .step.buffers import Buffers as Buffers
from .step.device import device_of as device_of
from .step.inputs import Loaded as Loaded
from .step.inputs import load as load
from .step.masks import without_masks as without_masks
from .step.sink import Sink as Sink
from .streaming import stream as stream
