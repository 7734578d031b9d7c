"""Write src/polyak/checkpoint/library_ties.json: the weights that transformers ties, read from its sources.

Run `python -m building.library_ties` with the newest transformers installed. Nothing is imported from the library but
its path: its modules are read as text, which takes seconds.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

OUT = Path(__file__).parent.parent / "src/polyak/checkpoint/library_ties.json"
_CLASS = re.compile(r"^class (?P<name>\w+)\b.*?(?=^\S|\Z)", re.MULTILINE | re.DOTALL)
_TIED = re.compile(r"^    _tied_weights_keys\b[^=\n]*= (?P<value>\{.*?\}|None)$", re.MULTILINE | re.DOTALL)
_TYPE = re.compile(r'^    model_type\b[^=\n]*= "(?P<value>[^"]+)"', re.MULTILINE)
_MAPPED = re.compile(r'"(?P<type>[^"]+)"[:,] "(?P<config>\w+Config)"')
_DEFAULT = re.compile(r"\btie_word_embeddings(?:: [\w| ]+)? = (?P<value>True|False)\b")


def library_ties() -> dict[str, Any]:
    """The library's version, its defaults of `tie_word_embeddings` by model type, and its tied weights by class."""
    spec = find_spec("transformers")
    assert spec is not None, "transformers is not installed"
    assert spec.submodule_search_locations
    models = Path(spec.submodule_search_locations[0]) / "models"
    by_class = dict(_by_class(models))
    distinct = {json.dumps(pairs, sort_keys=True): pairs for pairs in by_class.values()}
    numbers = {key: i for i, key in enumerate(distinct)}
    classes = {name: numbers[json.dumps(pairs, sort_keys=True)] for name, pairs in sorted(by_class.items())}
    return {
        "version": version("transformers"),
        "tied_by_default": dict(sorted(_defaults(models).items())),
        "pairs": list(distinct.values()),
        "classes": classes,
    }


def _defaults(models: Path) -> dict[str, bool]:
    """Defaults by the model type that a config class names, and by those that the library maps to the class."""
    by_type, by_class = dict[str, bool](), dict[str, bool]()
    for text in _classes(models, "configuration_*.py"):
        if default := _DEFAULT.search(text):
            by_class[_name(text)] = default["value"] == "True"
            if kind := _TYPE.search(text):
                by_type[kind["value"]] = default["value"] == "True"
    auto = "\n".join(path.read_text() for path in sorted((models / "auto").glob("*.py")))
    mapped = {m["type"]: by_class[m["config"]] for m in _MAPPED.finditer(auto) if m["config"] in by_class}
    return mapped | by_type


def _by_class(models: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Tied weights of each class, without those that regular expressions or modules name."""
    for text in _classes(models, "modeling_*.py"):
        if found := _TIED.search(text):
            pairs: dict[str, str] = ast.literal_eval(found["value"]) or {}
            plain = {alias: holder for alias, holder in pairs.items() if re.fullmatch(r"[\w.]+\.(weight|bias)", alias)}
            if plain:
                yield _name(text), plain


def _name(text: str) -> str:
    return text.split("(", maxsplit=1)[0].removeprefix("class ").strip(": \n")


def _classes(models: Path, pattern: str) -> Iterator[str]:
    for path in sorted(models.glob(f"*/{pattern}")):
        yield from (match[0] for match in _CLASS.finditer(path.read_text()))


if __name__ == "__main__":
    OUT.write_text(json.dumps(library_ties(), indent=1) + "\n")
