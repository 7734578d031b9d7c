"""A case: one merge, what it writes, and where its bytes may be compared."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from .inputs import MODELS, Inputs, write_json


@dataclass(frozen=True)
class Case:
    """One merge.

    Attributes:
        name: Unique, with slashes.
        run: Merges into a folder; or returns tensors, for merges in memory.
        portable: Whether the bytes are the same on every machine: no product of matrices by BLAS, no LAPACK, no
            sine, exponential or arc cosine by NumPy.
        quick: Whether the test suite replays it.
    """

    name: str
    run: Callable[[Inputs, Path], Mapping[str, np.ndarray] | None]
    portable: bool = True
    quick: bool = True


def merge(inputs: Inputs, recipe: Mapping[str, Any], out: Path, **options: Any) -> None:
    """Write the recipe beside the inputs, and carry it out."""
    import polyak

    path = write_json(inputs.root / "recipe.json", recipe)
    polyak.merge(path, out, **{"workers": 1, **options})


def recipe_of(folder: str, method: str, *, base: bool = True, models: int = 3, **more: Any) -> dict[str, Any]:
    """A recipe for models of a family."""
    chosen = [f"./{folder}/{name}" for name in MODELS[:models]]
    return ({"base": f"./{folder}/base"} if base else {}) | {"models": chosen, "method": method} | more


def command(*words: object) -> str:
    """Run `polyak ...` in this process; its standard output.

    Raises:
        RuntimeError: it failed.
    """
    from polyak.cli import main

    out, err = io.StringIO(), io.StringIO()
    arguments = ["polyak", *map(str, words)]
    with mock.patch.object(sys, "argv", arguments), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as stopped:
            if stopped.code not in (None, 0):
                raise RuntimeError(f"{' '.join(arguments)}: {err.getvalue()}") from None
    return out.getvalue()
