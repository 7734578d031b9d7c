"""The files of sentence-transformers in a merge whose base is a plain encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ...checkpoint import MODULES, carried, components_in
from ..compatibility import Opened
from ..steps import Sidecars

_SETTINGS = (MODULES, "config_sentence_transformers.json", "sentence_bert_config.json")


def with_modules(side: Sidecars, donor: Opened, models: Sequence[Opened]) -> tuple[Sidecars, list[str]]:
    """Add modules.json and the modules without weights of the first model that has them, where the donor has none.

    A base that is a plain encoder knows no pooling; its fine-tunes do, and the result is one of them.
    """
    folders = {model.name: model.checkpoint.folder for model in models if model.name != donor.name}
    givers = {name: folder for name, folder in folders.items() if folder and (folder / MODULES).is_file()}
    if donor.checkpoint.folder is None or MODULES in side.files or not givers:
        return side, []
    name, folder = next(iter(givers.items()))
    if components := components_in(folder):
        return side, [
            f"{name} has modules of sentence-transformers, {donor.name} has none, and the result has neither: "
            f"{', '.join(components)}. Save {donor.name} with such modules, and name that folder as `base:`."
        ]
    files = {file: path for file, path in _module_files(folder).items() if file not in side.files}
    note = f"{donor.name} has no modules of sentence-transformers; those of {name} are copied: {', '.join(files)}."
    return replace(side, files={**side.files, **files}), [note]


def _module_files(folder: Path) -> dict[str, Path]:
    files = carried(folder, [""], []).files
    return {file: path for file, path in files.items() if file in _SETTINGS or _is_numbered(file)}


def _is_numbered(file: str) -> bool:
    """Test for a file in the folder of a module, such as 1_Pooling."""
    number, _, kind = file.partition("/")[0].partition("_")
    return "/" in file and number.isdecimal() and bool(kind)
