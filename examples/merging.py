"""Recipes written to files, and the `polyak` command run on them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml


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
        return self.folder / "models" / name

    def recipe(self, name: str) -> Path:
        return self.folder / "recipes" / f"{name}.yaml"

    def merge(self, merge: Merge, name: str = "") -> Path:
        """Write the recipe, run `polyak merge` on it and return the merged model's folder."""
        name = name or merge.method
        path, out = self.recipe(name), self.folder / "merged" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(self._data(merge, path.parent), sort_keys=False), encoding="utf-8")
        polyak("merge", path, out, "--force", "--quiet")
        return out

    def _data(self, merge: Merge, beside: Path) -> dict[str, Any]:
        found: dict[str, Any] = {
            "base": os.path.relpath(self.model("base"), beside),
            "models": [os.path.relpath(self.model(name), beside) for name in self.experts],
            "method": merge.method,
            "settings": dict(merge.settings),
            **self.extra,
        }
        return {key: value for key, value in found.items() if value != {}}

    def choose_scale(self, merge: Merge, score: Callable[[Path], float]) -> Merge:
        """The scale with the highest score, the smallest among equals; methods without one stay as they are."""
        if not merge.scales:
            return merge
        candidates = [merge.with_scale(scale) for scale in merge.scales]
        return max(candidates, key=lambda one: score(self.merge(one, f"search/{one.method}-{one.settings['scale']}")))


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
