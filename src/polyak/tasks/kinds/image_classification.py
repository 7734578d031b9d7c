"""Images with one label each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from ...errors import TaskError
from ...modules import from_transformers
from ...reading import Place, each, is_list, number, positive
from .._batch import Batch
from .._task import Task
from ..classification import Classification, Metric, labelled
from ..frame import Frame, task_kind
from ..rows import Rows

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Preparation:
    """From pixels to inputs of the module.

    Attributes:
        scale: Pixels are divided by it.
        mean: Subtracted from each channel, after scaling.
        spread: Divisor of each channel, after subtraction of the mean.
        size: Height and width to which images are resized, bilinearly; None leaves them.
        channels: Grey images are repeated to this number of channels; None leaves them.
        flatten: Make each image one row of numbers.
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
            self._check_rows()
            return pixels
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

    def _check_rows(self) -> None:
        """Refuse settings of images if the examples are rows of numbers."""
        ignored = {
            "mean": any(self.mean),
            "spread": set(self.spread) != {1.0},
            "size": self.size,
            "channels": self.channels,
        }
        if wrong := [f"`{name}`" for name, is_set in ignored.items() if is_set]:
            raise ValueError(f"the examples are rows of numbers, which have no {' or '.join(wrong)}")


class ImageClassification(Classification):
    """One label per image; rows have `image`, (height, width) or (height, width, channels), and `label`."""

    prepare: Preparation
    keyword: str

    def collate(self, rows: Rows, examples: tuple[int, ...]) -> Batch:
        try:
            images = self.prepare(rows.columns["image"])
        except (ValueError, TypeError, RuntimeError) as error:
            raise TaskError(f"{rows.place(0)} and after: images cannot be batched: {error}") from error
        return Batch({self.keyword: images}, self.targets(rows), examples, None, self.extra(rows))


def _above_zero(value: object, place: Place) -> float:
    factor = number(value, place)
    if factor <= 0:
        raise place.expected("above 0", value)
    return factor


def _numbers(value: object, place: Place) -> tuple[float, ...]:
    return each(number)(value, place) if is_list(value) else (number(value, place),)


def _spreads(value: object, place: Place) -> tuple[float, ...]:
    return each(_above_zero)(value, place) if is_list(value) else (_above_zero(value, place),)


def _size(value: object, place: Place) -> tuple[int, ...]:
    size = each(positive)(value, place) if is_list(value) else (positive(value, place),) * 2
    if len(size) != 2:
        raise place.expected("[height, width], or one number for both", value)
    return size


@task_kind("image-classification")
def image_classification(
    frame: Frame,
    *,
    image: str = "image",
    label: str = "label",
    labels: tuple[str, ...] = (),
    classes: Annotated[int | None, positive] = None,
    scale: Annotated[float, _above_zero] = 255.0,
    mean: Annotated[tuple[float, ...], _numbers] = (0.0,),
    spread: Annotated[tuple[float, ...], _spreads] = (1.0,),
    size: Annotated[tuple[int, ...] | None, _size] = None,
    channels: Annotated[int | None, positive] = None,
    flatten: bool = False,
    input: str = "pixel_values",
    metric: Metric = "accuracy",
) -> Task:
    """One label per image, or per row of numbers.

    Args:
        frame: The common keys.
        image: Column of the images: nested lists or arrays, (height, width) or (height, width, channels).
        label: Column of the labels.
        labels: Names of the labels, in the order of the model's outputs.
        classes: Number of classes (default: the number of `labels`, else the config's).
        scale: Pixels are divided by it.
        mean: Subtracted from each channel after scaling; one number, or one per channel.
        spread: Divisor of each channel after that; one number, or one per channel.
        size: Size after bilinear resizing: [height, width], or one number for both (default: not resized).
        channels: Grey images are repeated to this number of channels.
        flatten: Make each image one row of numbers.
        input: Name of the argument of the module's `forward`.
        metric: Name of the metric.
    """
    prepare = Preparation(scale, mean, spread, size, channels, flatten)
    classes = (len(labels) or None) if classes is None else classes
    data, notes = frame.read({"image": image, "label": label})
    settings = frame.settings | {"prepare": asdict(prepare), "input": input}
    body = frame.body(lambda folder: _build(folder, classes))
    ready = labelled(data, labels, classes, metric)
    task = ImageClassification(frame.name, metric, ready, body, settings=settings, notes=notes)
    task.prepare, task.keyword = prepare, input
    return task


def _build(folder: Path, classes: int | None) -> Any:
    changes: dict[str, Any] = {} if classes is None else {"num_labels": classes}
    return from_transformers("AutoModelForImageClassification", folder, **changes)
