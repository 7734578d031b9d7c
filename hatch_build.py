"""Put compiled kernels into a wheel.

POLYAK_KERNEL_LEVELS names the levels, separated by commas. Without it, and in editable installations, a wheel is pure
Python, and kernels are compiled on the user's machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

TAGS = {"aarch64": "py3-none-manylinux_2_17_aarch64"}
X86_64 = "py3-none-manylinux_2_17_x86_64"


class KernelLibraries(BuildHookInterface[Any]):
    """Compiles the libraries, or takes them from `build/kernels`, and gives the wheel the tag of its processors."""

    def dependencies(self) -> list[str]:
        """Requirements of the build in addition to hatchling."""
        core = self.metadata.core
        return [*core.dependencies, *core.optional_dependencies["compile"]] if _levels() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the libraries to the files of the wheel."""
        if not (levels := _levels()) or version == "editable":
            return
        tags = {TAGS.get(level, X86_64) for level in levels}
        if len(tags) > 1:
            raise ValueError(f"POLYAK_KERNEL_LEVELS={','.join(levels)}: a wheel is for one architecture. Build two.")
        for library in _libraries(Path(self.root), levels):
            build_data["force_include"][str(library)] = f"polyak/native/libraries/{library.name}"
        build_data["pure_python"], build_data["tag"] = False, tags.pop()


def _levels() -> list[str]:
    return list(filter(None, os.environ.get("POLYAK_KERNEL_LEVELS", "").split(",")))


def _libraries(root: Path, levels: list[str]) -> list[Path]:
    """Compile in a process of its own, which has its own switches for Numba."""
    folder = root / "build" / "libraries"
    paths = os.pathsep.join(filter(None, [str(root / "src"), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "building", "--levels", ",".join(levels), "--into", str(folder)]
    command += ["--only", os.environ.get("POLYAK_KERNEL_ONLY", "")]
    subprocess.run(command, cwd=root, env=os.environ | {"PYTHONPATH": paths}, check=True)
    return [folder / f"kernels-{level}.so" for level in levels]
