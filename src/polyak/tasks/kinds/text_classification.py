"""Texts, or pairs of texts, with one label each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ...modules.recognition import Build
from ...reading import Table, each, integer, one_of, text
from .._api import Batch, Task
from ..classification import METRICS, Classification, labelled
from ..description import Frame
from ..rows import Rows
from ..texts import Tokens, check_texts


class TextClassification(Classification):
    """One label a text; rows have `text`, perhaps `pair`, and `label`."""

    tokens: Tokens

    def lengths(self, rows: Rows) -> Sequence[int]:
        columns = [rows.columns[name] for name in ("text", "pair") if name in rows.columns]
        return [sum(map(len, texts)) for texts in zip(*columns, strict=True)]

    def collate(self, rows: Rows, examples: tuple[int, ...]) -> Batch:
        inputs = self.tokens.encode(rows.columns["text"], rows.columns.get("pair"))
        mask = inputs["attention_mask"].bool()
        return Batch(inputs, self.targets(rows), examples, mask, self.extra(rows))


def read(table: Table) -> Callable[[Frame], Task]:
    """Keys: text, pair, label, labels, classes, length, pooling, head_name, metric."""
    columns = {"text": table.take("text", text, "text"), "label": table.take("label", text, "label")}
    if "pair" in table:
        columns["pair"] = table.take("pair", text)
    else:
        table.known.append("pair")
    labels = table.take("labels", each(text), ())
    classes = table.take("classes", integer, len(labels) or None)
    length = table.take("length", integer, 128)
    pooling = table.take("pooling", one_of(("none", "mean", "first", "last")), "none")
    layer = table.take("head_name", text, "classifier")
    metric = table.take("metric", one_of(METRICS), "accuracy")

    def make(frame: Frame) -> Task:
        data, notes = frame.read(columns)
        for rows in data.values():
            check_texts(rows, *columns.keys() - {"label"})
        settings = frame.settings | {"length": length, "pooling": pooling}
        body = frame.body(lambda folder: _build(folder, classes, pooling, layer))
        ready = labelled(data, labels, classes, metric)
        task = TextClassification(frame.name, metric, ready, body, settings=settings, notes=notes)
        task.tokens = Tokens(frame.tokenizer or frame.config, length)
        return task

    return make


def _build(folder: Path, classes: int | None, pooling: str, layer: str) -> Build:
    from ...modules.transformers import from_transformers, pooled

    if pooling != "none":
        return pooled(folder, how=pooling, classes=classes, head=layer)
    changes: dict[str, Any] = {} if classes is None else {"num_labels": classes}
    return from_transformers("AutoModelForSequenceClassification", folder, **changes)
