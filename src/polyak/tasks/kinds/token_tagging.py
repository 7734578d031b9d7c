"""Texts as lists of words, with one label per word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import numpy.typing as npt

from ...errors import TaskError, suggestion
from ...modules import from_transformers
from ...reading import positive
from .._batch import IGNORED, Batch, Likelihood
from .._task import Task
from ..classification import LARGEST_LABEL, positions_of
from ..examples import ExampleTask, logits_of
from ..frame import Frame, task_kind
from ..likelihood import check_labels, counted
from ..rows import Rows
from ..running import Scoring
from ..spans import are_spans, f1_parts
from ..texts import Tokens

if TYPE_CHECKING:
    from torch import Tensor, nn


class TokenTagging(ExampleTask):
    """One label per word, predicted at its first token; rows have `tokens` and `tags`.

    `accuracy` is the share of words that are right; a word beyond the length at which texts are cut is wrong. `loss` is
    the mean negative log-likelihood of the words' labels that the model sees, in nats. `f1` is the micro F1 of spans
    (same first and last word, same type) over all texts; spans are those of `spans_of`.
    """

    likelihood: Likelihood | None = "tokens"
    tokens: Tokens
    labels: tuple[str, ...] = ()

    @property
    def higher_is_better(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.metric != "loss"

    def lengths(self, rows: Rows) -> Sequence[int]:
        return [len(words) for words in rows.columns["tokens"]]

    def collate(self, rows: Rows, examples: tuple[int, ...]) -> Batch:
        import torch

        encoded = self.tokens.encode_words(rows.columns["tokens"])
        targets = [
            _on_first_pieces(encoded.word_ids(i), tags) for i, tags in enumerate(rows.columns["tags"])
        ]  # fmt: skip
        words = torch.tensor([len(tags) for tags in rows.columns["tags"]])
        inputs = dict(encoded)
        mask = inputs["attention_mask"].bool()
        extra = {"words": words, "tags": list(rows.columns["tags"])}
        return Batch(inputs, torch.tensor(targets), examples, mask, extra)

    def outputs(self, module: nn.Module, batch: Batch) -> Tensor:
        return logits_of(module(**batch.inputs))

    def scoring(self, module: nn.Module) -> Callable[[Batch], Scoring]:
        if self.metric != "f1":
            return super().scoring(module)
        return lambda batch: self._span_scores(self.outputs(module, batch), batch)

    def _span_scores(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """F1 of each text, and its number of spans, expected and predicted: their weighted mean is the micro F1."""
        import torch

        assert batch.targets is not None
        check_labels(batch.targets, outputs.shape[-1])
        counts = [
            f1_parts(self._named(found[kept].tolist(), len(tags)), self._named(tags, len(tags)))
            for found, kept, tags in zip(outputs.argmax(-1), batch.targets != IGNORED, batch.extra["tags"], strict=True)
        ]
        right, spans = torch.tensor(counts, dtype=torch.float64).T
        finite = outputs.isfinite().flatten(1).all(1).cpu()
        return (right / spans.clamp(min=1)).where(finite, float("nan")), spans

    def _named(self, tags: Sequence[int], words: int) -> list[str]:
        """The names of tags; those of words beyond the length at which texts are cut are O."""
        names = [self.labels[tag] if tag < len(self.labels) else "O" for tag in tags]
        return names + ["O"] * (words - len(names))

    def summarise(self, mean: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.nan_to_num(mean, nan=0.0) if self.metric == "f1" else mean  # NaN: no span, expected or predicted

    def majority(self, split: str, examples: Sequence[int]) -> float | None:
        if self.metric == "loss":
            return None
        texts: list[list[int]] = list(self.data[split].take(examples).columns["tags"])
        counts = Counter(chain.from_iterable(texts))
        tag, words = counts.most_common(1)[0]
        if self.metric == "accuracy":
            return words / counts.total()
        parts = [f1_parts(self._named([tag] * len(t), len(t)), self._named(t, len(t))) for t in texts]
        right, spans = (sum(column) for column in zip(*parts, strict=True))
        return right / spans if spans else 0.0

    def scores(self, module: nn.Module, batch: Batch) -> Tensor:
        outputs = self.outputs(module, batch)
        if self.metric == "f1":
            return self._span_scores(outputs, batch)[0]
        if self.metric == "loss" or batch.targets is None:
            return self.losses_of(outputs, batch)
        check_labels(batch.targets, outputs.shape[-1])
        right = (outputs.argmax(-1) == batch.targets).sum(1) / batch.extra["words"]
        return right.where(outputs.isfinite().flatten(1).all(1), float("nan"))

    def weights(self, batch: Batch) -> Tensor:
        if self.metric == "loss" and batch.targets is not None:
            return counted(batch.targets)
        return batch.extra["words"]


def _on_first_pieces(word_ids: Sequence[int | None], tags: Sequence[int]) -> list[int]:
    before: int | None = None
    targets: list[int] = []
    for word in word_ids:
        targets.append(IGNORED if word is None or word == before else tags[word])
        before = word
    return targets


@task_kind("token-tagging")
def token_tagging(
    frame: Frame,
    *,
    tokens: str = "tokens",
    tags: str = "tags",
    labels: tuple[str, ...] = (),
    length: Annotated[int, positive] = 256,
    metric: Literal["accuracy", "f1", "loss"] = "accuracy",
) -> Task:
    """One label per word.

    Args:
        frame: The common keys.
        tokens: Column of the texts: a list of words each.
        tags: Column of the labels: a list of equal length.
        labels: Names of the labels, in the order of the model's outputs.
        length: Texts are truncated to this number of tokens.
        metric: Name of the metric.
    """
    if metric == "f1" and not are_spans(labels):
        raise TaskError(
            "the metric f1 needs `labels:` that mark spans, such as [O, B-PER, I-PER], in the order of the model's "
            f"outputs; got {list(labels)}. Use `metric: accuracy` for other tags."
        )
    data, notes = frame.read({"tokens": tokens, "tags": tags})
    ready = {split: _numbered(rows, labels) for split, rows in data.items()}
    body = frame.body(lambda folder: _build(folder, len(labels)))
    settings = frame.settings | {"length": length} | ({"labels": list(labels)} if metric == "f1" else {})
    task = TokenTagging(frame.name, metric, ready, body, settings=settings, notes=notes)
    task.labels = labels
    if metric == "accuracy" and "O" in labels and are_spans(labels):
        task.notes = (*task.notes, "`metric: f1` scores the spans; accuracy counts words outside of them as well")
    task.tokens = Tokens(frame.tokenizer or frame.config, length)
    return task


def _build(folder: Path, labels: int) -> Any:
    changes: dict[str, Any] = {"num_labels": labels} if labels else {}
    return from_transformers("AutoModelForTokenClassification", folder, **changes)


def _numbered(rows: Rows, labels: Sequence[str]) -> Rows:
    positions = positions_of(labels)
    tags: list[list[int]] = []
    for i, (words, labelled) in enumerate(zip(rows.columns["tokens"], rows.columns["tags"], strict=True)):
        if not isinstance(words, list) or not isinstance(labelled, list) or not words or len(words) != len(labelled):
            raise TaskError(f"{rows.place(i)}: `tokens` and `tags` must be lists of equal length, at least 1.")
        tags.append([_number(tag, positions, rows, i) for tag in labelled])
    return Rows({**rows.columns, "tags": tags}, rows.label, rows.numbers)


def _number(tag: Any, positions: dict[str, int], rows: Rows, i: int) -> int:
    if isinstance(tag, str):
        if tag not in positions:
            hint = suggestion(tag, positions) if positions else "List the tags' names as `labels:`."
            raise TaskError(f"{rows.place(i)}: unknown tag {tag!r}. {hint}")
        return positions[tag]
    if isinstance(tag, bool) or not isinstance(tag, int) or not 0 <= tag < (len(positions) or LARGEST_LABEL):
        raise TaskError(f"{rows.place(i)}: the tag {tag!r:.40} is out of range; tags are numbers from 0, or names.")
    return tag
