"""Config, tokenizer and other files of the result."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...checkpoint import (
    DTYPE_NAMES,
    EMBEDDINGS,
    LIBRARY_FILES,
    TOKENIZER_FILE,
    TOKENIZER_SETTINGS,
    Carried,
    Checkpoint,
    TensorSpec,
    carried,
    component_of,
    components_in,
    left_out_note,
    library_of,
    optional_json,
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
from .modules import with_modules
from .ties import with_result_ties

# Files that are wrong once the tokenizer changes.
_DESCRIBE_TOKENS = re.compile(
    r"(tokenizer|tokenizer_config|added_tokens|vocab|vocab-src|vocab-tgt|source_vocab|target_vocab|tekken)\.json"
    r"|(vocab|merges|dict|emoji)\.txt|vocab\.\w+|bpe\.codes|[\w.-]+\.tiktoken|[\w.-]+\.spm"
    r"|(tokenizer|tiktoken|spiece|spm|sentencepiece|[\w.-]*\bbpe)[\w.-]*\.model|prophetnet\.tokenizer"
)
# Those, and others that go with the tokenizer.
_TOKENIZER = re.compile(
    rf"{_DESCRIBE_TOKENS.pattern}|(generation_config|special_tokens_map|chat_template)\.json|chat_template\.jinja"
    r"|additional_chat_templates/.*"
)
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
    side = files_of(donor, [step.out for step in written])
    notes = list[str]()
    if "" in side.stems or not side.stems:
        side, notes = _of_model(
            side, donor, divided, [step for step in written if not _component(side, step)], vocabulary
        )
    side, more = with_modules(side, donor, [model for part in divided.parts for model in part.whole])
    notes += more
    notes += left_out_note(donor.name, side.left_out)
    if side.code:
        notes.append(f"copied from {donor.name} and never run: {', '.join(side.code)}.")
    return side, notes


def _component(side: Sidecars, step: Step) -> str:
    return component_of(step.out.name, side.stems)


def _of_model(
    side: Sidecars, donor: Opened, divided: Parts, written: Sequence[Step], vocabulary: OutputVocabulary
) -> tuple[Sidecars, list[str]]:
    """The config of the model in the folder itself, and its tokenizer."""
    names = [step.out.name for step in written]
    config = read_config(donor.checkpoint)
    ties, notes = with_result_ties(config or {}, donor, divided, written)
    if config is not None:
        config = follow(ties, [step.out for step in written])
        if layers := other_layers(divided, donor, names):
            config, more = follow_layers(config, layers, donor)
            notes += more
        config, more = follow_widths(config, divided, donor, written)
        notes += more
    side = _with_vocabulary(replace(side, config=config), vocabulary)
    notes += vocabulary.notes
    return side, notes


def _with_vocabulary(side: Sidecars, vocabulary: OutputVocabulary) -> Sidecars:
    """The files with the tokenizer of the result, and a config updated for it."""
    giver = vocabulary.donor
    config = side.config
    if config is not None:
        own = giver.config if giver.name != side.donor else {}
        ids = {key: value for key, value in own.items() if key.endswith("_token_id") and key in config}
        config = {**with_vocabulary_size(config, *vocabulary.sizes), **ids} if vocabulary.sizes[0] else config
    files, written = dict(side.files), dict(side.written)
    if giver.name != side.donor and giver.checkpoint.folder is not None:
        files = {name: path for name, path in files.items() if not _TOKENIZER.fullmatch(name)}
        own_files = _carried(giver.checkpoint, components_in(giver.checkpoint.folder)).files
        files |= {name: path for name, path in own_files.items() if _TOKENIZER.fullmatch(name)}
    if vocabulary.tokenizer is not None:
        stale = [name for name in files if _DESCRIBE_TOKENS.fullmatch(name)]
        files = {name: path for name, path in files.items() if name not in stale}
        written[TOKENIZER_FILE] = vocabulary.tokenizer.data
        if vocabulary.tokenizer.settings:
            written[TOKENIZER_SETTINGS] = vocabulary.tokenizer.settings
        if stale := [name for name in stale if name not in written]:
            side = replace(side, left_out={**side.left_out, "of another vocabulary": stale})
    return replace(side, config=config, files=files, written=written)


def files_of(donor: Opened, specs: Sequence[TensorSpec]) -> Sidecars:
    """The files of the donor that the result takes along, and the config of each further model in its folder.

    Raises:
        Mismatch: a model in the folder would have no weights.
    """
    folder = donor.checkpoint.folder
    if folder is None:
        return Sidecars(donor=donor.name)
    components = _components(donor.checkpoint, folder)
    own = _by_component(donor, components, specs)
    written, stems = dict[str, Any](), dict[str, str]()
    for component in components:
        path = f"{component}/config.json"
        config = optional_json(folder, path)
        stems[component] = stem_of(config)
        written |= {path: _follow_in_part(config, own[component])} if config else {}
    stem = _own_stem(donor.checkpoint, folder)
    if "" in own and (stems or stem):
        stems[""] = stem or stem_of(read_config(donor.checkpoint) or {})
    taken = _carried(donor.checkpoint, list(own))
    return Sidecars(files=taken.files, donor=donor.name, written=written, stems=stems, left_out=taken.left_out)


def _by_component(donor: Opened, components: Sequence[str], specs: Sequence[TensorSpec]) -> dict[str, list[TensorSpec]]:
    """The tensors of the result, by the folder of the donor's model that they belong to; "" is the folder itself."""
    own = {component: list[TensorSpec]() for component in components}
    if components and any(component_of(name, components) == "" for name in donor.checkpoint.specs):
        own[""] = []
    for spec in specs:
        own.setdefault(component_of(spec.name, components), []).append(spec)
    if lacking := [component or "the folder itself" for component, its in own.items() if not its]:
        raise Mismatch(
            f"no weights are left of {', '.join(lacking)}, which {donor.name} needs: with a `base:`, tensors that "
            "`skip:` matches keep the base's weights."
        )
    return own


def _components(donor: Checkpoint, folder: Path) -> list[str]:
    """The folders of the models that a checkpoint consists of; none if its tensors have other names."""
    components = components_in(folder)
    present = {component_of(name, components) for name in donor.specs}
    return [component for component in components if component in present]


def _follow_in_part(config: Mapping[str, Any], specs: list[TensorSpec]) -> dict[str, Any]:
    """As `follow`, for a model in a folder below: a module of another library may know no dtype."""
    of_transformers = any(key in config for key in ("model_type", "architectures", "dtype", "torch_dtype"))
    return follow(config, specs) if of_transformers else dict(config)


def _own_stem(donor: Checkpoint, folder: Path) -> str:
    """Beginning of the names of weight files in libraries that have one of their own; else empty."""
    if Path(donor.label).is_file():
        return ""
    files = [stamp.path.name for stamp in donor.stamps if stamp.path.parent == folder]
    return next((LIBRARY_FILES[name] for name in files if name in LIBRARY_FILES), "")


def _carried(donor: Checkpoint, models: Sequence[str]) -> Carried:
    """The other files of its folder; none for a single file, whose folder may hold anything."""
    folder = donor.folder
    assert folder is not None
    if Path(donor.label).is_file() and not (folder / "config.json").is_file():
        return Carried()
    return carried(folder, models, [stamp.path for stamp in donor.stamps])


def follow(config: Mapping[str, Any], specs: list[TensorSpec]) -> dict[str, Any]:
    """The config with dtype and vocabulary size updated for the tensors."""
    followed = dict(config)
    # To diffusers and timm a dtype is an unknown setting.
    if library_of(config) == "transformers" and (dtype := _dtype_name(specs)):
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
