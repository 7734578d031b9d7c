"""The diagonal of the Fisher information: per example, then squared, then averaged."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from ..declare import In
from ..errors import NotFinite, TaskError
from ..tasks import Likelihood
from ._data import Data, classes
from ._declaration import statistic
from ._directions import Example, directions, space
from ._statistic import Identify, Outputs, Statistic
from ._tree import flatten

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..tasks import LiveModel

Estimator: TypeAlias = Literal["exact", "sampled", "empirical"]
Per: TypeAlias = Literal["example", "position"]
TOGETHER_NBYTES = 256 * 2**20  # gradients of examples in memory at a time
CLASSES = 10  # the sum over classes is exact up to this number by default
COPIES = 3  # of a gradient: itself, its square, and their sum


class Fisher(Statistic):
    """Diagonal Fisher information of every parameter that has a gradient.

    F_j = (1 / N) sum_n E_y [(d log p(y | x_n) / d theta_j)^2], where y is drawn from the model's own prediction. A
    gradient is taken for each example by itself, then squared, then averaged: batches only save time, and the result
    does not depend on them. Squaring the gradient of a batch gives another quantity.

    Estimators:
        exact: the expectation, as a sum over classes (and positions): one backward pass per term.
        sampled: `samples` draws of y per example; unbiased. For sequences one draw is a label for every position, with
            the given text as context.
        empirical: y is the target. Not the Fisher information, which needs no targets, but common in its place.

    For `regression` the outputs are the means of unit Gaussians: exact is (1 / N) sum_n sum_k (d f_k / d theta_j)^2.
    A sequence's log-probability is the sum over its positions; with `per="position"`, their mean.

    Source: Matena and Raffel, 2022, arXiv:2111.09832. The authors' code is exact over labels; they describe sampling.

    Args:
        module: Any torch module. Parameters without `requires_grad` are left out; tied ones count once.
        outputs: (module, batch) -> outputs with the examples along the first axis: logits (n, classes) or
            (n, positions, classes), or numbers (n, k). Default: the module, called with the batch.
        likelihood: Distribution that the outputs parametrise.
        log_likelihood: Replaces both, empirically: (module, batch) -> log-probabilities of the targets, (n,).
        estimator: See above.
        targets: batch -> targets (n,) or (n, positions) of integers, or (n, k); positions with target -100 do not
            count. Needed by `empirical`; for sequences, it also marks padding.
        samples: Draws per example.
        seed: Seed of the draws, combined with the example itself, so that neither order nor batches matter.
        per: `example` sums log-probabilities over the positions of a sequence, `position` averages them.
        names: From parameters to tensors of the checkpoint (default: the same names); others are left out.
        identify: batch -> bytes that identify each example (default: those of its tensors).
        together: Maximum number of examples with gradients in memory (default: as many as fit into 256 MB).
    """

    kind = "fisher"

    def __init__(
        self,
        module: nn.Module,
        outputs: Outputs | None = None,
        *,
        likelihood: Likelihood | None = None,
        log_likelihood: Outputs | None = None,
        estimator: Estimator = "exact",
        targets: Callable[[Any], Tensor | None] | None = None,
        samples: int = 1,
        seed: int = 0,
        per: Per = "example",
        names: Mapping[str, str] | None = None,
        identify: Identify | None = None,
        together: int | None = None,
    ) -> None:
        super().__init__(module, names, identify)
        self._run = log_likelihood or outputs or (lambda module, batch: module(batch))
        self._likelihood: Likelihood | None = None if log_likelihood else likelihood
        self.estimator: Estimator = "empirical" if log_likelihood else estimator
        self._targets, self.samples, self._seed, self._per = targets, samples, seed, per
        self._check_arguments(log_likelihood is not None)
        self._measured = self._parameters()
        self._together = together or self._as_fit()
        self._vectorised, self._is_checked = self._together > 1, False
        self.classes: int | None = None  # size of the last axis of the outputs if known; only `cost` uses it

    def _check_arguments(self, has_log_likelihood: bool) -> None:
        if self._likelihood is None and not has_log_likelihood:
            raise TaskError("Fisher information needs a likelihood of the outputs, or a log_likelihood.")
        if self.estimator == "empirical" and self._targets is None and not has_log_likelihood:
            raise TaskError("the empirical estimator needs targets.")
        if self.samples < 1:
            raise TaskError(f"samples must be at least 1; got {self.samples}.")

    def _parameters(self) -> dict[str, Tensor]:
        parameters = {
            name: parameter.detach()
            for name, parameter in self.module.named_parameters()
            if parameter.requires_grad and parameter.is_floating_point() and self.name_of(name)
        }
        if not parameters:
            raise TaskError("the module has no parameter to measure: none has requires_grad, or none is in `names`.")
        return parameters

    def _as_fit(self) -> int:
        nbytes = sum(parameter.numel() * parameter.element_size() for parameter in self._measured.values())
        return max(TOGETHER_NBYTES // (COPIES * nbytes), 1)

    @property
    def facts(self) -> dict[str, str]:
        facts = {"estimator": self.estimator, "likelihood": self._likelihood or "its own"}
        if self._likelihood in ("tokens", "language_model"):
            facts["log_probability"] = "summed" if self._per == "example" else "averaged over positions"
        if self.estimator == "sampled":
            facts |= {"samples": str(self.samples), "seed": str(self._seed)}
        return facts

    def measurable(self) -> list[str]:
        return [self.name_of(name) for name in self._measured]

    def explain_zero(self) -> str:
        return (
            "the Fisher information is zero everywhere: the outputs do not depend on the parameters, or the model "
            "predicts every example with probability 1."
        )

    def cost(self, examples: int) -> str:
        entries = sum(parameter.numel() for parameter in self._measured.values())
        sequences = self._likelihood in ("tokens", "language_model")
        passes = {"exact": self.classes or "one per class: several", "sampled": self.samples}.get(self.estimator, 1)
        each = "position of each example" if self.estimator == "exact" and sequences else "example"
        return (
            f"{examples} examples, {passes} backward pass{'es' * (passes != 1)} for each {each}, through "
            f"{entries / 1e6:.3g} M parameters; the sums take {8 * entries / 1e6:.3g} MB"
        )

    def accumulate(self, batch: Any, identities: list[bytes]) -> None:
        tensors, rebuild = flatten(batch)
        targets = self._targets_of(batch, len(tensors[0]))
        self._check_outputs(batch)
        for start in range(0, len(identities), self._together):
            part = slice(start, start + self._together)
            labels = None if targets is None else targets[part]
            noise = self._noise(batch, identities[part], labels)
            for name, squares in self._squares([t[part] for t in tensors], rebuild, labels, noise).items():
                self.add(self.name_of(name), squares, len(identities[part]))

    def _targets_of(self, batch: Any, n: int) -> Tensor | None:
        targets = None if self._targets is None else self._targets(batch)
        if targets is None and self.estimator == "empirical" and self._likelihood is not None:
            raise TaskError("the empirical estimator needs targets; this batch has none.")
        if targets is not None and len(targets) != n:
            raise TaskError(f"a batch of {n} examples has {len(targets)} targets.")
        return targets

    def _check_outputs(self, batch: Any) -> None:
        """Outputs must be finite, one per example, and the same when computed twice."""
        import torch

        with torch.no_grad():
            outputs = self._run(self.module, batch)
            again = outputs if self._is_checked else self._run(self.module, batch)
        if not bool(torch.isfinite(outputs).all()):
            bad = int((~torch.isfinite(outputs)).flatten(1).any(1).nonzero()[0]) if outputs.ndim > 1 else 0
            raise NotFinite(f"the outputs hold NaN or infinity for example {self.examples + bad}.")
        if not torch.equal(outputs, again):
            raise TaskError(
                "the module gives different outputs for the same batch: something in it is random in evaluation mode."
            )
        self._is_checked = True
        space(self._likelihood).check(outputs, None if self._targets is None else self._targets(batch))
        self._positions = outputs.shape[1:]

    def _noise(self, batch: Any, identities: Sequence[bytes], targets: Tensor | None) -> Tensor | None:
        """Random numbers for the draws of each example, (n, *positions, samples)."""
        if self.estimator != "sampled":
            return None
        import torch

        log_space = space(self._likelihood)
        draws = [log_space.noise(self._seed, identity, self._positions, self.samples) for identity in identities]
        return torch.stack([torch.from_numpy(draw) for draw in draws])

    def _squares(
        self, tensors: list[Tensor], rebuild: Callable[[Sequence[Any]], Any], targets: Any, noise: Any
    ) -> dict[str, Tensor]:
        """Squared gradients, expected over y and summed over some examples, by parameter."""
        if self._vectorised:
            try:
                return self._all_at_once(tensors, rebuild, targets, noise)
            except (RuntimeError, ValueError, NotImplementedError) as error:
                # Modules that branch on the values of their inputs cannot be vectorised; other errors appear with
                # single examples too, and are reported there.
                self._vectorised = False
                message = " ".join(str(error).split())[:200]
                self.notes.append(f"the module cannot be vectorised: examples were measured one at a time ({message}).")
        return self._one_by_one(tensors, rebuild, targets, noise)

    def _all_at_once(self, tensors: Any, rebuild: Any, targets: Any, noise: Any) -> dict[str, Tensor]:
        import torch
        from torch.func import vjp, vmap

        from ._call import Call

        call = Call(self._run, self.module)

        def squares(example: list[Any], target: Any, draw: Any) -> dict[str, Any]:
            batch = rebuild([tensor.unsqueeze(0) for tensor in example])
            pulled: Any = vjp(
                lambda weights: self._transformed(call.at(weights, batch)[0]), self._measured, has_aux=True
            )
            _, pull, outputs = pulled
            total: dict[str, Any] = {}
            for cotangent in self._directions(outputs, target, draw):
                for name, slope in pull(cotangent)[0].items():
                    total[name] = total[name] + slope**2 if name in total else slope**2
            return total

        axes = (0, None if targets is None else 0, None if noise is None else 0)
        with torch.no_grad():  # parameters that are not measured may still require gradients
            each = vmap(squares, in_dims=axes)(tensors, targets, noise)
        return {name: squared.sum(0) for name, squared in each.items()}

    def _one_by_one(self, tensors: Any, rebuild: Any, targets: Any, noise: Any) -> dict[str, Tensor]:
        import torch

        from ._layers import add_square, sparse_embeddings

        by_name = dict(self.module.named_parameters())
        weights = [by_name[name] for name in self._measured]
        total = {name: torch.zeros_like(parameter) for name, parameter in self._measured.items()}
        for i in range(len(tensors[0])):
            with torch.enable_grad(), sparse_embeddings(self.module):
                outputs = self._run(self.module, rebuild([t[i : i + 1] for t in tensors]))[0]
                transformed, detached = self._transformed(outputs)
            if not transformed.requires_grad:
                raise TaskError(self.explain_zero())
            target, draw = (values if values is None else values[i] for values in (targets, noise))
            for cotangent in self._directions(detached, target, draw):
                slopes: Any = torch.autograd.grad(transformed, weights, cotangent, retain_graph=True, allow_unused=True)
                for sums, slope in zip(total.values(), slopes, strict=True):
                    add_square(sums, slope)
        return total

    def _transformed(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs of one example in the likelihood's space: to differentiate, and detached for the directions."""
        transformed = space(self._likelihood).differentiated(outputs)
        return transformed, transformed.detach()

    def _directions(self, outputs: Tensor, target: Any, draw: Any) -> Iterator[Tensor]:
        return directions(self._likelihood, self.estimator, Example(outputs, target, draw, self.samples, per=self._per))


