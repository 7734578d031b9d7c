"""Runs: long jobs in a folder, made of units that are never done twice.

A run is a list of stages, each of which is a list of units. A unit is a pure function of the run's recipe and of the
results of earlier stages: so units of a stage run in parallel, and a run that was killed continues to the same bytes.

    OUT/
        run.json         recipe, seeds, digests of data and models, versions
        recipe.yaml      the recipe with all defaults
        journal.jsonl    finished units and their results; every line has a checksum
        log.jsonl        events, with their time
        metrics.jsonl    numbers that units have measured, one line per measurement, in the order of the units
        units/NAME/      what a unit wrote
        unfinished/NAME/ what a unit is writing now
        report.html

`run(stages, out, about=...)` carries a run out; `LocalProcesses` is the executor on this machine.
"""

from __future__ import annotations

from ._desk import METRICS as METRICS
from ._desk import Desk as Desk
from ._executor import Call as Call
from ._executor import Executor as Executor
from ._executor import Outcome as Outcome
from ._executor import UnitFailed as UnitFailed
from ._folder import UNITS as UNITS
from ._folder import RunFolder as RunFolder
from ._folder import results_in as results_in
from ._local import LocalProcesses as LocalProcesses
from ._running import run as run
from ._units import About as About
from ._units import Results as Results
from ._units import Stage as Stage
from ._units import Unit as Unit
