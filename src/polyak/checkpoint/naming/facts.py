"""Facts about model classes: the snapshot that polyak ships, or those of a newer transformers that is installed."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from .._newer import is_newer
from .structure import Config, Facts

SNAPSHOT = "snapshot.json"


@lru_cache(maxsize=1)
def snapshot() -> Facts:
    """The facts that polyak ships, of the version of transformers that `Facts.version` names."""
    data: dict[str, Any] = json.loads(Path(__file__).with_name(SNAPSHOT).read_bytes())
    return Facts(**data)


def facts_for(config: Config) -> Facts:
    """The facts to use for a model: the snapshot unless a newer transformers is installed, whose own are read then.

    Reading them imports torch and transformers, which takes seconds; the snapshot holds the same facts of its version.
    """
    shipped = snapshot()
    if not is_newer("transformers", shipped.version):
        return shipped
    return _installed(json.dumps(dict(config))) or shipped


@lru_cache(maxsize=8)  # every model of a merge has the same config, and every adapter asks for its base's
def _installed(config_json: str) -> Facts | None:
    """Facts of the installed library about one model; None if it cannot tell, such as without torch."""
    from .library import read_bases, read_classes, read_rules

    config: Config = json.loads(config_json)
    try:
        from transformers import AutoConfig, __version__

        facts = Facts(__version__, read_rules(), bases=read_bases())
        settings = {key: value for key, value in config.items() if key not in ("model_type", "auto_map")}
        typed: Any = AutoConfig.for_model(config["model_type"], **settings)
        names = config.get("architectures") or [facts.bases[config["model_type"]]]
        read_classes(str(names[0]), typed, facts)
    except Exception:
        return None
    return facts
