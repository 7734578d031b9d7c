"""Grams: what layers see of the data, without padding, for every kind of layer."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from polyak.errors import NotFinite, TaskError  # noqa: E402
from polyak.statistics import Gram, measure  # noqa: E402


def grams(module: nn.Module, batches, *args, **kwargs):
    return measure(Gram(module, *args, **kwargs), batches)


def same(found, rows: np.ndarray) -> None:
    rows = np.asarray(rows, np.float64)
    np.testing.assert_allclose(found, rows.T @ rows / len(rows), rtol=1e-5, atol=1e-6)


def normal(*shape: int, seed: int = 0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [1, 3, 8])
def test_a_linear_layer_sees_its_inputs_whatever_the_batches(size):
    x = normal(8, 5, 4)
    module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 2)).train()
    found = grams(module, x.split(size))
    same(found.tensors["0.weight"], x.reshape(-1, 4).numpy())
    same(found.tensors["3.weight"], module[1](module[0](x)).detach().reshape(-1, 6).numpy())
    assert found.rows == {"0.weight": 40, "3.weight": 40}
    assert found.examples == 8
    assert all(part.training for part in module.modules())


def test_padding_does_not_count():
    x, mask = normal(4, 5, 3), torch.arange(5) < torch.tensor([[5], [2], [3], [1]])

    class Pooling(nn.Module):
        def __init__(self):
            super().__init__()
            self.token, self.flat, self.pooled = nn.Linear(3, 3), nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x):
            hidden = self.token(x)
            self.flat(hidden.reshape(-1, 3))
            return self.pooled(hidden[:, 0])

    module = Pooling()
    found = grams(module, [(x, mask)], lambda m, b: m(b[0]), mask=lambda b: b[1])
    hidden = module.token(x).detach()
    same(found.tensors["token.weight"], x[mask].numpy())
    same(found.tensors["flat.weight"], hidden[mask].numpy())
    same(found.tensors["pooled.weight"], hidden[:, 0].numpy())
    assert found.rows == {"token.weight": 11, "flat.weight": 11, "pooled.weight": 4}


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 4, (3, 2), stride=2, padding=1),
        nn.Conv2d(3, 4, 3, padding="same", padding_mode="reflect"),
        nn.Conv2d(3, 4, 2, dilation=2, padding_mode="circular", padding=1),
        nn.Conv1d(3, 4, 3, padding=2, stride=2),
    ],
    ids=["stride", "same, reflect", "dilation, circular", "one dimension"],
)
def test_the_patches_of_a_convolution_give_its_outputs(layer):
    x = normal(2, 3, *((6, 7) if isinstance(layer, nn.Conv2d) else (9,)))
    from polyak.statistics._layers import rows_of

    rows = rows_of(layer, (x,), {}, None)
    out = layer(x)
    wanted = out.detach().flatten(2).transpose(1, 2).reshape(-1, 4)
    got = rows @ layer.weight.detach().reshape(4, -1).T + layer.bias.detach()
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    same(grams(layer, [x]).tensors["weight"], rows.numpy())


def test_attention_has_one_gram_for_queries_keys_and_values():
    x = normal(3, 5, 8)
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    found = grams(attention, [x], lambda m, b: m(b, b, b)[0])
    same(found.tensors["in_proj_weight"], x.reshape(-1, 8).numpy())
    with pytest.raises(TaskError):
        grams(attention, [x], lambda m, b: m(b, b + 1, b)[0])


def test_a_fused_encoder_layer_is_looked_into():
    """In evaluation mode torch runs this layer in one piece, in which nothing could be seen."""
    x = normal(3, 5, 8)
    found = grams(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), [x])
    assert {"self_attn.in_proj_weight", "linear1.weight", "linear2.weight"} <= set(found.tensors)


def test_layers_whose_inputs_come_first_have_grams_of_their_inputs():
    transformers = pytest.importorskip("transformers.pytorch_utils")
    x = normal(4, 3)
    layer = transformers.Conv1D(5, 3)
    same(grams(layer, [x]).tensors["weight"], x.numpy())


def test_what_has_no_gram_is_noted():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.wide, self.apart = nn.Embedding(9, 4), nn.Linear(4, 4), nn.Conv1d(4, 4, 1, groups=2)
            self.head = nn.Linear(4, 9, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, x):
            return self.head(self.wide(self.apart(self.embed(x).transpose(1, 2)).transpose(1, 2)))

    found = grams(Tied(), [torch.tensor([[1, 2], [3, 4]])])
    assert set(found.tensors) == {"wide.weight"}
    assert any("'embed.weight' is an embedding too" in note for note in found.notes)
    assert any("'apart.weight' is a convolution in 2 groups" in note for note in found.notes)
    with pytest.raises(TaskError, match="no linear layer"):
        Gram(nn.Linear(40, 2), largest=39)


def test_a_layer_that_is_called_twice_sees_both_inputs():
    layer, x = nn.Linear(3, 3), normal(4, 3)
    found = grams(layer, [x], lambda m, b: m(m(b)))
    same(found.tensors["weight"], torch.cat([x, layer(x).detach()]).numpy())


def test_names_are_those_of_the_checkpoint():
    found = grams(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), [normal(3, 2)], names={"0.weight": "body.w"})
    assert list(found.tensors) == ["body.w"]


def test_what_cannot_be_measured_is_named():
    with pytest.raises(TaskError, match="nothing was observed"):
        grams(nn.Linear(2, 2), [])
    with pytest.raises(TaskError, match="every input of every layer is zero"):
        grams(nn.Linear(2, 2), [torch.zeros(3, 2)])
    with pytest.raises(NotFinite, match="inputs of 'weight' hold NaN"):
        grams(nn.Linear(2, 2), [torch.full((3, 2), np.nan)])
    with pytest.raises(TaskError, match="a batch of 3 examples has a mask of 2"):
        grams(nn.Linear(2, 2), [normal(3, 2)], mask=lambda b: torch.ones(2, 1))
    with pytest.raises(TaskError, match=r"the module fails on a batch: .* \(RuntimeError\)"):
        grams(nn.Linear(2, 2), [normal(3, 5)])
