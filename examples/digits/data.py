"""Handwritten digits of five kinds, one for each expert.

The images are the 1,797 that scikit-learn carries, in the order of its file: 64 pixels between 0 and 1. They come from
13 writers; the file does not say who wrote which. The splits are blocks of the file, so that no held-out image lies
between training images; that the writers differ is not known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from sklearn.datasets import load_digits

Images: TypeAlias = npt.NDArray[np.float32]  # (images, 64)
Labels: TypeAlias = npt.NDArray[np.int64]  # (images,)

PARTS = {
    "pretraining": slice(0, 300),
    "training": slice(0, 1100),
    "validation": slice(1100, 1400),
    "test": slice(1400, 1797),
}


@dataclass(frozen=True)
class Kind:
    """What one expert sees.

    Attributes:
        words: In words, for the report.
        change: What happens to the images: (images, 8, 8) to the same.
        digits: Which digits there are.
    """

    words: str
    change: Callable[[Images], Images] = lambda images: images
    digits: tuple[int, ...] = tuple(range(10))


def turned(images: Images) -> Images:
    rotated = ndimage.rotate(images, 25, axes=(2, 1), reshape=False, order=1)
    return np.clip(rotated, 0, 1).astype(np.float32)


def shifted(images: Images) -> Images:
    return np.pad(images, ((0, 0), (0, 0), (1, 0)))[:, :, :-1]


def noisy(images: Images) -> Images:
    noise = np.random.default_rng(1).normal(0, 0.35, images.shape)
    return np.clip(images + noise, 0, 1).astype(np.float32)


KINDS = {
    "even": Kind("0, 2, 4, 6 and 8 only", digits=(0, 2, 4, 6, 8)),
    "odd": Kind("1, 3, 5, 7 and 9 only", digits=(1, 3, 5, 7, 9)),
    "turned": Kind("turned by 25 degrees", turned),
    "shifted": Kind("one pixel to the right", shifted),
    "noisy": Kind("with Gaussian noise of standard deviation 0.35", noisy),
}


@cache
def plain(part: str) -> tuple[Images, Labels]:
    """Images of a part of the file as they are, and their digits."""
    images, labels = load_digits(return_X_y=True)
    return (images[PARTS[part]] / 16).astype(np.float32), labels[PARTS[part]].astype(np.int64)


@cache
def of_kind(name: str, part: str) -> tuple[Images, Labels]:
    """Images of a part of the file as an expert sees them, and their digits."""
    kind = KINDS[name]
    images, labels = plain(part)
    changed = kind.change(images.reshape(-1, 8, 8)).reshape(-1, 64)
    chosen = np.isin(labels, kind.digits)
    return changed[chosen], labels[chosen]
