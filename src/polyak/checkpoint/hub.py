"""Find the model that a recipe names: by a path, or by a name on the Hugging Face Hub."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..errors import CheckpointError, UnsupportedFormat
from . import formats

_HUB_NAME = re.compile(r"^(?P<repo>(?!\.+/)[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?$")
_BESIDE_WEIGHTS = ("*.json", "*.txt", "*.model", "*.jinja", "*.py")  # configs, tokenizers, code


def locate(path: str, folder: Path) -> Path:
    """Turn a recipe's path into one on this machine.

    Args:
        path: A path, relative to `folder`; or `hf://org/name@revision`, looked up in the Hub's local cache and
            downloaded if huggingface_hub is installed and the network is allowed.
        folder: The folder of the recipe.

    Raises:
        CheckpointError: it does not exist.
        UnsupportedFormat: it is another kind of URL.
    """
    if path.startswith("hf://"):
        return _from_hub(path.removeprefix("hf://"))
    if "://" in path:
        raise UnsupportedFormat(f"{path}: only local paths and hf://org/name@revision can be read. Download it first.")
    local = folder / os.path.expanduser(path)  # noqa: PTH111  Path.expanduser raises where there is no such user
    if os.path.exists(local):  # noqa: PTH110  Path.exists raises where a name is too long
        return local
    if _HUB_NAME.match(path) and (cached := _cached(path)):
        return cached
    hint = f" If it is a model on the Hub, write hf://{path}." if _HUB_NAME.match(path) else ""
    raise CheckpointError(f"{local!s:.300} does not exist.{hint}")


def _from_hub(name: str) -> Path:
    if not _HUB_NAME.match(name):
        raise CheckpointError(f"hf://{name} is not of the form hf://org/name@revision.")
    if cached := _cached(name):
        return cached
    repo, _, revision = name.partition("@")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise CheckpointError(
            f"hf://{name} is not in the local cache ({_cache()}), and huggingface_hub is not installed to download it: "
            "pip install 'polyak[hub]'"
        ) from error
    try:
        return Path(snapshot_download(repo, revision=revision or None, allow_patterns=_patterns_to_download()))
    except Exception as error:  # the library raises a dozen kinds, from HTTP errors to OSError
        raise CheckpointError(f"hf://{name} cannot be downloaded: {error}") from error


def _patterns_to_download() -> list[str]:
    return [*(f"*{suffix}" for suffix in formats.suffixes_in_folders()), *_BESIDE_WEIGHTS]


def _cached(name: str) -> Path | None:
    """The snapshot of a model in the Hub's cache, which maps the names of revisions to commits."""
    match = _HUB_NAME.match(name)
    assert match is not None
    home = _cache() / f"models--{match['repo'].replace('/', '--')}"
    revision = match["revision"] or "main"
    ref = home / "refs" / revision
    commit = ref.read_text().strip() if ref.is_file() else revision
    snapshot = home / "snapshots" / commit
    return snapshot if snapshot.is_dir() else None


def _cache() -> Path:
    home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or os.path.join(home, "hub")).expanduser()
