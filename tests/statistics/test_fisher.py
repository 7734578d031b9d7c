"""Fisher information: per example, then squared, then averaged - whatever the batches, the module, the estimator."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812

from polyak.errors import NotFinite, TaskError  # noqa: E402
from polyak.statistics import Fisher, measure  # noqa: E402

WEIGHT = [[0.5, -1, 0], [0, 0.25, 1], [-0.5, 0, 0.5]]
BIAS = [0.1, 0, -0.1]
INPUTS = [[1.0, 0, 1], [0, 1, 0], [1, 2, -1]]


def linear() -> nn.Linear:
    layer = nn.Linear(3, 3).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(WEIGHT))
        layer.bias.copy_(torch.tensor(BIAS))
    return layer


class Net(nn.Module):
    """Everything that is easily done wrong: dropout, norms, a tied weight, a frozen one, and one that is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.body = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.LayerNorm(8), nn.Dropout(0.5), nn.Linear(8, 6))
        self.head = nn.Linear(6, 11)
        self.head.weight = self.embed.weight
        self.frozen = nn.Parameter(torch.ones(6), requires_grad=False)
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, tokens):
        return self.head(self.body(self.embed(tokens) * self.frozen))


def net(dtype=torch.float64) -> Net:
    torch.manual_seed(0)
    return Net().to(dtype).train()


TOKENS = torch.randint(11, (7, 4), generator=torch.Generator().manual_seed(1))
LABELS = torch.randint(11, (7, 4), generator=torch.Generator().manual_seed(2))
LABELS[2, 1] = LABELS[5, 3] = -100


def pooled(module: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return module(batch).mean(1)


def fisher(module: nn.Module, batches, *args, **kwargs) -> dict[str, np.ndarray]:
    return dict(measure(Fisher(module, *args, **kwargs), batches).tensors)


def by_definition(module: nn.Module, losses) -> dict[str, np.ndarray]:
    """Mean over examples of the sum over terms of squared gradients; `losses` yields (log-probability, weight)."""
    module.eval()
    named = {n: p for n, p in module.named_parameters() if p.requires_grad}
    total = {n: torch.zeros_like(p) for n, p in named.items()}
    examples = 0
    for terms in losses:
        examples += 1
        for term, weight in terms:
            slopes = torch.autograd.grad(term, list(named.values()), retain_graph=True, allow_unused=True)
            for sums, slope in zip(total.values(), slopes, strict=True):
                if slope is not None:
                    sums.addcmul_(slope, slope, value=weight)
    return {n: (t / examples).numpy() for n, t in total.items()}


def assert_same(found, wanted, rtol=1e-6):
    assert found.keys() == wanted.keys()
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], rtol=rtol, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_linear_softmax_has_the_analytic_fisher_information(size):
    x = torch.tensor(INPUTS, dtype=torch.float64)
    module = linear()
    found = fisher(module, x.split(size), likelihood="classification")
    p = module(x).softmax(-1)
    spread = (p * (1 - p)).detach()
    wanted = {"weight": (spread.T @ x**2 / 3).numpy(), "bias": spread.mean(0).numpy()}
    assert_same(found, wanted)
    published = [[0.12911, 0.26362, 0.12911], [0.16662, 0.41648, 0.16662], [0.11348, 0.34489, 0.11348]]
    np.testing.assert_allclose(found["weight"], published, atol=1e-5)
    np.testing.assert_allclose(found["bias"], [0.17315, 0.24995, 0.18918], atol=1e-5)


def test_exact_classification_is_the_definition_on_a_module_with_everything():
    module = net()
    found = fisher(module, [TOKENS], pooled, likelihood="classification")

    def losses():
        for row in TOKENS:
            logp = pooled(module, row[None])[0].log_softmax(-1)
            yield [(logp[c], float(logp[c].detach().exp())) for c in range(11)]

    wanted = by_definition(module, losses())
    assert_same(found, wanted)
    assert "frozen" not in found
    assert "head.weight" not in found  # tied: it counts once, with both its uses
    assert not found["unused"].any()


