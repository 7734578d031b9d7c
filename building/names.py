"""Write the snapshot of transformers' name rules and module structure that polyak ships: `python -m building.names`.

It holds facts alone: rename patterns, the classes nested in each model class, and the kinds of their parameters. Run it
in an environment with torch and the version of transformers that the snapshot is to describe; it takes minutes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from polyak.checkpoint.naming.library import read_bases, read_classes, read_rules, small
from polyak.checkpoint.naming.structure import Facts

ROOT = Path(__file__).resolve().parents[1]
SNAPSHOT = ROOT / "src/polyak/checkpoint/naming/snapshot.json"


def main() -> None:
    """Write the snapshot."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    facts = Facts(transformers.__version__, read_rules(), bases=read_bases())
    failed = [name for name in dict.fromkeys(_classes()) if not added(name, facts)]
    write(facts, SNAPSHOT)
    print(
        f"{len(facts.classes)} classes; {len(failed)} cannot be made from a default configuration: {', '.join(failed)}"
    )


def _classes() -> Iterator[str]:
    """The names of the model classes that transformers' automatic classes can make."""
    from transformers.models.auto import modeling_auto

    for table, by_type in vars(modeling_auto).items():
        if table.endswith("_MAPPING_NAMES"):
            for names in by_type.values():
                for name in [names] if isinstance(names, str) else names:
                    if not name.endswith("Config"):
                        yield name


def added(name: str, facts: Facts) -> bool:
    """Add a class and those nested in it, made from its default configuration; False if that fails."""
    import transformers

    for prepare in (small, lambda config: config, filled):
        try:
            config: Any = getattr(transformers, name).config_class
            read_classes(name, prepare(config()), facts)
            return True
        except Exception:
            continue
    return False


def filled(config: Any) -> Any:
    """The same configuration with small numbers where it needs some and has none by default."""
    numbers = {"vocab_size": 64, "head_dim": 8, "num_key_value_heads": getattr(config, "num_attention_heads", 2)}
    for key, value in list(vars(config).items()):
        if value is None and key in numbers:
            setattr(config, key, numbers[key])
        elif hasattr(value, "model_type"):
            filled(value)
    return small(config)


def write(facts: Facts, path: Path) -> None:
    """Write facts as JSON, one class or rule per line."""
    parts = [f'"version": {json.dumps(facts.version)}']
    for name in ("bases", "rules", "classes"):
        entries = sorted(getattr(facts, name).items())
        lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in entries)
        parts.append(f'"{name}": {{\n{lines}\n}}')
    path.write_text("{" + ",\n".join(parts) + "}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
