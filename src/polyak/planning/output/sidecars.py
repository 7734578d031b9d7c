"""Config, tokenizer and other files of the result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...checkpoint import (
    DTYPE_NAMES,
    EMBEDDINGS,
    OWN_STEM,
    TOKENIZER_FILE,
    TOKENIZER_SETTINGS,
    Checkpoint,
    TensorSpec,
    components_of,
    files_beside,
    inside,
    models_in,
    read_json,
    stem_of,
)
from ...errors import Mismatch
from ..compatibility import Opened, read_config
from ..slices import Parts
from ..steps import Sidecars, Step
from ..tokens.embedding_tables import with_vocabulary_size
from ..tokens.vocabulary import OutputVocabulary
from .config_layers import follow_layers, other_layers
from .config_widths import follow_widths
from .ties import with_result_ties

# Files that are wrong once the tokenizer changes.
_DESCRIBE_TOKENS = (
    "tokenizer.json", "tokenizer_config.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt",
    "tokenizer.model", "spiece.model", "sentencepiece.bpe.model",
)  # fmt: skip
TOKENIZER = (
    *_DESCRIBE_TOKENS, "generation_config.json", "special_tokens_map.json", "chat_template.jinja", "chat_template.json",
)  # fmt: skip
_COPIED = (
    *TOKENIZER, "preprocessor_config.json", "processor_config.json",
    "video_preprocessor_config.json", "image_processor_config.json", "modules.json", "sentence_bert_config.json",
    "config_sentence_transformers.json",
)  # fmt: skip
_TABLES = tuple(f"{module}.weight" for module in EMBEDDINGS)


def result_sidecars(
    donor: Opened, divided: Parts, steps: Sequence[Step], vocabulary: OutputVocabulary
) -> tuple[Sidecars, list[str]]:
    """Config and files of the result, and notes on its ties, layers and code.

    Args:
        donor: The model that they are copied from.
        divided: The parts of the merge.
        steps: The steps of the merge.
        vocabulary: The vocabulary of the result.
    """
    written = [step for step in steps if step.file is None]
    if components := components_of(donor.checkpoint.folder, [step.out.name for step in written]):
        return pipeline_sidecars(donor, components, [step.out for step in written])
    side = sidecars(donor.checkpoint, donor.name, [step.out for step in written])
    config, notes = with_result_ties(side.config or {}, donor, divided, written)
    side = replace(side, config=config if side.config is not None else None)
    if side.config is not None and (layers := other_layers(divided, donor, [step.out.name for step in written])):
        config, more = follow_layers(side.config, layers, donor)
        side = replace(side, config=config)
        notes += more
    if side.config is not None:
        config, more = follow_widths(side.config, divided, donor, written)
        side = replace(side, config=config)
        notes += more
    side = _with_vocabulary(side, vocabulary)
    notes += vocabulary.notes
    if side.code:
        notes.append(f"copied from {donor.name} and never run: {', '.join(side.code)}.")
    return side, notes


def _with_vocabulary(side: Sidecars, vocabulary: OutputVocabulary) -> Sidecars:
    """The files with the tokenizer of the result, and a config updated for it."""
    giver = vocabulary.donor
    config = side.config
    if config is not None:
        own = giver.config if giver.name != side.donor else {}
        ids = {key: value for key, value in own.items() if key.endswith("_token_id") and key in config}
        config = {**with_vocabulary_size(config, *vocabulary.sizes), **ids} if vocabulary.sizes[0] else config
    copied, written = list(side.copied), dict(side.written)
    if giver.name != side.donor and giver.checkpoint.folder is not None:
        copied = [path for path in copied if path.name not in TOKENIZER]
        copied += [path for path in _files(giver.checkpoint.folder) if path.name in TOKENIZER]
    if vocabulary.tokenizer is not None:
        copied = [path for path in copied if path.name not in _DESCRIBE_TOKENS]
        written[TOKENIZER_FILE] = vocabulary.tokenizer.data
        if vocabulary.tokenizer.settings:
            written[TOKENIZER_SETTINGS] = vocabulary.tokenizer.settings
    return replace(side, config=config, copied=tuple(copied), written=written)


def pipeline_sidecars(
    donor: Opened, components: Sequence[Path], specs: Sequence[TensorSpec]
) -> tuple[Sidecars, list[str]]:
    """The files of a pipeline other than the tensors of its models, with notes.

    Raises:
        Mismatch: a model of the pipeline would have no weights.
    """
    folder = donor.checkpoint.folder
    assert folder is not None
    if lacking := [path.name for path in models_in(folder) if path not in components]:
        raise Mismatch(
            f"no weights are left of {', '.join(lacking)}, which the pipeline of {donor.name} needs: with a `base:`, "
            "tensors that `skip:` matches keep the base's weights."
        )
    written, stems = dict[str, Any](), dict[str, str]()
    for path in components:
        config = read_json(inside(folder, f"{path.name}/config.json")) if (path / "config.json").exists() else {}
        own = [spec for spec in specs if spec.name.startswith(f"{path.name}/")]
        stems[path.name] = stem_of(config)
        written |= {f"{path.name}/config.json": follow(config, own)} if config else {}
    placed = {name: inside(folder, name) for name in files_beside(folder)}
    side = Sidecars(donor=donor.name, written=written, placed=placed, stems=stems)
    note = f"copied from {donor.name} and never run: {', '.join(side.code)}."
    return side, [note] if side.code else []


def sidecars(donor: Checkpoint, name: str, specs: Iterable[TensorSpec]) -> Sidecars:
    """Config and tokenizer files of one model, with the config updated for the tensors of the result.

    Args:
        donor: The model that they are copied from.
        name: Its name in the recipe.
        specs: The tensors of the result.
    """
    config = read_config(donor)
    if donor.folder is None or config is None:
        return Sidecars(donor=name)
    return Sidecars(follow(config, list(specs)), tuple(_files(donor.folder)), name)


def _files(folder: Path) -> list[Path]:
    named = [folder / name for name in _COPIED if (folder / name).is_file()]
    templates = folder / "additional_chat_templates"
    code = sorted(folder.glob("*.py"))
    return [*named, *(sorted(templates.glob("*.jinja")) if templates.is_dir() else []), *code]


def follow(config: Mapping[str, Any], specs: list[TensorSpec]) -> dict[str, Any]:
    """The config with dtype and vocabulary size updated for the tensors."""
    followed = dict(config)
    if (dtype := _dtype_name(specs)) and stem_of(config) != OWN_STEM:  # to diffusers it is an unknown setting
        followed["torch_dtype" if "torch_dtype" in config and "dtype" not in config else "dtype"] = dtype
    rows = {spec.shape[0] for spec in specs if spec.name.endswith(_TABLES) and len(spec.shape) == 2}
    if "vocab_size" in config and len(rows) == 1:
        followed["vocab_size"] = rows.pop()
    return followed


def _dtype_name(specs: list[TensorSpec]) -> str | None:
    """The dtype that takes the largest part of the result, by its name in PyTorch."""
    nbytes: dict[str, int] = {}
    for spec in specs:
        if spec.dtype.floating:
            nbytes[spec.dtype.name] = nbytes.get(spec.dtype.name, 0) + spec.nbytes
    names = {dtype.name: name for name, dtype in DTYPE_NAMES.items()}
    return names.get(max(nbytes, key=lambda k: nbytes[k])) if nbytes else None
