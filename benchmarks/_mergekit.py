"""mergekit's time for the same work, measured once and kept: `mergekit.json` beside the results."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from _bench import FILE, Bench
from _process import Failed, run
from _results import say, write_json
from _rows import ROWS, Row

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

    def seconds(self, row: Row, bench: Bench) -> float:
        """One run with its inputs in the page cache, output synced."""
        asked = _recipe(row, bench)
        recipe, out = bench.written(asked), bench.scratch / "theirs"
        run(["sh", "-c", 'cat "$@" > /dev/null', "sh", *_inputs(asked)])
        env = {**ENVIRONMENT, "TOOL": str(self._tool), "RECIPE": str(recipe), "OUT": str(out)}
        shutil.rmtree(out, ignore_errors=True)
        try:
            return float(f"{run(['sh', '-c', COMMAND], env=env).seconds:.4g}")
        finally:
            shutil.rmtree(out, ignore_errors=True)


def measure(
    mergekit: Mergekit, bench: Bench, path: Path, machine: Mapping[str, str], wanted: Callable[[str], object]
) -> int:
    """Measure the rows whose name is wanted, and keep them in a file.

    Returns:
        How many failed.
    """
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    same = kept.get("machine") == machine and kept.get("version") == mergekit.version
    found = kept if same else {"machine": machine, "version": mergekit.version, "seconds": {}}
    failed = 0
    for row in (row for row in ROWS if row.mergekit is not None and wanted(row.name(bench))):
        name = row.name(bench)
        try:
            found["seconds"][name] = seconds = mergekit.seconds(row, bench)
        except (Failed, OSError) as error:
            failed += 1
            say(name, f"not measured: {error}")
        else:
            say(name, f"mergekit {mergekit.version}: {seconds:.3g} s")
            write_json(path, found)
    return failed


def _recipe(row: Row, bench: Bench) -> dict[str, Any]:
    inputs = bench.family(bench.shape)
    base, experts = inputs[0], inputs[1 : 1 + row.models]
    slerp = row.method == "slerp"  # there, mergekit calls the first model the base
    return {
        "models": [{"model": str(path), "parameters": {"weight": 1.0}} for path in experts],
        **({"base_model": str(experts[0] if slerp else base)} if row.base or slerp else {}),
        "dtype": "bfloat16",
        **(row.mergekit or {}),
    }


def _inputs(recipe: Mapping[str, Any]) -> list[Path]:
    folders = [one["model"] for one in recipe["models"]] + [recipe[key] for key in ("base_model",) if key in recipe]
    return [Path(folder) / FILE for folder in folders]
