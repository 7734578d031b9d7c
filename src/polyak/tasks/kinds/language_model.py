"""Texts, or answers to prompts, scored by their likelihood under a language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import numpy.typing as npt

from ...errors import TaskError
from ...modules import from_transformers
from ...reading import positive
from .._batch import IGNORED, Batch, Likelihood
from .._task import Task
from ..examples import ExampleTask, logits_of
from ..frame import Frame, task_kind
from ..likelihood import counted
from ..rows import Rows
from ..texts import Tokens, check_texts

if TYPE_CHECKING:
    from torch import Tensor, nn


class LanguageModel(ExampleTask):
    """The next token, at every position; rows have `text`, or `prompt` and `answer`, of which only the answer counts.

    `loss` is the mean negative log-likelihood of a token, in nats; `perplexity` is its exponential; `accuracy` is the
    share of tokens that the model finds likeliest. All examples' tokens count the same.
    """

    likelihood: Likelihood | None = "language_model"
    tokens: Tokens

    @property
    def higher_is_better(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.metric == "accuracy"

    def lengths(self, rows: Rows) -> Sequence[int]:
        prompts = rows.columns.get("prompt", [""] * len(rows))
        return [len(prompt) + len(answer) for prompt, answer in zip(prompts, rows.columns["answer"], strict=True)]

    def collate(self, rows: Rows, examples: tuple[int, ...]) -> Batch:
        prompts = rows.columns.get("prompt", [""] * len(rows))
        answers = rows.columns["answer"]
        made = [self._sequence(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
        for i, (ids, start) in enumerate(made):
            if len(ids) <= start:
                raise TaskError(
                    f"{rows.place(i)}: no token is left to predict within {self.tokens.length}; give a larger "
                    "`length:`, or leave the example out."
                )
        inputs = self.tokens.pad([ids for ids, _ in made])
        return Batch(inputs, shifted(made, inputs["input_ids"].shape[1]), examples, inputs["attention_mask"].bool())

    def _sequence(self, prompt: str, answer: str) -> tuple[list[int], int]:
        before = self.tokens.numbers(prompt) if prompt else []
        ids = [*before, *self.tokens.numbers(answer, begins=not prompt)]
        return ids[: self.tokens.length], max(len(before), 1)

    def outputs(self, module: nn.Module, batch: Batch) -> Tensor:
        return logits_of(module(**batch.inputs))

    def scores(self, module: nn.Module, batch: Batch) -> Tensor:
        outputs = self.outputs(module, batch)
        if self.metric != "accuracy" or batch.targets is None:
            return self.losses_of(outputs, batch)
        right = (outputs.argmax(-1) == batch.targets).sum(1) / counted(batch.targets)
        return right.where(outputs.isfinite().flatten(1).all(1), float("nan"))

    def weights(self, batch: Batch) -> Tensor:
        return super().weights(batch) if batch.targets is None else counted(batch.targets)

    def summarise(self, mean: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.exp(mean) if self.metric == "perplexity" else mean


def shifted(made: Sequence[tuple[Sequence[int], int]], positions: int) -> Tensor:
    """The next token at each position, (n, positions).

    Args:
        made: Token ids, and the index of the first that counts as a target.
        positions: Length after padding.
    """
    import torch

    targets = torch.full((len(made), positions), IGNORED)
    for row, (ids, start) in enumerate(made):
        targets[row, start - 1 : len(ids) - 1] = torch.tensor(ids[start:])
    return targets


@task_kind("language-model")
def language_model(
    frame: Frame,
    *,
    text: str | None = None,
    prompt: str | None = None,
    answer: str | None = None,
    length: Annotated[int, positive] = 512,
    metric: Literal["perplexity", "loss", "accuracy"] = "perplexity",
) -> Task:
    """The next token of texts, or of answers to prompts.

    Args:
        frame: The common keys.
        text: Column of the texts, every token of which is predicted (default: `text`, without `prompt` and `answer`).
        prompt: Column of the prompts, which are not scored.
        answer: Column of the answers.
        length: Texts are truncated to this number of tokens.
        metric: Name of the metric.
    """
    columns = _columns(frame, text, prompt, answer)
    data, notes = frame.read(columns)
    for rows in data.values():
        check_texts(rows, *columns)
    body = frame.body(lambda folder: from_transformers("AutoModelForCausalLM", folder))
    settings = frame.settings | {"length": length, "columns": sorted(columns)}
    task = LanguageModel(frame.name, metric, data, body, settings=settings, notes=notes)
    task.tokens = Tokens(frame.tokenizer or frame.config, length)
    return task


def _columns(frame: Frame, text: str | None, prompt: str | None, answer: str | None) -> dict[str, str]:
    if prompt is None and answer is None:
        return {"answer": text or "text"}
    if text is not None or prompt is None or answer is None:
        raise frame.place.error("needs `text`, or both `prompt` and `answer`", "Add or remove a key.")
    return {"prompt": prompt, "answer": answer}
