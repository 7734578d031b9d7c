"""The files of a model folder that are no weights: everything goes into the result unless a rule here leaves it out."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import CheckpointError
from . import formats
from .contents import copyable, folder_inside, listed
from .pipeline import has_weights

TOKENIZER_FILE, TOKENIZER_SETTINGS = "tokenizer.json", "tokenizer_config.json"
_IGNORE = re.IGNORECASE
# Weights, or a whole model, in formats that no checkpoint format opens.
_OTHER_WEIGHTS = re.compile(
    r"\.(onnx_data|onnx\.data|ort|tflite|mlmodel|mlpackage|mlmodelc|pkl|pickle|joblib|ggml|pb|engine|plan|trt|ot|nemo"
    r"|distcp|pdparams|pdiparams|params|keras|hdf5|orbax|tar|llamafile|mar|torchscript|ptl|pte)$"
    r"|\.data-\d+-of-\d+$|^model\.ckpt|^openvino_.*\.xml$|\.index\.json$|^(weights|model)\b.*\.npz$",
    _IGNORE,
)
_DATA = re.compile(r"^vocab\.", _IGNORE)  # never weights, whatever the suffix
# The state of a training run, its logs, and scores of the model before the merge.
_TRAINING = re.compile(
    r"^(optimi[sz]er|scheduler|scaler|rng_state|random_states|training_args|zero_pp_rank|mp_rank)\w*\.(pt|pth|bin|pkl)$"
    r"|^(trainer_state|training_args|((all|train|eval|test|predict)_results))\.(json|ya?ml|csv)$|^trainer_log\."
    r"|^latest$|^zero_to_fp32\.py$|^events\.out\.tfevents|\.log$",
    _IGNORE,
)
_TRAINING_FOLDER = re.compile(
    r"^(runs|logs|wandb|mlruns|lightning_logs|eval|checkpoints?)$|^(checkpoint[-_]|global_step)\d+$", _IGNORE
)
# The result has its own: a card, and the record of how it was made.
_REPLACED = re.compile(r"^(readme(\.\w+)?|recipe\.yaml|polyak\.json|mergekit_(moe_)?config\.ya?ml)$", _IGNORE)
_CACHES = re.compile(
    r"^\.|^__pycache__$|^node_modules$|\.(pyc|lock|incomplete|tmp|swp)$|~$|^(thumbs\.db|desktop\.ini)$", _IGNORE
)

WEIGHTS, OTHERS, TRAINING, REPLACED, CACHES, LINKS = (
    "weights that are not merged", "folders with weights that no index of the model names",
    "state and scores of training", "the result has its own", "hidden files and caches", "links to folders",
)  # fmt: skip
_DEEPEST, _MOST_FILES = 20, 10_000
_MOVE = "Move what is not of the model out of it."


@dataclass
class Carried:
    """The files of a folder that a result takes along, and those that it does not.

    Attributes:
        files: Files to copy, by their path in the result.
        left_out: Files and folders that are not copied, by the reason.
    """

    files: dict[str, Path] = field(default_factory=dict[str, Path])
    left_out: dict[str, list[str]] = field(default_factory=dict[str, list[str]])


def carried(folder: Path, models: Collection[str], read: Collection[Path]) -> Carried:
    """Sort the files of a model folder into those that a merge copies and those that it leaves out.

    Copied is whatever is not weights, state or scores of training, a record of an earlier merge, or a cache. Python
    files are copied too, since the model may need them to load; they are never run.

    Args:
        folder: The folder.
        models: The folders in it whose weights are merged, by path; "" is the folder itself.
        read: The files of these weights, which are not listed as left out.

    Raises:
        CheckpointError: a file is a link out of the folder, or no regular file, or a folder cannot be read.
    """
    walk = _Walk(folder, frozenset(models), frozenset(read))
    walk.enter("")
    return walk.carried


class _Walk:
    def __init__(self, folder: Path, models: frozenset[str], read: frozenset[Path]) -> None:
        self.carried, self._folder, self._models, self._read = Carried(), folder, models, read

    def enter(self, place: str) -> None:
        """Sort the contents of a folder by its path, and of those below.

        Raises:
            CheckpointError: folders are nested too deeply, or hold too many files.
        """
        if place.count("/") >= _DEEPEST:
            raise CheckpointError(f"{self._folder / place}: folders are nested more than {_DEEPEST} deep. {_MOVE}")
        for path in listed(self._folder / place):
            name = f"{place}/{path.name}" if place else path.name
            if path.is_dir():
                self._sort_folder(path, name)
            elif reason := self._reason(path, name):
                self._leave_out(reason, name)
            elif not self._is_written(path, name):
                self._take(name)

    def _take(self, name: str) -> None:
        if len(self.carried.files) == _MOST_FILES:
            raise CheckpointError(f"{self._folder} has more than {_MOST_FILES:,} files next to its weights. {_MOVE}")
        self.carried.files[name] = copyable(self._folder, name)

    def _sort_folder(self, path: Path, name: str) -> None:
        if _TRAINING_FOLDER.search(path.name):
            self._leave_out(TRAINING, f"{name}/")
        elif not self._is_of_model(name) and (reason := _reason_by_name(path.name)):
            self._leave_out(reason, f"{name}/")
        elif path.is_symlink():
            folder_inside(self._folder, name)
            self._leave_out(LINKS, f"{name}/")
        elif not self._is_of_model(name) and has_weights(path):
            self._leave_out(OTHERS, f"{name}/")
        else:
            self.enter(name)

    def _is_of_model(self, name: str) -> bool:
        return any(model == name or model.startswith(f"{name}/") for model in self._models)

    def _reason(self, path: Path, name: str) -> str | None:
        if self._is_written(path, name):
            return None
        if "/" not in name and _REPLACED.search(name):
            return REPLACED
        return _reason_by_name(path.name)

    def _is_written(self, path: Path, name: str) -> bool:
        """Test for the weights that are merged, their index, and the config of each model, which the merge writes."""
        if path in self._read:
            return True
        folder = name.rpartition("/")[0]
        is_index = name.endswith(".index.json") and any(read.parent == path.parent for read in self._read)
        return is_index or (path.name == "config.json" and folder in self._models)

    def _leave_out(self, reason: str, name: str) -> None:
        self.carried.left_out.setdefault(reason, []).append(name)


def _reason_by_name(name: str) -> str | None:
    if _CACHES.search(name):
        return CACHES
    if _TRAINING.search(name):
        return TRAINING
    if _DATA.search(name):
        return None
    if name.endswith(formats.suffixes(foreign=True)) or _OTHER_WEIGHTS.search(name):
        return WEIGHTS
    return None


def left_out_note(donor: str, left_out: Mapping[str, Collection[str]]) -> Iterator[str]:
    """A line on the files of the donor that are not in the result."""
    if left_out:
        reasons = "; ".join(f"{', '.join(names)} ({reason})" for reason, names in left_out.items())
        yield f"not copied from {donor}: {reasons}."
