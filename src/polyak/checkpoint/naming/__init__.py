"""Stored tensors and the parameters of a running model: which is called how, and which is made of which.

transformers stores other names than its modules have, and PEFT names modules as they are at run time.
"""

from __future__ import annotations

from .._api import Checkpoint
from ..ties import config_of
from .experts import expert_weights as expert_weights
from .facts import facts_for
from .run_time import RunTime as RunTime
from .run_time import run_time
from .structure import UnknownArchitecture, architecture_of, kinds_of, parts_of, rules_of


def run_time_of(model: Checkpoint) -> RunTime | None:
    """A stored model under the names that its parameters have at run time, from its config.json and names alone.

    Returns None if it has no config.json, or its architecture is none of transformers' own.

    Raises:
        CheckpointError: its config.json cannot be read.
    """
    config = config_of(model)
    if not isinstance(config.get("model_type"), str):
        return None
    facts = facts_for(config)
    try:
        parts = list(parts_of(architecture_of(config, facts), config, facts))
    except UnknownArchitecture:
        return None
    rules = rules_of(parts, facts)
    if not all(rule.applicable for rule in rules):
        return None
    return run_time(model, rules, kinds_of(parts, facts), config["model_type"])