@statistic(
    "fisher",
    source="Matena and Raffel, 2022. Merging Models with Fisher-Weighted Averaging. arXiv:2111.09832",
)
def fisher(
    data: Data,
    live: LiveModel,
    *,
    estimator: Literal["auto", "exact", "sampled", "empirical"] = "auto",
    samples: Annotated[int, In(1, math.inf)] = 1,
) -> Fisher:
    """Diagonal Fisher information: per example, squared, averaged.

    Args:
        data: Examples of a task.
        live: The model.
        estimator: `auto` is `exact` for regression and for up to 10 classes, otherwise `sampled`.
        samples: Draws per example of the sampled estimator.

    Raises:
        TaskError: the task has no likelihood.
    """
    task = data.task
    if task.likelihood is None:
        raise TaskError(f"task {task.name!r} has no likelihood, so its Fisher information is not defined.")
    chosen = _automatic(data, live) if estimator == "auto" else estimator
    started = Fisher(
        live.module, data.outputs, likelihood=task.likelihood, estimator=chosen, targets=lambda tree: tree["targets"],
        samples=samples, seed=data.seed or 0, names=live.names, identify=data.identify,
    )  # fmt: skip
    started.classes = classes(data, live) if chosen == "exact" else None
    return started


def _automatic(data: Data, live: LiveModel) -> Estimator:
    if data.task.likelihood == "regression":
        return "exact"
    return "exact" if data.task.likelihood == "classification" and classes(data, live) <= CLASSES else "sampled"
