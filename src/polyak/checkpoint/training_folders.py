"""Folders that training frameworks write, recognised by their files and named with the tool that converts them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import UnsupportedFormat
from ._foreign import Foreign


@dataclass(frozen=True)
class _Training(Foreign):
    """The checkpoint of a training framework, named with an article; {folder} in `remedy` is its path.

    Attributes:
        beside_models: True if such files also lie next to a model.
        parts: Pattern for its files that hold a part of a model, or nothing of it, and no whole one.
    """

    beside_models: bool = False
    parts: re.Pattern[str] | None = None


_FRAMEWORKS = (
    _Training(
        "a checkpoint of verl",
        re.compile(r"^(?:model|optim|extra_state)_world_size_\d+_rank_\d+\.pt$|^fsdp_config\.json$|^actor$"),
        "python -m verl.model_merger merge --backend fsdp --local_dir {folder} --target_dir NEW_FOLDER "
        "(--local_dir is the folder `actor` of a step)",
        parts=re.compile(r"^(?:model|optim|extra_state)_world_size_\d+_rank_\d+\.pt$"),
    ),
    _Training(
        "a Megatron checkpoint",
        re.compile(
            r"^latest_checkpointed_iteration\.txt$|^iter_\d+$|^mp_rank_\d+(?:_\d+)?$|^model_optim_rng\.pt$|^common\.pt$"
        ),
        "AutoBridge of Megatron Bridge (bridge.export_ckpt), or tools/checkpoint/convert.py of Megatron-LM, writes a "
        "Hugging Face folder from {folder}",
    ),
    _Training(
        "a NeMo checkpoint",
        re.compile(r"\.nemo$|^model_weights$"),
        "nemo.collections.llm.export_ckpt(path={folder!r}, target='hf', output_path=...) of NeMo",
    ),
    _Training(
        "a DeepSpeed checkpoint",
        re.compile(
            r"^zero_to_fp32\.py$|^global_step\d+$|^(?:bf16_)?zero_pp_rank_.*\.pt$|^mp_rank_\d+_model_states\.pt$"
        ),
        "python -m deepspeed.utils.zero_to_fp32 {folder} NEW_FOLDER (name the folder that holds `latest`)",
        parts=re.compile(r"^(?:bf16_)?zero_pp_rank_.*\.pt$"),
    ),
    _Training(
        "an FSDP checkpoint of accelerate",
        re.compile(r"^pytorch_model_fsdp_\d+$"),
        "accelerate merge-weights {folder}/pytorch_model_fsdp_0 NEW_FOLDER",
    ),
    _Training(
        "a distributed checkpoint",
        re.compile(r"^\.metadata$|\.distcp$"),
        "python -m torch.distributed.checkpoint.format_utils dcp_to_torch {folder} pytorch_model.bin",
    ),
    _Training(
        "the state of an optimizer",
        re.compile(
            r"^(?:optimizer|master_weights)(?:_\d+)?(?:-\d+-of-\d+)?\.(?:pt|bin|safetensors)$|^(?:scheduler|scaler|training_args|rng_state)\S*\.(?:pt|pth|bin)$"
        ),
        "name the folder of the model that was saved with it",
        beside_models=True,
        parts=re.compile(r"^optimizer(?:_\d+)?\.(?:pt|bin|safetensors)$"),
    ),
    _Training(
        "a copy of averaged (EMA) weights",
        re.compile(r"^(?:unet_ema|transformer_ema|ema|ema_model|model_ema|ema_weights)(?:\.\w+)?$"),
        "name the file or folder inside that holds it, if you want to merge these and not the model",
        beside_models=True,
    ),
)


def refuse_training_checkpoint(folder: Path, names: Iterable[str]) -> None:
    """Refuse a folder without a model in which a training framework left its own files.

    Raises:
        UnsupportedFormat: it is of a known framework.
    """
    present = list(names)
    weights = [name for name in present if name.endswith(".safetensors")]
    for framework in _FRAMEWORKS:
        if framework.beside_models and any(not framework.names.search(name) for name in weights):
            continue
        if found := framework.evidence(present):
            raise UnsupportedFormat(
                f"{folder} holds {framework.name} ({found}), and no model that polyak can read. Instead: "
                f"{framework.remedy.format(folder=str(folder))}."
            )


def refuse_part(file: Path) -> None:
    """Refuse a file in which a training framework left a part of a model, or the state of an optimizer.

    Raises:
        UnsupportedFormat: it is of a known framework, by its name.
    """
    for framework in _FRAMEWORKS:
        if framework.parts and framework.parts.search(file.name):
            raise UnsupportedFormat(
                f"{file} is a part of {framework.name}, not a model. Instead: "
                f"{framework.remedy.format(folder=str(file.parent))}."
            )
