"""The order of the classes in the heads of classifiers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from ..checkpoint import layer_of
from ..errors import Door, Remedy, worded

if TYPE_CHECKING:
    from .compatibility import Opened
    from .steps import Step

_HEAD = re.compile(r"(?:^|[._])(?:classifiers?|score|heads?|fc|out_proj|logits)(?:[._]|$)")

_UNNAMED = re.compile(r"label_\d+|\d*")  # the library's own names, in lower case
_SHOWN = 3


def reordered(models: Sequence[Opened], names: Sequence[str]) -> str | None:
    """The problem of two models that have the same classes in another order, or None.

    Args:
        models: The models, whose configs may name classes (`id2label`).
        names: The tensors that are merged.
    """
    labelled = [(model, labels) for model in models if (labels := _labels(model.config))]
    for model, labels in labelled[1:]:
        first, expected = labelled[0]
        if labels != expected and sorted(labels) == sorted(expected):
            head = next((name for name in names if _is_head(first, name, len(labels))), None)
            if head is not None:
                return (
                    f"{head!r} has the classes {', '.join(expected)} in {first.name} but {', '.join(labels)} in "
                    f"{model.name} (id2label of config.json)"
                )
    return None


def unlike(models: Sequence[Opened], steps: Sequence[Step], door: Door) -> list[str]:
    """Notes on heads that are merged although the configs of their models name other classes.

    Args:
        models: All models of the merge.
        steps: The steps of the merge.
        door: The kind of file or command that the notes are read at.
    """
    labelled = {m.name: (m, labels) for m in models if (labels := _labels(m.config)) and _are_named(labels)}
    if len(labelled) < 2:
        return []
    notes = dict[str, str]()
    for step in steps:
        head = [labelled[read.model] for read in step.reads if read.model in labelled]
        if step.kind == "merge" and head and _is_head(head[0][0], step.reads[0].spec.name, len(head[0][1])):
            for model, labels in head[1:]:
                notes.setdefault(model.name, _unlike(step.out.name, head[0], (model, labels)))
    return [f"{note}. {worded([Remedy.CLASSES], door)}" for note in notes.values() if note]


def _unlike(name: str, first: tuple[Opened, list[str]], other: tuple[Opened, list[str]]) -> str:
    differing = [pair for pair in zip(first[1], other[1], strict=False) if pair[0] != pair[1]]
    if not differing:
        return ""
    shown = ", ".join(f"{own!r} and {others!r}" for own, others in differing[:_SHOWN])
    return f"the classes of {name!r} have other names in {other[0].name} than in {first[0].name} ({shown})"


def _are_named(labels: Sequence[str]) -> bool:
    return not all(map(_UNNAMED.fullmatch, labels))


def _labels(config: Mapping[str, Any]) -> list[str]:
    """The names of the classes in lower case, by number; empty if the config does not name them."""
    named: Any = config.get("id2label")
    if not isinstance(named, Mapping):
        return []
    by_number = {str(number): str(name).lower() for number, name in cast("Mapping[Any, Any]", named).items()}
    return [by_number.get(str(number), "") for number in range(len(by_number))]


def _is_head(model: Opened, name: str, classes: int) -> bool:
    spec = model.find(name)
    return spec is not None and spec.shape[:1] == (classes,) and layer_of(name) is None and bool(_HEAD.search(name))
