"""Tied tensors, decided in one place: by shared storage, by the config with the library's defaults, and by names.

`library_ties.json` lists what transformers ties by class, and its defaults of `tie_word_embeddings` by model type;
`python -m building.library_ties` writes it. Model types that it lacks are asked of a newer transformers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from ._api import Checkpoint
from ._newer import is_newer
from .contents import optional_json

HEAD = re.compile(r"(?:^|\.)(?:lm_head|embed_out|output|decoder)\.weight$")
EMBEDDINGS = ("embed_tokens", "word_embeddings", "wte", "embed_in", "shared")  # modules of token embeddings
# Other modules whose names end in `embeddings` may embed something else, such as positions.
EMBEDDING = rf"(?:{'|'.join(EMBEDDINGS)}|embeddings?)\.weight$"
NO_TOKENS = re.compile(r"position|token_type|type_embed|segment|patch|relative|class_|time_|label")
_EMBEDDING = re.compile(rf"{EMBEDDING}|(?:tok_embeddings|tokens_embed|word_embedding)\.weight$")
_KEY = "tie_word_embeddings"
_TEXT = ("text_config", "llm_config", "language_config", "thinker_config", "decoder")  # configs of a model's decoder
_COMMON = ("LlamaForCausalLM", "GPT2LMHeadModel", "GPTNeoXForCausalLM", "BloomForCausalLM", "MambaForCausalLM")


def config_of(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """config.json in the folder of a checkpoint; empty if there is none.

    Raises:
        CheckpointError: it is damaged.
    """
    return {} if checkpoint.folder is None else optional_json(checkpoint.folder, "config.json")


def ties_embeddings(config: Mapping[str, Any]) -> bool:
    """True if a config ties the output head to the token embedding, by itself or by the library's default."""
    parts = [config, *_text_parts(config)]
    stated = [part[_KEY] for part in parts if isinstance(part.get(_KEY), bool)]
    if stated:
        return any(stated)
    defaults = (_default(kind) for part in parts if isinstance(kind := part.get("model_type"), str))
    return next((default for default in defaults if default is not None), False)


def with_ties(config: Mapping[str, Any], *, tied: bool) -> dict[str, Any]:
    """A config that ties the output head to the token embedding, or does not, at every place that may say so."""
    changed = {**config, _KEY: tied}
    for key in _TEXT:
        part = config.get(key)
        if isinstance(part, Mapping):
            inner = cast("Mapping[str, Any]", part)
            if _KEY in inner or ties_embeddings(inner) != tied:
                changed[key] = with_ties(inner, tied=tied)
    return changed


def holder_of(name: str, checkpoint: Checkpoint, config: Mapping[str, Any]) -> str | None:
    """The stored tensor from which a tensor that is not stored takes its values, or None."""
    if name in checkpoint.ties:
        return checkpoint.ties[name]
    for partner in _partners(name):
        if partner in checkpoint.specs and (_is_always_tied(name, partner) or ties_embeddings(config)):
            return partner
    return token_embedding(checkpoint, config) if HEAD.search(name) and ties_embeddings(config) else None


def token_embedding(checkpoint: Checkpoint, config: Mapping[str, Any]) -> str | None:
    """The table of token embeddings: of those with the vocabulary's size, the largest; never a table of positions."""
    tables = [
        spec
        for name, spec in checkpoint.specs.items()
        if len(spec.shape) == 2 and _EMBEDDING.search(name) and not NO_TOKENS.search(name)
    ]
    sizes = {part.get("vocab_size") for part in [config, *_text_parts(config)]}
    tables = [spec for spec in tables if spec.shape[0] in sizes] or tables
    return max(tables, key=lambda spec: spec.numel).name if tables else None


def left_out(checkpoint: Checkpoint, config: Mapping[str, Any]) -> dict[str, str]:
    """Tied tensors that a checkpoint leaves out, each with the stored tensor that has its values.

    Only the names that the library's class for this config has are listed: an encoder has no head to leave out.
    """
    return {
        alias: holder
        for alias, holder in declared(checkpoint.specs, config).items()
        if holder in checkpoint.specs and alias not in checkpoint.specs and alias not in checkpoint.ties
    }


