"""Devices for whole-matrix merges: NumPy on the CPU, or torch on another device.

Definitions are written against the array API standard, so that they take torch's tensors as they take NumPy's arrays.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...errors import SettingError, suggestion

DEVICES = ("cpu", "cuda", "auto")
_TESTED = "torch-cpu"  # torch without a GPU: for tests, since its bytes are neither's


@dataclass(frozen=True)
class Device:
    """A device of torch's.

    Attributes:
        name: Its name for `polyak merge --device`.
        torch_name: Its name in torch.
        said: Facts that results depend on: versions and kind, for their provenance.
    """

    name: str
    torch_name: str
    said: str
    _one: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def put(self, array: Any) -> Any:
        """A NumPy array as a tensor there; whatever else, as it is."""
        import torch

        return torch.from_numpy(array).to(self.torch_name) if isinstance(array, np.ndarray) else array

    def __enter__(self) -> None:
        """One matrix at a time: a device has less memory than its computer."""
        self._one.acquire()

    def __exit__(self, *_: object) -> None:
        self._one.release()


def device_of(name: str) -> Device | None:
    """The device of a name; None for NumPy on the CPU.

    Args:
        name: `cpu`; `cuda`; or `auto`, CUDA where there is torch and a GPU.

    Raises:
        SettingError: there is no such device, or no torch for it.
    """
    if name == "cpu":
        return None
    if name not in (*DEVICES, _TESTED):
        raise SettingError(f"there is no device {name!r}: it is {', '.join(DEVICES)}. {suggestion(name, DEVICES)}")
    try:
        import torch
    except ImportError:
        if name == "auto":
            return None
        raise SettingError(
            f"device {name!r} needs torch, which is not installed: pip install 'polyak[torch]', or take `cpu`."
        ) from None
    if name == _TESTED:
        return Device(name, "cpu", f"{name}, torch {torch.__version__}")
    if torch.cuda.is_available():
        return Device("cuda", "cuda", f"cuda, {torch.cuda.get_device_name()}, torch {torch.__version__}")
    if name == "auto":
        return None
    raise SettingError(
        "device 'cuda' was asked for, but torch finds no GPU (torch.cuda.is_available() is false): install a torch "
        "built for CUDA and NVIDIA's driver, or take `cpu`."
    )


def back(tensor: Any) -> Any:
    """A NumPy array of what was computed anywhere."""
    return tensor.cpu().numpy() if hasattr(tensor, "cpu") else tensor
