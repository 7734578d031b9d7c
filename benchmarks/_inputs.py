"""Make one family of inputs, as a process of its own: `python _inputs.py FOLDER SHAPE EXPERTS DTYPE`.

Linux starts a child's maximum resident memory at its parent's: what measures must stay small, so the arrays live here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import _checkpoints


@dataclass(frozen=True)
class Alike:
    """Many tensors of one shape, in layers of 100."""

    count: int
    shape: tuple[int, ...]

    def shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        for i in range(self.count):
            yield f"model.layers.{i // 100}.experts.{i % 100}.weight", self.shape

    def config(self) -> dict[str, object]:
        return {"model_type": "alike", "num_hidden_layers": self.count // 100, "torch_dtype": "bfloat16"}


SHAPES = {
    **_checkpoints.SHAPES,
    "tiny": _checkpoints.Llama(64, 2, 128, 256),
    "1000-tensors": Alike(1_000, (64, 64)),
    "20000-tensors": Alike(20_000, (64,)),
}


def main() -> None:
    folder, shape, experts, dtype = sys.argv[1:]
    if shape not in SHAPES:
        raise SystemExit(f"no shape is called {shape!r}. There are: {', '.join(SHAPES)}.")
    _checkpoints.family(Path(folder), SHAPES[shape], int(experts), dtype)


if __name__ == "__main__":
    main()
