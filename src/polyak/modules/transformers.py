"""Builders of transformers modules from a folder's config; code in the folder is never run."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import TaskError
from .recognition import Build

if TYPE_CHECKING:
    from torch import Tensor, nn


def from_transformers(auto_class: str, folder: Path, **changes: Any) -> Build:
    """A builder of a transformers model in float32.

    Args:
        auto_class: Such as `AutoModelForSequenceClassification`.
        folder: Folder with config.json.
        **changes: Changed entries of the config, such as `num_labels`.
    """

    def build(state: dict[str, Tensor]) -> nn.Module:
        import torch
        import transformers

        config = read_config(folder)
        for name, value in changes.items():
            setattr(config, name, value)
        with quietly(), torch.device("meta"):
            architecture: Any = type(getattr(transformers, auto_class).from_config(config))
        with quietly():
            return architecture.from_pretrained(None, config=config, state_dict=state, dtype=torch.float32)

    return build


def pooled_classifier(folder: Path, *, how: str, classes: int | None, head: str = "classifier") -> Build:
    """A builder of an encoder whose pooled last hidden states a linear layer, `head`, classifies.

    Args:
        folder: Folder with the encoder's config.json.
        how: As for `pool`.
        classes: Required number of classes; None accepts that of the layer.
        head: Prefix of the layer's tensors: `head`.weight, `head`.bias.
    """
    encode = from_transformers("AutoModel", folder)

    def build(state: dict[str, Tensor]) -> nn.Module:
        from .pooled import Pooled

        own: Mapping[str, Tensor] = {n: t for n, t in state.items() if n.startswith(f"{head}.")}
        return Pooled(encode({n: t for n, t in state.items() if n not in own}), own, head, how, classes)

    return build


def read_config(folder: Path) -> Any:
    """The config in a folder.

    Raises:
        TaskError: there is none, or transformers does not know it.
    """
    transformers = needed()
    try:
        with quietly():
            return transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise TaskError(f"{folder} has no config.json that transformers can use: {_short(error)}") from error


def read_tokenizer(folder: Path) -> Any:
    """The tokenizer in a folder.

    Raises:
        TaskError: there is none.
    """
    transformers = needed()
    try:
        with quietly():
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:
        raise TaskError(f"{folder} has no tokenizer that transformers can use: {_short(error)}") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer


def needed() -> Any:
    """The library transformers.

    Raises:
        TaskError: it is not installed.
    """
    try:
        import transformers
    except ImportError:
        raise TaskError("this task needs torch and transformers: pip install 'polyak[tasks]'") from None
    return transformers


@contextmanager
def quietly() -> Generator[None, None, None]:
    """Silence transformers: missing tensors, which it reports, are errors here."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
