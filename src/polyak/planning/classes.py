"""The order of the classes in the heads of classifiers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from ..checkpoint import layer_of

if TYPE_CHECKING:
    from .compatibility import Opened

_HEAD = re.compile(r"(?:^|[._])(?:classifiers?|score|heads?|fc|out_proj|logits)(?:[._]|$)")


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
