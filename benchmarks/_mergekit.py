"""mergekit's time for the same work, measured once and kept: `mergekit.json` beside the results."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from _bench import FILE, Bench, Recipe
from _process import Failed, run
from _results import say, write_json

COMMAND = '"$TOOL" "$RECIPE" "$OUT" && sync "$OUT"/*.safetensors'
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}


class Mergekit:
    """One installation of mergekit.

    Args:
        python: The interpreter that it is installed for.

    Raises:
        Failed: it is not.
    """

    def __init__(self, python: Path) -> None:
        self._tool = python.with_name("mergekit-yaml")
        if not self._tool.exists():
            raise Failed(f"{self._tool} is not there: --mergekit takes an interpreter that mergekit is installed for")
        ask = "from importlib.metadata import version; print(version('mergekit'))"
        self.version = subprocess.run([python, "-c", ask], check=True, capture_output=True, text=True).stdout.strip()

    def seconds(self, asked: Recipe, bench: Bench) -> float:
        """One run of a recipe of its own, with its inputs in the page cache, output synced."""
        recipe, out = bench.written(asked), bench.scratch / "theirs"
        run(["sh", "-c", 'cat "$@" > /dev/null', "sh", *_inputs(asked)])
        env = {**ENVIRONMENT, "TOOL": str(self._tool), "RECIPE": str(recipe), "OUT": str(out)}
        shutil.rmtree(out, ignore_errors=True)
        try:
            return float(f"{run(['sh', '-c', COMMAND], env=env).seconds:.4g}")
        finally:
            shutil.rmtree(out, ignore_errors=True)


def measure(
    mergekit: Mergekit, bench: Bench, path: Path, machine: Mapping[str, str], works: Iterable[tuple[str, Recipe]]
) -> int:
    """Measure works, each a name and a recipe of mergekit's, and keep their times in a file.

    Returns:
        How many failed.
    """
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    same = kept.get("machine") == machine and kept.get("version") == mergekit.version
    found = kept if same else {"machine": machine, "version": mergekit.version, "seconds": {}}
    failed = 0
    for name, asked in works:
        try:
            found["seconds"][name] = seconds = mergekit.seconds(asked, bench)
        except (Failed, OSError) as error:
            failed += 1
            say(name, f"not measured: {error}")
        else:
            say(name, f"mergekit {mergekit.version}: {seconds:.3g} s")
            write_json(path, found)
    return failed


def recipe_for(mergekit: Mapping[str, Any], experts: Sequence[Path], base: Path | None) -> Recipe:
    """A recipe of mergekit's in which all models count alike."""
    first = mergekit["merge_method"] == "slerp"  # there, mergekit calls the first model the base
    return {
        "models": [{"model": str(path), "parameters": {"weight": 1.0}} for path in experts],
        **({"base_model": str(experts[0] if first else base)} if base or first else {}),
        "dtype": "bfloat16",
        **mergekit,
    }


def _inputs(recipe: Mapping[str, Any]) -> list[Path]:
    folders = [one["model"] for one in recipe["models"]] + [recipe[key] for key in ("base_model",) if key in recipe]
    return [Path(folder) / FILE for folder in folders]
