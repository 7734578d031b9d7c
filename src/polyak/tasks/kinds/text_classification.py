"""Texts, or pairs of texts, with one label each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from ...modules import Build, from_transformers, pooled_classifier
from ...reading import positive
from .._batch import Batch
from .._task import Task
from ..classification import Classification, Metric, labelled
from ..frame import Frame, task_kind
from ..rows import Rows
from ..texts import Tokens, check_texts


class TextClassification(Classification):
    """One label per text; rows have `text`, perhaps `pair`, and `label`."""

    tokens: Tokens

    def lengths(self, rows: Rows) -> Sequence[int]:
        columns = [rows.columns[name] for name in ("text", "pair") if name in rows.columns]
        return [sum(map(len, texts)) for texts in zip(*columns, strict=True)]

    def collate(self, rows: Rows, examples: tuple[int, ...]) -> Batch:
        inputs = self.tokens.encode(rows.columns["text"], rows.columns.get("pair"))
        mask = inputs["attention_mask"].bool()
        return Batch(inputs, self.targets(rows), examples, mask, self.extra(rows))


@task_kind("text-classification")
def text_classification(
    frame: Frame,
    *,
    text: str = "text",
    label: str = "label",
    pair: str | None = None,
    labels: tuple[str, ...] = (),
    classes: Annotated[int | None, positive] = None,
    length: Annotated[int, positive] = 128,
    pooling: Literal["none", "mean", "first", "last"] = "none",
    head_name: str = "classifier",
    metric: Metric = "accuracy",
) -> Task:
    """One label per text, or per pair of texts.

    Args:
        frame: The common keys.
        text: Column of the texts.
        label: Column of the labels.
        pair: Column of the second texts, to classify pairs.
        labels: Names of the labels, in the order of the model's outputs.
        classes: Number of classes (default: the number of `labels`, else the config's).
        length: Texts are truncated to this number of tokens.
        pooling: `none` uses the architecture's own classification head; otherwise a linear head on the pooled last
            hidden states: their mean over tokens, the first token's, or the last's.
        head_name: Name of that linear layer in the checkpoint, if `pooling` is not `none`.
        metric: Name of the metric.
    """
    columns = {"text": text, "label": label} | ({} if pair is None else {"pair": pair})
    data, notes = frame.read(columns)
    for rows in data.values():
        check_texts(rows, *columns.keys() - {"label"})
    classes = (len(labels) or None) if classes is None else classes
    settings = frame.settings | {"length": length, "pooling": pooling}
    body = frame.body(lambda folder: _build(folder, classes, pooling, head_name))
    ready = labelled(data, labels, classes, metric)
    task = TextClassification(frame.name, metric, ready, body, settings=settings, notes=notes)
    task.tokens = Tokens(frame.tokenizer or frame.config, length)
    return task


def _build(folder: Path, classes: int | None, pooling: str, layer: str) -> Build:
    if pooling != "none":
        return pooled_classifier(folder, how=pooling, classes=classes, head=layer)
    changes: dict[str, Any] = {} if classes is None else {"num_labels": classes}
    return from_transformers("AutoModelForSequenceClassification", folder, **changes)
