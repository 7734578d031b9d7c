"""Texts as lists of words, with one label per word."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

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
from ..texts import Tokens

if TYPE_CHECKING:
    from torch import Tensor, nn


class TokenTagging(ExampleTask):
    """One label per word, predicted at its first token; rows have `tokens` and `tags`.

    `accuracy` is the share of words that are right; a word beyond the length at which texts are cut is wrong. `loss` is
    the mean negative log-likelihood of the words' labels that the model sees, in nats.
    """

    likelihood: Likelihood | None = "tokens"
    tokens: Tokens

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
        return Batch(inputs, torch.tensor(targets), examples, mask, {"words": words})

    def outputs(self, module: nn.Module, batch: Batch) -> Tensor:
        return logits_of(module(**batch.inputs))

    def scores(self, module: nn.Module, batch: Batch) -> Tensor:
        outputs = self.outputs(module, batch)
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
    metric: Literal["accuracy", "loss"] = "accuracy",
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
    data, notes = frame.read({"tokens": tokens, "tags": tags})
    ready = {split: _numbered(rows, labels) for split, rows in data.items()}
    body = frame.body(lambda folder: _build(folder, len(labels)))
    settings = frame.settings | {"length": length}
    task = TokenTagging(frame.name, metric, ready, body, settings=settings, notes=notes)
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
