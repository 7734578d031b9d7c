"""Questions answered by a span of a context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from ...errors import TaskError
from ...modules import from_transformers
from ...reading import positive
from .._batch import IGNORED, Batch, Likelihood
from .._task import Task
from ..answers import answer_f1, exact_match
from ..examples import ExampleTask
from ..frame import Frame, task_kind
from ..rows import Rows
from ..texts import Tokens, check_texts

if TYPE_CHECKING:
    from torch import Tensor, nn

OUTSIDE = -1e9  # the logit of a token outside of the context: its probability is 0


@dataclass(frozen=True)
class _Windows:
    """Contexts cut into overlapping windows of tokens.

    Attributes:
        inputs: Inputs of the module, (n, windows, positions).
        inside: True at tokens of the context, (n, windows, positions).
        offsets: First character of each token in the context, and one past its last, (n, windows, positions, 2).
    """

    inputs: Mapping[str, Tensor]
    inside: Tensor
    offsets: Tensor


class QuestionAnswering(ExampleTask):
    """Answers are spans of a context; rows have `question`, `context`, `answers` (texts) and `start` (a character).

    Outputs are logits of the first and the last token, (n, 2, windows x positions), over all windows of a context
    together. The answer is the span within one window, at most `longest` tokens long, with the largest sum of the two.
    `f1` and `exact_match` are those of SQuAD, the best over the accepted answers; `loss` is the mean negative
    log-likelihood of the first answer's first and last token, in nats.
    """

    likelihood: Likelihood | None = "tokens"
    tokens: Tokens
    overlap: int
    longest: int

    @property
    def higher_is_better(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.metric != "loss"

    def lengths(self, rows: Rows) -> Sequence[int]:
        return [len(context) for context in rows.columns["context"]]

    def collate(self, rows: Rows, examples: tuple[int, ...]) -> Batch:
        import torch

        windows = self._windows(rows)
        columns = (rows.columns["answers"], rows.columns["start"])
        spans = [(start, start + len(answers[0])) for answers, start in zip(*columns, strict=True)]
        parts = zip(windows.inside.tolist(), windows.offsets.tolist(), spans, strict=True)
        targets = [_located(inside, offsets, span) for inside, offsets, span in parts]
        extra = {
            "inside": windows.inside,
            "offsets": windows.offsets.tolist(),
            "contexts": list(rows.columns["context"]),
            "answers": list(rows.columns["answers"]),
        }
        mask = windows.inputs["attention_mask"].bool()
        return Batch(windows.inputs, torch.tensor(targets), examples, mask, extra)

    def _windows(self, rows: Rows) -> _Windows:
        import torch

        encoded, home = self.tokens.encode_windows(rows.columns["question"], rows.columns["context"], self.overlap)
        places = [[w for w, row in enumerate(home) if row == i] for i in range(len(rows))]
        most = max(map(len, places))
        chosen = torch.tensor([own + own[:1] * (most - len(own)) for own in places])
        exists = torch.tensor([[w < len(own) for w in range(most)] for own in places])
        of_context = torch.tensor([[part == 1 for part in encoded.sequence_ids(w)] for w in range(len(home))])
        inputs = {name: encoded[name][chosen] for name in encoded if name != "offset_mapping"}
        return _Windows(inputs, of_context[chosen] & exists.unsqueeze(-1), encoded["offset_mapping"][chosen])

    def outputs(self, module: nn.Module, batch: Batch) -> Tensor:
        import torch

        result: Any = module(**{name: values.flatten(0, 1) for name, values in batch.inputs.items()})
        ends = [getattr(result, name, None) for name in ("start_logits", "end_logits")]
        if any(end is None for end in ends):
            raise TaskError(
                f"the module returns an object of type {type(result).__name__} without `start_logits` and "
                "`end_logits`. Use an architecture for question answering."
            )
        logits = torch.stack([cast("Tensor", end).reshape(len(batch), -1) for end in ends], 1)
        return logits.where(batch.extra["inside"].flatten(1).unsqueeze(1), OUTSIDE)

    def scores(self, module: nn.Module, batch: Batch) -> Tensor:
        import torch

        outputs = self.outputs(module, batch)
        if self.metric == "loss":
            return self.losses_of(outputs, batch)
        measure = answer_f1 if self.metric == "f1" else exact_match
        found = [measure(*pair) for pair in zip(self._answers(outputs, batch), batch.extra["answers"], strict=True)]
        return torch.tensor(found, dtype=torch.float64).where(outputs.isfinite().flatten(1).all(1).cpu(), float("nan"))

    def _answers(self, outputs: Tensor, batch: Batch) -> list[str]:
        shape = batch.extra["inside"].shape
        first, last = (outputs[:, i].reshape(shape) for i in (0, 1))
        sums = first.unsqueeze(-1) + last.unsqueeze(-2)
        positions = shape[-1]
        spans = sums.new_ones(positions, positions).bool().triu().tril(self.longest - 1)
        best = sums.where(spans, 4 * OUTSIDE).flatten(1).argmax(1).tolist()
        answers: list[str] = []
        for at, offsets, context in zip(best, batch.extra["offsets"], batch.extra["contexts"], strict=True):
            window, span = divmod(at, positions * positions)
            start, end = divmod(span, positions)
            answers.append(context[offsets[window][start][0] : offsets[window][end][1]])
        return answers


def _located(
    inside: Sequence[Sequence[bool]], offsets: Sequence[Sequence[Sequence[int]]], span: tuple[int, int]
) -> tuple[int, int]:
    """The first and the last token of a span of characters, counted over all windows; in the first that holds both."""
    for number, (kept, of_tokens) in enumerate(zip(inside, offsets, strict=True)):
        at = [i for i, (begin, end) in enumerate(of_tokens) if kept[i] and begin < span[1] and end > span[0]]
        if at and of_tokens[at[0]][0] <= span[0] and of_tokens[at[-1]][1] >= span[1]:
            return number * len(kept) + at[0], number * len(kept) + at[-1]
    return IGNORED, IGNORED  # longer than a window


@task_kind("question-answering")
def question_answering(
    frame: Frame,
    *,
    question: str = "question",
    context: str = "context",
    answers: str = "answers",
    length: Annotated[int, positive] = 384,
    overlap: Annotated[int, positive] = 128,
    longest: Annotated[int, positive] = 30,
    metric: Literal["f1", "exact_match", "loss"] = "f1",
) -> Task:
    """Questions answered by a span of a context.

    Args:
        frame: The common keys.
        question: Column of the questions.
        context: Column of the texts that contain the answers.
        answers: Column of the accepted answers: a text, a list of texts, or SQuAD's `{text: [...], answer_start:
            [...]}`. Without starts, the first occurrence of the first answer in its context is learned.
        length: Maximum number of tokens of a question and a window of its context.
        overlap: Number of tokens that neighbouring windows of a long context have in common.
        longest: Maximum number of tokens of a predicted answer.
        metric: Name of the metric.
    """
    data, notes = frame.read({"question": question, "context": context, "answers": answers})
    ready = {split: _answered(rows) for split, rows in data.items()}
    body = frame.body(lambda folder: from_transformers("AutoModelForQuestionAnswering", folder))
    settings = frame.settings | {"length": length, "overlap": overlap, "longest": longest}
    task = QuestionAnswering(frame.name, metric, ready, body, settings=settings, notes=notes)
    task.tokens, task.overlap, task.longest = Tokens(frame.tokenizer or frame.config, length), overlap, longest
    return task


def _answered(rows: Rows) -> Rows:
    """The rows with a list of accepted answers, and the first character of the first of them in its context."""
    check_texts(rows, "question", "context")
    pairs = zip(rows.columns["answers"], rows.columns["context"], strict=True)
    read = [_accepted(value, context, rows.place(i)) for i, (value, context) in enumerate(pairs)]
    columns = {"answers": [texts for texts, _ in read], "start": [start for _, start in read]}
    return Rows({**rows.columns, **columns}, rows.label, rows.numbers)


def _accepted(value: Any, context: str, place: str) -> tuple[list[str], int]:
    texts, starts = value, None
    if isinstance(value, Mapping):
        fields = cast("Mapping[str, Any]", value)
        texts, starts = fields.get("text"), fields.get("answer_start")
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) and t.strip() for t in texts):
        raise TaskError(
            f"{place}: `answers` must be a text, a list of texts, or {{text: [...], answer_start: [...]}}, with an "
            f"answer at least; got {value!r:.60}."
        )
    start = starts[0] if isinstance(starts, list) and starts else context.find(texts[0])
    if not isinstance(start, int) or start < 0 or context[start : start + len(texts[0])] != texts[0]:
        where = "does not contain" if starts is None else f"does not have at character {start!r}"
        raise TaskError(
            f"{place}: the context {where} the answer {texts[0]!r:.60}; answers are spans of their context."
        )
    return texts, start
