"""Files of low-rank factors in the forms of several libraries, recognised by the names of their tensors."""

from __future__ import annotations

from pathlib import Path

from ..errors import CheckpointError, Remedy, UnsupportedFormat
from . import formats
from ._api import Checkpoint
from ._foreign import Foreign
from .contents import inside, optional_json

_FUSE = (
    "put each into its base with diffusers, pipe.load_lora_weights(FILE); pipe.fuse_lora(); "
    "pipe.unload_lora_weights(); pipe.save_pretrained(FOLDER), then merge these folders"
)
_PEFT = Foreign(
    "PEFT",
    (
        r"\.(?:lora_(?:embedding_)?[AB]|lora_magnitude_vector|ia3_l|trainable_tokens_delta|vera_lambda_[bd])(?:\.|$)"
        r"|^base_model\.model\..*\.(?:hada_|lokr_|oft_|boft_)"
    ),
    "merge adapters with one another by `polyak lora merge`",
)
_MLX = Foreign(
    "MLX",
    r"\.lora_[ab]$",
    "python -m mlx_lm fuse --model BASE --adapter-path ADAPTER --save-path FOLDER, then merge these folders",
)
_DIALECTS = (
    Foreign("LyCORIS", r"^(?:lora|lycoris)_.*\.(?:hada_|lokr_|oft_|on_input|diff(?:_b)?$|a1\.|b1\.)", _FUSE),
    Foreign("kohya", r"^lora_.*\.(?:lora_down\.|lora_up\.|alpha$|dora_scale$)", _FUSE),
    Foreign(
        "litgpt",
        r"\.lora_[AB]$",
        "litgpt merge_lora FOLDER and litgpt convert_from_litgpt FOLDER NEW_FOLDER, then merge these folders",
    ),
    Foreign(
        "diffusers",
        (
            r"^(?:unet|transformer(?:_\d)?|text_encoder(?:_\d)?|controlnet|prior)\..*\.lora(?:_|\.)"
            r"|\.lora_linear_layer\.(?:up|down)\.|\.processor\..*_lora\.(?:up|down)\.|^diffusion_model\..*lora_"
            r"|\.lora_(?:down|up)\."
        ),
        _FUSE,
    ),
    _MLX,
    Foreign(
        "torchtune",
        r"\.lora_[ab]\.weight$",
        "let torchtune's checkpointer write the merged model (its default, besides the adapter), and merge these",
    ),
    Foreign(
        "NeMo",
        r"adapter\.(?:linear_in|linear_out)\.|\.lora_\w+_adapter\.",
        "merge it into its base with NeMo's merge_lora, export the model to Hugging Face, and merge these",
    ),
    _PEFT,  # the last, since others have tensors of its names next to their own
)


def dialect_of(opened: Checkpoint) -> tuple[Foreign, str] | None:
    """The form of some low-rank factors, and the name that shows it; None if there are none."""
    names = [*opened.specs, *opened.ties]
    return next(((dialect, name) for dialect in _DIALECTS if (name := dialect.evidence(names))), None)


def refuse_factors(opened: Checkpoint) -> Checkpoint:
    """The same checkpoint, unless it holds low-rank factors, whose averages are not those of their products.

    Raises:
        UnsupportedFormat: it does.
    """
    found = dialect_of(opened)
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
    if _factors_file(path) is None:
        for file in sorted(path.glob("*.safetensors")):
            _refuse_dialect(inside(path, file.name), path)
    if "fine_tune_type" in optional_json(path, config := "adapter_config.json"):
        raise _refusal(path, _MLX, config)
    return path


def open_factors(folder: Path) -> Checkpoint:
    """Open the tensors of a PEFT adapter.

    Raises:
        CheckpointError: there are none, or their file is damaged.
    """
    if (name := _factors_file(folder)) is None:
        saved = dict.fromkeys(path.parent.name for path in sorted(folder.glob("*/adapter_model.*")))
        remedy = f" There are adapters in {', '.join(saved)}: name one of them." if saved else ""
        raise CheckpointError(f"{folder} has neither adapter_model.safetensors nor adapter_model.bin.{remedy}")
    return formats.open_file(inside(folder, name))


def _factors_file(folder: Path) -> str | None:
    names = [f"adapter_model{suffix}" for suffix in formats.suffixes_in_folders()]
    return next((name for name in names if (folder / name).exists()), None)


def _refuse_dialect(file: Path, named: Path) -> None:
    if file.suffix not in formats.suffixes():
        return
    with formats.open_file(file) as opened:
        found = dialect_of(opened)
    if found is not None and found[0] is not _PEFT:
        raise _refusal(named, *found)


def _refusal(path: Path, dialect: Foreign, evidence: str) -> UnsupportedFormat:
    return UnsupportedFormat(
        f"{path} is an adapter in the form of {dialect.name} ({evidence!r}); polyak reads those of PEFT. Instead, "
        f"{dialect.remedy}."
    )
