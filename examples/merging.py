"""Recipes written to files, and the `polyak` command run on them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from polyak import merge as merge_here


@dataclass(frozen=True)
class Merge:
    """One way to merge the experts.

    Attributes:
        method: The merge method's name.
        settings: Its settings, fixed in advance.
        scales: Values of its setting `scale` to choose from; none if it has no such setting.
    """

    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    scales: tuple[float, ...] = ()

    def with_scale(self, scale: float) -> Merge:
        """The same, with this scale fixed."""
        return Merge(self.method, {**self.settings, "scale": scale})


@dataclass(frozen=True)
class Workshop:
    """A folder with models in `models/`, recipes in `recipes/` and results in `merged/`.

    Attributes:
        folder: The folder.
        experts: Names of the fine-tuned models; their base is called `base`.
        extra: What every recipe says besides models, method and settings.
    """

    folder: Path
    experts: Sequence[str]
    extra: Mapping[str, Any] = field(default_factory=dict)

    def model(self, name: str) -> Path:
        """Folder of the base or an expert."""
        return self.folder / "models" / name

    def recipe(self, name: str) -> Path:
        """File of a recipe."""
        return self.folder / "recipes" / f"{name}.yaml"

    def merged(self, name: str) -> Path:
        """Folder of a merged model."""
        return self.folder / "merged" / name

    def merge(self, merge: Merge) -> Path:
        """Write the recipe, run `polyak merge` on it and return the merged model's folder."""
        path, out = self.recipe(merge.method), self.merged(merge.method)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(self._data(merge, path.parent), sort_keys=False), encoding="utf-8")
        polyak("merge", path, out, "--force", "--quiet")
        return out

    def choose_scale(self, merge: Merge, score: Callable[[Path], float]) -> Merge:
        """The scale with the highest score, the smallest among equals; methods without one stay as they are.

        Candidates are merged in this process: a command would import everything anew for each of them.
        """
        if not merge.scales:
            return merge
        return max((merge.with_scale(scale) for scale in merge.scales), key=lambda one: self._try(one, score))

    def _try(self, merge: Merge, score: Callable[[Path], float]) -> float:
        with TemporaryDirectory(dir=self.folder) as folder:
            return score(merge_here(self._data(merge, Path()), Path(folder, "candidate")).out)

    def _data(self, merge: Merge, beside: Path) -> dict[str, Any]:
        return {
            "base": os.path.relpath(self.model("base"), beside),
            "models": [os.path.relpath(self.model(name), beside) for name in self.experts],
            "method": merge.method,
            **({"settings": dict(merge.settings)} if merge.settings else {}),
            **self.extra,
        }


def polyak(*arguments: str | Path) -> str:
    """Run the command and return what it prints.

    Raises:
        SystemExit: it failed; with its error message.
    """
    command = [sys.executable, "-m", "polyak", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"`polyak {' '.join(map(str, arguments))}` ended with {done.returncode}:\n{done.stderr}")
    return done.stdout
