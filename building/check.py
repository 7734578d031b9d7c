"""Check a wheel: `python -m building.check dist/polyak-*.whl` installs it where there is no Numba, and merges with it.

Every level that this processor supports must write the same bytes; libraries must hold no fused multiply-add and need
nothing but memcpy, memmove and memset; the environment must be small.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

MOST_NBYTES = 140_000_000
ALLOWED = {"memcpy", "memmove", "memset"}
FUSED = re.compile(r"\bv?fn?m(add|sub|la|ls)\w*\b", re.IGNORECASE)  # x86-64: vfmadd..., aarch64: fmadd, fmla

MERGES = Path(__file__).with_name("merges.py")


def main() -> None:
    """Parse the command line and check."""
    parser = argparse.ArgumentParser(prog="python -m building.check", description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument(
        "--methods", default="linear,task_arithmetic,ties", help="comma-separated (default: %(default)s)"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        python = installed(arguments.wheel, Path(folder) / "environment")
        refuse_numba(python)
        for line in (*check_size(python), *check_libraries(python), *check_bytes(python, arguments.methods)):
            print(line, flush=True)


def installed(wheel: Path, environment: Path) -> Path:
    """Install a wheel and what it needs into a new environment; return its Python."""
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel], check=True)
    return python


def refuse_numba(python: Path) -> None:
    """Exit if the environment can import Numba: it would compile what the wheel lacks."""
    if subprocess.run([python, "-I", "-c", "import numba"], capture_output=True, check=False).returncode == 0:
        sys.exit(f"{python} can import numba; expected an environment without it.")


def check_size(python: Path) -> list[str]:
    """The whole environment must be small."""
    packages = next((python.parents[1] / "lib").glob("python*/site-packages"))
    nbytes = sum(path.lstat().st_size for path in packages.rglob("*") if path.is_file())
    if nbytes > MOST_NBYTES:
        sys.exit(f"{packages} has {nbytes:,} bytes; expected at most {MOST_NBYTES:,}.")
    return [f"environment: {nbytes:,} bytes"]


def check_libraries(python: Path) -> list[str]:
    """No library may use a fused multiply-add, which rounds once where others round twice, or anything from outside."""
    lines: list[str] = []
    for library in sorted(_libraries(python)):
        if outside := undefined(library) - ALLOWED:
            sys.exit(f"{library.name} needs {', '.join(sorted(outside))}; expected nothing but {', '.join(ALLOWED)}.")
        if fused := fused_instructions(library):
            sys.exit(f"{library.name} has {len(fused)} fused instructions, such as {fused[0]}.")
        lines.append(f"{library.name}: {library.stat().st_size:,} bytes, no fused multiply-add")
    return lines


def undefined(library: Path) -> set[str]:
    """Names that a library takes from other libraries."""
    out = subprocess.run(["nm", "-D", "--undefined-only", library], capture_output=True, text=True, check=True).stdout
    return {line.split()[-1].partition("@")[0] for line in out.splitlines()}


def fused_instructions(library: Path) -> list[str]:
    """Instructions that multiply and add with one rounding."""
    out = subprocess.run(["objdump", "-d", "--no-show-raw-insn", library], capture_output=True, text=True, check=False)
    if out.returncode:
        sys.exit(f"objdump cannot read {library.name}: {out.stderr.strip()} Install binutils for its processors.")
    return [line.strip() for line in out.stdout.splitlines() if FUSED.search(line.partition(":")[2])]


def check_bytes(python: Path, methods: str) -> list[str]:
    """Every level must merge to the same bytes, and so must kernels compiled by this Python if it has Numba."""
    levels = [path.stem.removeprefix("kernels-") for path in _libraries(python)]
    usable = [level for level in json.loads(_run([python, "-I"], "levels")) if level in levels]
    strict = [python, "-I", "-W", "error::RuntimeWarning"]  # definitions that run in place of kernels
    digests = {level: _run(strict, methods, POLYAK_KERNEL_LEVEL=level) for level in usable}
    if subprocess.run([sys.executable, "-c", "import numba"], capture_output=True, check=False).returncode == 0:
        digests["compiled here"] = _run([sys.executable], methods, POLYAK_KERNEL_LEVEL="none")
    if len(set(digests.values())) != 1:
        sys.exit("merges differ:\n" + "\n".join(f"{level}: {text}" for level, text in digests.items()))
    return [f"{len(json.loads(digests[usable[0]]))} merges, the same bytes: {', '.join(digests)}"]


def _libraries(python: Path) -> list[Path]:
    return list(python.parents[1].glob("lib/python*/site-packages/polyak/native/libraries/*.so"))


def _run(python: list[str | Path], argument: str, **variables: str) -> str:
    command = [*python, MERGES, argument]
    return subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    main()
