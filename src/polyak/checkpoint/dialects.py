"""Files of low-rank factors in the forms of several libraries, recognised by the names of their tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckpointError, Remedy, UnsupportedFormat
from . import formats
from ._api import Checkpoint
from .contents import inside, read_json


@dataclass(frozen=True)
class Dialect:
    """The form in which a library stores factors.

    Attributes:
        name: The library.
        names: Pattern for the names of its tensors.
        remedy: Turns them into a model that can be merged, or an adapter that can be read.
    """

    name: str
    names: re.Pattern[str]
    remedy: str


_FUSE = (
    "put each into its base with diffusers, pipe.load_lora_weights(FILE); pipe.fuse_lora(); "
    "pipe.unload_lora_weights(); pipe.save_pretrained(FOLDER), then merge these folders"
)
_PEFT = Dialect(
    "PEFT",
    re.compile(
        r"\.(?:lora_(?:embedding_)?[AB]|lora_magnitude_vector|ia3_l|trainable_tokens_delta|vera_lambda_[bd])(?:\.|$)"
        r"|^base_model\.model\..*\.(?:hada_|lokr_|oft_|boft_)"
    ),
    "merge adapters with one another by `polyak lora merge`",
)
_DIALECTS = (
    Dialect(
        "LyCORIS", re.compile(r"^(?:lora|lycoris)_.*\.(?:hada_|lokr_|oft_|on_input|diff(?:_b)?$|a1\.|b1\.)"), _FUSE
    ),
    Dialect("kohya", re.compile(r"^lora_.*\.(?:lora_down\.|lora_up\.|alpha$|dora_scale$)"), _FUSE),
    Dialect(
        "diffusers",
        re.compile(
            r"^(?:unet|transformer(?:_\d)?|text_encoder(?:_\d)?|controlnet|prior)\..*\.lora(?:_|\.)"
            r"|\.lora_linear_layer\.(?:up|down)\.|\.processor\..*_lora\.(?:up|down)\.|^diffusion_model\..*lora_"
            r"|\.lora_(?:down|up)\."
        ),
        _FUSE,
    ),
    Dialect(
        "MLX",
        re.compile(r"\.lora_[ab]$"),
        "python -m mlx_lm fuse --model BASE --adapter-path ADAPTER --save-path FOLDER, then merge these folders",
    ),
    Dialect(
        "torchtune",
        re.compile(r"\.lora_[ab]\.weight$"),
        "let torchtune's checkpointer write the merged model (its default, besides the adapter), and merge these",
    ),
    Dialect(
        "NeMo",
        re.compile(r"adapter\.(?:linear_in|linear_out)\.|\.lora_\w+_adapter\."),
        "merge it into its base with NeMo's merge_lora, export the model to Hugging Face, and merge these",
    ),
    _PEFT,
)


def dialect_of(names: Iterable[str]) -> tuple[Dialect, str] | None:
    """The form of some low-rank factors, and the name that shows it; None if there are none."""
    first: tuple[Dialect, str] | None = None
    for name in names:
        for dialect in _DIALECTS:
            if dialect.names.search(name):
                if dialect is not _PEFT:
                    return dialect, name
                first = first or (dialect, name)
    return first


def refuse_factors(opened: Checkpoint) -> Checkpoint:
    """The same checkpoint, unless it holds low-rank factors, whose averages are not those of their products.

    Raises:
        UnsupportedFormat: it does.
    """
    found = dialect_of([*opened.specs, *opened.ties])
    if found is None:
        return opened
    dialect, name = found
    raise UnsupportedFormat(
        f"{opened.label} holds LoRA factors in the form of {dialect.name} ({name!r}), not the weights of a model: the "
        f"mean of factors is not the mean of their products. Instead, {dialect.remedy}.",
        remedies=[Remedy.LORA] if dialect is _PEFT else [],
    )


def adapter_folder(path: Path) -> Path:
    """The path, if it is the folder of a PEFT adapter.

    Raises:
        UnsupportedFormat: it is an adapter of another library.
        CheckpointError: it is no folder.
    """
    if path.is_file():
        _refuse_dialect(path, path)
        raise CheckpointError(f"{path} is a file: name the folder that PEFT's save_pretrained wrote.")
    if not path.is_dir():
        raise CheckpointError(f"{path} is no adapter folder: it does not exist.")
    if not (path / "adapter_model.safetensors").exists() and not (path / "adapter_model.bin").exists():
        for file in sorted(path.glob("*.safetensors")):
            _refuse_dialect(inside(path, file.name), path)
    config = path / "adapter_config.json"
    if config.is_file() and "fine_tune_type" in read_json(inside(path, config.name)):
        raise _refusal(path, next(dialect for dialect in _DIALECTS if dialect.name == "MLX"), config.name)
    return path


def _refuse_dialect(file: Path, named: Path) -> None:
    if file.suffix not in formats.suffixes():
        return
    with formats.open_file(file) as opened:
        found = dialect_of([*opened.specs, *opened.ties])
    if found is not None and found[0] is not _PEFT:
        raise _refusal(named, *found)


def _refusal(path: Path, dialect: Dialect, evidence: str) -> UnsupportedFormat:
    return UnsupportedFormat(
        f"{path} is an adapter in the form of {dialect.name} ({evidence!r}); polyak reads those of PEFT. Instead, "
        f"{dialect.remedy}."
    )
