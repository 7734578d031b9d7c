"""What all measurements share: inputs, outputs, and the limit of the machine."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _process import Failed, Run, in_turn, run

HERE = Path(__file__).parent
FILE = "model.safetensors"
# Without reflinks `cp` writes its copy on every file system, as a merge must.
LIMIT = 'cat "$@" > /dev/null && cp --reflink=never "$FROM" "$TO" && sync "$TO"'

# An installed package has its bytecode; a checkout has none where Python is told not to write it.
BYTECODE = {"PYTHONDONTWRITEBYTECODE": ""}

Recipe = Mapping[str, Any]


@dataclass(frozen=True)
class Bench:
    """Where and how often to measure, and on what.

    Attributes:
        work: Folder of inputs, kept from one benchmark to the next.
        scratch: Folder of outputs, on the same file system.
        runs: Counted runs of each work.
        shape: Shape of the models of the rows.
        small: Shape of the models where many are needed.
        large: Also measure what needs tens of gigabytes of disk.
    """

    work: Path
    scratch: Path
    runs: int
    shape: str
    small: str
    large: bool = False

    def family(self, shape: str, experts: int = 3, dtype: str = "BF16") -> list[Path]:
        """A base and its experts; made unless they are there."""
        folder = self.work / (shape if dtype == "BF16" else f"{shape}-{dtype}")
        paths = [folder / name for name in ("base", *(f"expert-{i}" for i in range(experts)))]
        if not all((path / FILE).exists() for path in paths):
            command = [sys.executable, HERE / "_inputs.py", folder, shape, str(experts), dtype]
            if subprocess.run(command, check=False).returncode:
                raise Failed(f"the inputs of shape {shape} could not be made")
            os.sync()  # else their way to the disk is measured with the first work
        return paths

    def compare(self, recipe: Recipe) -> tuple[list[Run], list[Run]]:
        """The limit of the machine and the merge, in turn."""
        limit, ours = in_turn([lambda: self.limit(recipe), self.merging(recipe)], self.runs)
        return limit, ours

    def limit(self, recipe: Recipe) -> Run:
        """Read all inputs, write one output, and have it on the disk."""
        inputs = [path / FILE for path in inputs_of(recipe)]
        copy = self.scratch / "copy"
        try:
            return run(["sh", "-c", LIMIT, "sh", *inputs], env={"FROM": str(inputs[-1]), "TO": str(copy)})
        finally:
            copy.unlink(missing_ok=True)

    def merging(
        self, recipe: Recipe, *options: str, env: Mapping[str, str] | None = None, sampled: bool = False
    ) -> Callable[[], Run]:
        """One `polyak merge`, with digests, to a synced output."""
        file, out = self.written(recipe), self.scratch / "out"
        command = [console_script(), "merge", file, out, "--quiet", *options]

        def work() -> Run:
            try:
                return run(command, env={**BYTECODE, **(env or {})}, sampled=sampled)
            finally:
                shutil.rmtree(out, ignore_errors=True)

        return work

    def written(self, recipe: Recipe) -> Path:
        """The recipe's file; JSON is YAML."""
        text = json.dumps(recipe)
        file = self.scratch / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.yaml"
        file.write_text(text)
        return file


def recipe_of(method: str, models: Sequence[Path], base: Path | None = None, **settings: object) -> Recipe:
    """A recipe in which all models count alike."""
    return {
        **({} if base is None else {"base": str(base)}),
        "models": [str(path) for path in models],
        "method": method,
        "settings": settings,
    }


def inputs_of(recipe: Recipe) -> list[Path]:
    """The folders that a merge reads."""
    return [Path(path) for path in ([recipe["base"]] if "base" in recipe else []) + recipe["models"]]


def console_script() -> Path:
    """The `polyak` of this interpreter.

    Raises:
        Failed: it is not installed.
    """
    script = Path(sys.executable).with_name("polyak")
    if not script.exists():
        raise Failed("polyak is not installed for this interpreter: run `make setup`, then .venv/bin/python")
    return script
