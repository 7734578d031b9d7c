"""Questions with choices, scored by a language model."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, Literal

from ...errors import TaskError
from ...modules import from_transformers
from ...reading import Place, positive
from .._batch import Batch
from .._task import Task
from ..classification import Classification
from ..examples import logits_of
from ..frame import Frame, task_kind
from ..likelihood import negative_log_likelihood
from ..rows import Rows
from ..texts import Tokens, check_texts
from .language_model import shifted

if TYPE_CHECKING:
    from torch import Tensor, nn

ABSENT = -1e9  # the logit of a choice that a question does not have: its probability is 0, and 0 log 0 is 0


class MultipleChoice(Classification):
    """Logits are the choices' log-probabilities after the question; rows have `question`, `choices` and `label`.

    `accuracy` is the share of questions whose likeliest choice is the answer; `normalised_accuracy` first divides each
    log-probability by the choice's bytes; `loss` is the cross-entropy among the choices, in nats.
    """

    tokens: Tokens
    separator: str

    def collate(self, rows: Rows, examples: tuple[int, ...]) -> Batch:
        import torch

        most = max(map(len, rows.columns["choices"]))
        made = [
            self._sequences(q, c, most) for q, c in zip(rows.columns["question"], rows.columns["choices"], strict=True)
        ]
        flat = list(chain.from_iterable(made))
        padded = self.tokens.pad([ids for ids, _ in flat])
        shape = (len(rows), most, -1)
        inputs = {name: values.view(shape) for name, values in padded.items()}
        lengths = [[len(c.encode()) or 1 for c in cs] + [1] * (most - len(cs)) for cs in rows.columns["choices"]]
        extra = {
            "targets": shifted(flat, padded["input_ids"].shape[1]).view(shape),
            "exists": torch.tensor([[i < len(cs) for i in range(most)] for cs in rows.columns["choices"]]),
            "lengths": torch.tensor(lengths),
        }
        return Batch(inputs, self.targets(rows), examples, inputs["attention_mask"].bool(), extra)

    def _sequences(self, question: str, choices: list[str], most: int) -> list[tuple[list[int], int]]:
        before = self.tokens.numbers(question)
        after = [self.tokens.numbers(self.separator + choice, begins=False) for choice in choices]
        kept = max(1, self.tokens.length - max(map(len, after)))
        before = before[-kept:]  # the end of the question, next to the choice, stays
        sequences = [([*before, *ids], len(before)) for ids in after]
        return sequences + sequences[:1] * (most - len(choices))

    def outputs(self, module: nn.Module, batch: Batch) -> Tensor:
        logits = logits_of(module(**{name: values.flatten(0, 1) for name, values in batch.inputs.items()}))
        targets = batch.extra["targets"].flatten(0, 1)
        likely = -negative_log_likelihood("language_model", logits, targets).view(len(batch), -1)
        return likely.where(batch.extra["exists"], ABSENT)

    def scores(self, module: nn.Module, batch: Batch) -> Tensor:
        if self.metric != "normalised_accuracy":
            return super().scores(module, batch)
        outputs = self.outputs(module, batch)
        relative = (outputs / batch.extra["lengths"]).where(batch.extra["exists"], ABSENT)
        right = (relative.argmax(1) == batch.targets).double()
        return right.where(outputs.isfinite().all(1), float("nan"))


def _any_text(value: object, place: Place) -> str:
    if not isinstance(value, str):
        raise place.expected("text", value)
    return value


@task_kind("multiple-choice")
def multiple_choice(
    frame: Frame,
    *,
    question: str = "question",
    choices: str = "choices",
    answer: str = "answer",
    separator: Annotated[str, _any_text] = " ",
    length: Annotated[int, positive] = 512,
    metric: Literal["accuracy", "normalised_accuracy", "loss"] = "accuracy",
) -> Task:
    """Questions answered by the choice to which a language model gives the highest likelihood.

    Args:
        frame: The common keys.
        question: Column of the questions.
        choices: Column of the choices: a list of texts per question.
        answer: Column of the answers: positions from 0, letters, or texts.
        separator: Text between question and choice.
        length: Maximum number of tokens of question and choice; the question is truncated on the left.
        metric: Name of the metric.
    """
    data, notes = frame.read({"question": question, "choices": choices, "label": answer})
    ready = {split: _answered(rows) for split, rows in data.items()}
    body = frame.body(lambda folder: from_transformers("AutoModelForCausalLM", folder))
    settings = frame.settings | {"length": length, "separator": separator}
    task = MultipleChoice(frame.name, metric, ready, body, settings=settings, notes=notes)
    task.tokens, task.separator = Tokens(frame.tokenizer or frame.config, length), separator
    return task


def _answered(rows: Rows) -> Rows:
    """The rows with answers as positions among their choices."""
    check_texts(rows, "question")
    labels: list[int] = []
    for i, (choices, answer) in enumerate(zip(rows.columns["choices"], rows.columns["label"], strict=True)):
        if (
            not isinstance(choices, list)
            or len(choices) < 2
            or not all(isinstance(choice, str) and choice for choice in choices)
        ):
            raise TaskError(f"{rows.place(i)}: `choices` must be a list of two texts or more; got {choices!r:.60}.")
        labels.append(_position(answer, choices, rows.place(i)))
    return Rows({**rows.columns, "label": labels}, rows.label, rows.numbers)


def _position(answer: Any, choices: list[str], place: str) -> int:
    if isinstance(answer, str) and answer in choices:
        return choices.index(answer)
    if isinstance(answer, str) and len(answer) == 1 and answer.isalpha():
        answer = ord(answer.upper()) - ord("A")
    if isinstance(answer, str) and answer.isdecimal():
        answer = int(answer)
    if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < len(choices):
        raise TaskError(
            f"{place}: the answer {answer!r:.40} is none of the {len(choices)} choices; give its position from 0, its "
            "letter, or its text."
        )
    return answer
