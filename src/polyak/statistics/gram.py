"""Gram matrices of the inputs of every layer."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..errors import NotFinite, TaskError
from ._data import Data
from ._declaration import statistic
from ._statistic import Identify, Outputs, Statistic

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..tasks import LiveModel

LARGEST = 16_384  # inputs of a layer; the memory of a Gram grows with their square


class Gram(Statistic):
    """Gram matrices X^T X / n of the inputs X of linear layers and convolutions, (d, d) each.

    Rows of X are the inputs at the n positions that a layer processes; masked padding does not count. A convolution's
    rows are the patches under its kernel, (channels, height, width) in this order, as its weight has them. Fused
    projections (one matrix for queries, keys and values) have one Gram. Biases, norms and embeddings have none, nor
    have matrices that are also an embedding.

    Source: Jin et al., 2023, arXiv:2212.09849. The authors' Grams include padding, and sum where these average.

    Args:
        module: Any torch module. Measured layers: `Linear`, `Conv1d`, `Conv2d`, Hugging Face's `Conv1D`, and the fused
            projection of `MultiheadAttention` in self-attention.
        run: (module, batch) -> anything; it must call the module. Default: the module, called with the batch.
        mask: batch -> True at positions that are not padding, (n, positions), or None.
        names: From parameters to tensors of the checkpoint (default: the same names); others are left out.
        identify: batch -> bytes that identify each example (default: those of its tensors).
        largest: Layers with more inputs than this are left out; methods average them instead.
    """

    kind = "gram"

    def __init__(
        self,
        module: nn.Module,
        run: Outputs | None = None,
        *,
        mask: Callable[[Any], Tensor | None] | None = None,
        names: Mapping[str, str] | None = None,
        identify: Identify | None = None,
        largest: int = LARGEST,
    ) -> None:
        super().__init__(module, names, identify)
        self._run, self._mask = run or (lambda module, batch: module(batch)), mask
        self._largest = largest
        self._layers = self._find_layers()
        self._current: Tensor | None = None

    @property
    def facts(self) -> dict[str, str]:
        return {"rows": "masked" if self._mask else "all"}

    def measurable(self) -> list[str]:
        return list(dict.fromkeys(self._layers.values()))

    def explain_zero(self) -> str:
        return "every input of every layer is zero, or no layer with a Gram was called."

    def _find_layers(self) -> dict[nn.Module, str]:
        """The layers to measure, each with the name of its tensor."""
        from ._layers import embedded, inputs_of, weight_of

        names = {id(parameter): self.name_of(name) for name, parameter in self.module.named_parameters()}
        shared = embedded(self.module)
        layers: dict[nn.Module, str] = {}
        for layer in self.module.modules():
            weight = weight_of(layer)
            if weight is None or not (name := names.get(id(weight), "")):
                continue
            if id(weight) in shared:
                self.notes.append(f"{name!r} is an embedding too: it has no Gram.")
            elif isinstance(width := inputs_of(layer), str):
                self.notes.append(f"{name!r} {width}: it has no Gram.")
            elif width > self._largest:
                self.notes.append(f"{name!r} has {width} inputs, more than {self._largest}: it has no Gram.")
            else:
                layers[layer] = name
        if not layers:
            raise TaskError("the module has no linear layer or convolution of which a Gram could be taken.")
        return layers

    def accumulate(self, batch: Any, identities: list[bytes]) -> None:
        import torch

        self._current = None if self._mask is None else self._mask(batch)
        if self._current is not None and len(self._current) != len(identities):
            raise TaskError(f"a batch of {len(identities)} examples has a mask of {len(self._current)}.")
        with torch.no_grad(), self._hooked():
            self._run(self.module, batch)

    @contextmanager
    def _hooked(self) -> Generator[None]:
        hooks = [layer.register_forward_pre_hook(self._look, with_kwargs=True) for layer in self._layers]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _look(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        from ._layers import rows_of

        rows = rows_of(layer, args, kwargs, self._current)
        if rows is None:
            self._once(f"{self._layers[layer]!r} attends to other inputs than its own: it has no Gram.")
            return
        if not bool(rows.isfinite().all()):
            raise NotFinite(
                f"the inputs of {self._layers[layer]!r} hold NaN or infinity after {self.examples} examples."
            )
        self.add(self._layers[layer], rows.T @ rows, len(rows))

    def _once(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)

    def cost(self, examples: int) -> str:
        from ._layers import inputs_of

        nbytes = sum(8 * width**2 for layer in self._layers if isinstance(width := inputs_of(layer), int))
        return f"{super().cost(examples)}; the Grams take {nbytes / 1e6:.0f} MB while they are summed"


@statistic(
    "gram", source="Jin et al., 2023. Dataless Knowledge Fusion by Merging Weights of Language Models. arXiv:2212.09849"
)
def gram(data: Data, live: LiveModel) -> Gram:
    """Gram matrices of the inputs of linear layers and convolutions, without padding."""
    return Gram(live.module, data.outputs, mask=lambda tree: tree["mask"], names=live.names, identify=data.identify)
