"""Images with one label each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import TaskError
from ...reading import Place, Table, each, integer, is_list, number, one_of, text
from .._api import Batch, Task
from ..classification import METRICS, Classification, labelled
from ..description import Frame
from ..rows import Rows

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Preparation:
    """From pixels to what the module takes.

    Attributes:
        scale: Pixels are divided by it.
        mean: Subtracted from each channel, after scaling.
        spread: Each channel is divided by it, after that.
        size: Height and width to which images are resized, bilinearly; None leaves them.
        channels: Grey images are repeated to so many; None leaves them.
        flatten: Whether each image becomes one row of numbers.
    """

    scale: float
    mean: tuple[float, ...]
    spread: tuple[float, ...]
    size: tuple[int, ...] | None
    channels: int | None
    flatten: bool

    def __call__(self, images: Sequence[Any]) -> Tensor:
        import torch

        pixels = torch.from_numpy(np.stack([np.asarray(image, np.float32) for image in images])) / self.scale
        if pixels.ndim == 2:
            return pixels  # rows of numbers already
        pixels = pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.movedim(-1, 1)
        if self.channels is not None and pixels.shape[1] == 1:
            pixels = pixels.repeat(1, self.channels, 1, 1)
        if self.size is not None and tuple(pixels.shape[2:]) != self.size:
            pixels = torch.nn.functional.interpolate(pixels, self.size, mode="bilinear", antialias=True)
        for name, values in (("mean", self.mean), ("spread", self.spread)):
            if len(values) not in (1, pixels.shape[1]):
                raise ValueError(f"`{name}` has {len(values)} numbers for {pixels.shape[1]} channels")
        shape = (1, -1, 1, 1)
        pixels = (pixels - torch.tensor(self.mean).view(shape)) / torch.tensor(self.spread).view(shape)
        return pixels.flatten(1) if self.flatten else pixels


class ImageClassification(Classification):
    """One label an image; rows have `image`, (height, width) or (height, width, channels), and `label`."""

    prepare: Preparation
    keyword: str

    def collate(self, rows: Rows, examples: tuple[int, ...]) -> Batch:
        try:
            images = self.prepare(rows.columns["image"])
        except (ValueError, TypeError, RuntimeError) as error:
            raise TaskError(f"{rows.place(0)} and after: images cannot be put together: {error}") from error
        return Batch({self.keyword: images}, self.targets(rows), examples, None, self.extra(rows))


def read(table: Table) -> Callable[[Frame], Task]:
    """Keys: image, label, labels, classes, scale, mean, spread, size, channels, flatten, input, metric."""
    columns = {"image": table.take("image", text, "image"), "label": table.take("label", text, "label")}
    labels = table.take("labels", each(text), ())
    classes = table.take("classes", integer, len(labels) or None)
    prepare = Preparation(
        scale=table.take("scale", _above_zero, 255.0),
        mean=table.take("mean", _numbers, (0.0,)),
        spread=table.take("spread", _numbers, (1.0,)),
        size=table.take("size", _size, None),
        channels=table.take("channels", integer, None),
        flatten=table.take("flatten", _switch, False),
    )
    keyword = table.take("input", text, "pixel_values")
    metric = table.take("metric", one_of(METRICS), "accuracy")

    def make(frame: Frame) -> Task:
        data, notes = frame.read(columns)
        settings = frame.settings | {"prepare": asdict(prepare), "input": keyword}
        body = frame.body(lambda folder: _build(folder, classes))
        ready = labelled(data, labels, classes, metric)
        task = ImageClassification(frame.name, metric, ready, body, settings=settings, notes=notes)
        task.prepare, task.keyword = prepare, keyword
        return task

    return make


def _build(folder: Path, classes: int | None) -> Any:
    from ...modules.transformers import from_transformers

    changes: dict[str, Any] = {} if classes is None else {"num_labels": classes}
    return from_transformers("AutoModelForImageClassification", folder, **changes)


def _above_zero(value: object, place: Place) -> float:
    found = number(value, place)
    if found <= 0:
        raise place.wanted("above 0", value)
    return found


def _numbers(value: object, place: Place) -> tuple[float, ...]:
    return each(number)(value, place) if is_list(value) else (number(value, place),)


def _size(value: object, place: Place) -> tuple[int, ...]:
    return each(integer)(value, place) if is_list(value) else (integer(value, place),) * 2


def _switch(value: object, place: Place) -> bool:
    if not isinstance(value, bool):
        raise place.wanted("true or false", value)
    return value