@pytest.mark.parametrize("estimator", ["exact", "sampled", "empirical"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("likelihood", ["classification", "tokens"])
def test_batches_do_not_matter(estimator, dtype, likelihood):
    outputs, targets = (pooled, lambda x: x[:, 0]) if likelihood == "classification" else (None, lambda x: x)
    options = {"likelihood": likelihood, "estimator": estimator, "samples": 2, "targets": targets}
    whole = fisher(net(dtype), [TOKENS], outputs, **options)
    for sizes in (1, 3):
        assert_same(fisher(net(dtype), TOKENS.split(sizes), outputs, **options), whole, rtol=1e-5)
    turned = fisher(net(dtype), TOKENS.flip(0).split(2), outputs, **options)
    assert_same(turned, whole, rtol=1e-5)
    assert_same(fisher(net(dtype), [TOKENS], outputs, together=1, **options), whole, rtol=1e-5)


@pytest.mark.parametrize("estimator", ["exact", "sampled"])
def test_an_embedding_that_is_only_looked_up_is_measured_by_the_rows_that_an_example_has(estimator):
    """One example at a time; some tokens twice, others never, and padding."""
    options = {"likelihood": "classification", "estimator": estimator}
    found = []
    for together in (1, 8):
        module = net()
        module.embed = nn.Embedding(13, 6, padding_idx=3).double()
        module.embed.weight.data.copy_(torch.randn(13, 6, generator=torch.Generator().manual_seed(3)))
        found.append(fisher(module, [TOKENS], pooled, together=together, **options))
        assert not module.embed.sparse
    assert_same(found[0], found[1])
    squares = found[0]["embed.weight"]
    assert squares[:11].any(1).sum() == len(TOKENS.unique()) - 1
    assert not squares[11:].any()
    assert not squares[3].any()


def test_of_a_large_batch_only_as_many_gradients_are_held_as_fit(monkeypatch):
    from polyak.statistics import fisher as of

    seen, at_once = [], Fisher._all_at_once
    monkeypatch.setattr(
        of, "TOGETHER_NBYTES", 5 * of.COPIES * sum(p.numel() * p.element_size() for p in linear().parameters())
    )
    watched = lambda self, tensors, *more: seen.append(len(tensors[0])) or at_once(self, tensors, *more)  # noqa: E731
    monkeypatch.setattr(Fisher, "_all_at_once", watched)
    batch = torch.randn(256, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = fisher(linear(), [batch], likelihood="classification")
    assert seen == [5] * 51 + [1]
    assert_same(fisher(linear(), [batch], likelihood="classification", together=256), found, rtol=1e-12)


def test_the_square_of_a_batch_gradient_is_something_else():
    """What the measurement must not be: it depends on the batch, and is far away."""
    x = torch.tensor(INPUTS, dtype=torch.float64)
    module = linear()
    logp = module(x).log_softmax(-1)
    (logp * logp.detach().exp().sqrt()).sum().backward()
    wrong = (module.weight.grad**2).numpy() / 3
    right = fisher(module, [x], likelihood="classification")["weight"]
    assert np.abs(wrong / right - 1).max() > 0.5


def test_sampling_converges_to_the_exact_value():
    x = torch.tensor(INPUTS, dtype=torch.float64)
    exact = fisher(linear(), [x], likelihood="classification")["weight"]
    few, many = (
        np.abs(
            fisher(linear(), [x], likelihood="classification", estimator="sampled", samples=n)["weight"] / exact - 1
        ).max()
        for n in (20, 2000)
    )
    assert many < 0.05 < few


@pytest.mark.parametrize("per", ["example", "position"])
def test_exact_tokens_sum_over_positions_and_classes_and_leave_out_padding(per):
    module = net()
    batch = {"tokens": TOKENS, "labels": LABELS}
    found = fisher(
        module, [batch], lambda m, b: m(b["tokens"]), likelihood="tokens", targets=lambda b: b["labels"], per=per
    )

    def losses():
        for row, labels in zip(TOKENS, LABELS, strict=True):
            logp = module(row[None])[0].log_softmax(-1)
            counts = [t for t in range(4) if labels[t] != -100]
            share = 1 if per == "example" else 1 / len(counts) ** 2
            yield [(logp[t, c], share * float(logp[t, c].detach().exp())) for t in counts for c in range(11)]

    assert_same(found, by_definition(module, losses()))


def test_the_empirical_estimator_is_the_square_of_each_examples_gradient():
    module = net()
    batch = (TOKENS, LABELS)
    found = fisher(module, [batch], lambda m, b: m(b[0]), likelihood="language_model", estimator="empirical",
                   targets=lambda b: b[1])  # fmt: skip

    def losses():
        for row, labels in zip(TOKENS, LABELS, strict=True):
            yield [(-F.cross_entropy(module(row[None])[0], labels, ignore_index=-100, reduction="sum"), 1.0)]

    wanted = by_definition(module, losses())
    assert_same(found, wanted)

    def log_likelihood(m, b):
        return -F.cross_entropy(m(b[0]).transpose(1, 2), b[1], ignore_index=-100, reduction="none").sum(1)

    assert_same(fisher(module, [batch], log_likelihood=log_likelihood), wanted)


def test_regression_squares_the_gradient_of_outputs_not_of_the_loss():
    module = net()
    found = fisher(module, [TOKENS], pooled, likelihood="regression")

    def losses():
        for row in TOKENS:
            out = pooled(module, row[None])[0]
            yield [(out[k], 1.0) for k in range(11)]

    assert_same(found, by_definition(module, losses()))


def test_evaluation_mode_is_forced_and_every_part_put_back():
    module = net()
    module.body[2].eval()
    modes = {name: part.training for name, part in module.named_modules()}
    fisher(module, [TOKENS], pooled, likelihood="classification")
    assert {name: part.training for name, part in module.named_modules()} == modes
    with pytest.raises(TaskError):
        fisher(module, [TOKENS], lambda m, b: m(b.float()), likelihood="classification")
    assert {name: part.training for name, part in module.named_modules()} == modes
    assert all(p.grad is None for p in module.parameters())


class Peeking(nn.Module):
    """Decides by the values of its inputs, as masks in language models do, which a vectorised call cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 3).double(), nn.Linear(3, 3).double()

    def forward(self, x):
        return self.a(x) if bool((x.sum() > 0.5).item()) else self.b(x)


def test_a_module_that_cannot_be_vectorised_is_measured_one_example_at_a_time():
    torch.manual_seed(0)
    module, x = Peeking(), torch.tensor(INPUTS, dtype=torch.float64)
    found = measure(Fisher(module, likelihood="classification"), [x])
    assert "one at a time" in found.notes[0]
    wanted = fisher(module, x.split(1), likelihood="classification", together=1)
    assert_same(dict(found.tensors), wanted)


def test_names_are_those_of_the_checkpoint_and_heads_stay_away():
    found = fisher(linear(), [torch.tensor(INPUTS, dtype=torch.float64)], likelihood="classification",
                   names={"weight": "encoder.w"})  # fmt: skip
    assert list(found) == ["encoder.w"]


BAD = {
    "one class": (lambda m, b: pooled(m, b)[:, :1], {}, "one class"),
    "outputs of another shape": (None, {}, r"must be \(n, classes\); got \(7, 4, 11\)"),
    "labels out of range": (pooled, {"targets": lambda b: b[:, 0] + 50}, "label .* is out of range"),
    "too few labels": (pooled, {"targets": lambda b: b[:3, 0]}, "7 examples has 3 targets"),
    "a module that fails": (lambda m, b: m(b, 1), {}, r"the module fails on a batch: .* \(TypeError\)"),
    "random outputs": (lambda m, b: pooled(m, b) + torch.rand(1), {}, "something in it is random"),
    "any exception": (lambda m, b: 1 // 0, {}, r"fails on a batch: .*by zero \(ZeroDivisionError\)"),
    "no gradient": (lambda m, b: torch.ones(len(b), 3), {}, "zero everywhere"),
    "no gradient, one at a time": (lambda m, b: torch.ones(len(b), 3), {"together": 1}, "zero everywhere"),
    "no labels": (pooled, {"estimator": "empirical"}, "empirical estimator needs targets"),
}


@pytest.mark.parametrize(("outputs", "options", "message"), BAD.values(), ids=BAD)
def test_what_cannot_be_measured_is_named(outputs, options, message):
    with pytest.raises(TaskError, match=message):
        fisher(net(), [TOKENS], outputs, likelihood="classification", **options)


def test_nan_names_the_example():
    with pytest.raises(NotFinite, match="NaN or infinity for example 5"):
        fisher(linear(), [torch.ones(3, 3).double(), torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, np.nan, 0]]).double()],
               likelihood="classification")  # fmt: skip


def test_no_examples_a_frozen_module_and_certainty_are_refused():
    with pytest.raises(TaskError, match="nothing was observed"):
        fisher(linear(), [], likelihood="classification")
    with pytest.raises(TaskError, match="no parameter to measure"):
        fisher(linear().requires_grad_(False), [], likelihood="classification")
    certain = linear()
    with torch.no_grad():
        certain.weight.zero_()
        certain.bias.copy_(torch.tensor([1e4, 0, 0]))
    with pytest.raises(TaskError, match="zero everywhere"):
        fisher(certain, [torch.tensor(INPUTS, dtype=torch.float64)], likelihood="classification")
    with pytest.raises(TaskError, match="got a str with no tensor"):
        fisher(linear(), ["text"], likelihood="classification")
    with pytest.raises(TaskError, match="needs a likelihood"):
        Fisher(linear())