def declared(names: Iterable[str], config: Mapping[str, Any]) -> dict[str, str]:
    """Pairs of tensors that a config ties: names of the library's class, each with its holder among `names`.

    The name itself may be among `names` too, or not.
    """
    stored, is_tied = list(names), ties_embeddings(config)
    for pairs in _candidates(config):
        found = {
            f"{prefix}{alias}": f"{prefix}{holder}"
            for alias, holder in pairs.items()
            if is_tied or _is_always_tied(alias, holder)
            for prefix in _prefixes(stored, holder)
        }
        if found:
            return found
    return {}


def _candidates(config: Mapping[str, Any]) -> Iterator[Mapping[str, str]]:
    """The pairs of the class that a config names; then those of common classes, whose names a file may have instead."""
    table = _table()
    named: Any = config.get("architectures")
    architectures = [
        name for name in cast("list[Any]", named if isinstance(named, list) else []) if isinstance(name, str)
    ]
    own = [table["pairs"][table["classes"][name]] for name in architectures if name in table["classes"]]
    yield from own
    if any(HEAD.search(alias) for pairs in own for alias in pairs) or not architectures or _is_causal(architectures):
        yield from (table["pairs"][table["classes"][name]] for name in _COMMON)


def _is_causal(architectures: Iterable[str]) -> bool:
    return any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in architectures)


def _prefixes(names: Iterable[str], ending: str) -> Iterator[str]:
    for name in names:
        prefix = name.removesuffix(ending)
        if prefix != name and (not prefix or prefix.endswith(".")):
            yield prefix


def _text_parts(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    parts = [cast("Mapping[str, Any]", config[key]) for key in _TEXT if isinstance(config.get(key), Mapping)]
    return [part for outer in parts for part in (outer, *_text_parts(outer))]


def _is_always_tied(name: str, other: str) -> bool:
    """Copies of an embedding, and biases, have no values of their own in any config; heads may have."""
    return all(_EMBEDDING.search(each) or each.endswith(".bias") for each in (name, other))


def _partners(name: str) -> Iterator[str]:
    """Names that the library may tie to a tensor, under the same prefix."""
    groups, parts = _groups(), name.split(".")
    for i in range(len(parts)):
        prefix = "".join(f"{part}." for part in parts[:i])
        yield from (prefix + partner for partner in groups.get(".".join(parts[i:]), ()))


@lru_cache(maxsize=1)
def _groups() -> Mapping[str, tuple[str, ...]]:
    """For each name that some class ties: its holders, then what it holds, then what its holders hold as well."""
    holders, held = dict[str, dict[str, None]](), dict[str, dict[str, None]]()
    for pairs in _table()["pairs"]:
        for alias, holder in pairs.items():
            holders.setdefault(alias, {})[holder] = None
            held.setdefault(holder, {})[alias] = None
    siblings = {
        name: [other for holder in of for other in held[holder] if other != name and holder.startswith("shared")]
        for name, of in holders.items()
    }
    return {
        name: tuple(dict.fromkeys([*holders.get(name, {}), *held.get(name, {}), *siblings.get(name, [])]))
        for name in [*holders, *held]
    }


@lru_cache(maxsize=1)
def _table() -> Any:
    return json.loads((Path(__file__).parent / "library_ties.json").read_text())


@lru_cache(maxsize=256)
def _default(model_type: str) -> bool | None:
    """The default of `tie_word_embeddings` of a model type, or None if it has none."""
    table: Mapping[str, bool] = _table()["tied_by_default"]
    if model_type in table or not is_newer("transformers", _table()["version"]):
        return table.get(model_type)
    try:
        configs: Any = import_module("transformers").CONFIG_MAPPING
        default = getattr(configs[model_type], _KEY, None)
    except Exception:  # an installed library may be broken in any way, and tells nothing then
        return None
    return default if isinstance(default, bool) else None
