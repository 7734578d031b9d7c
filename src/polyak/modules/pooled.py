"""An encoder with a linear layer on its pooled last hidden states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor, nn

from ..errors import TaskError
from .pooling import pool


class Pooled(nn.Module):
    """Logits (n, classes) from token ids and their mask.

    The layer has the name of its tensors in checkpoints; the encoder's tensors have no prefix there, which
    `bring_to_life` recognises.
    """

    def __init__(
        self, encoder: nn.Module, layer: Mapping[str, Tensor], name: str, how: str, classes: int | None
    ) -> None:
        super().__init__()
        self.encoder, self.how, self._name = encoder, how, name
        if not layer and classes is not None:
            self.layer = nn.Linear(int(cast("Any", encoder).config.hidden_size), classes)  # new, to be trained
            return
        weight = layer.get(f"{name}.weight")
        if weight is None or weight.ndim != 2 or len(weight) != (classes or len(weight)):
            got = "is missing" if weight is None else f"is {tuple(weight.shape)}"
            raise TaskError(f"the head '{name}.weight' {got}; the task needs ({classes or 'classes'}, hidden size).")
        self.layer = nn.Linear(weight.shape[1], len(weight), bias=f"{name}.bias" in layer)
        self.layer.load_state_dict({key.removeprefix(f"{name}."): tensor for key, tensor in layer.items()})

    def tensor_name(self, entry: str) -> str:
        """The name in checkpoints of one of the module's own entries."""
        part, _, rest = entry.partition(".")
        return rest if part == "encoder" else f"{self._name}.{rest}"

    def forward(self, attention_mask: Tensor, **inputs: Any) -> Tensor:
        hidden = self.encoder(attention_mask=attention_mask, **inputs).last_hidden_state
        return self.layer(pool(hidden, attention_mask, self.how))
