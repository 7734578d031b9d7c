"""A wheel with a library of kernels, installed without Numba, merges to the bytes of kernels compiled here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from building import check
from polyak.native import supported_levels

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
# The kernels of a linear merge per dtype: all take minutes.
ONLY = r"_from_f32, \S+_cast, \S+weighted_sums\.combine|_from_(b?f16), \S+_to_\1, \S+weighted_sums\.combine"


def test_a_wheel_installed_without_numba_merges_to_the_bytes_of_kernels_compiled_here(tmp_path: Path):
    """One test, since one wheel is built: with the highest level that runs here, which has fused instructions."""
    if not supported_levels():
        pytest.skip("libraries are made for Linux on x86-64-v2 and aarch64")
    if not (shutil.which("nm") and shutil.which("objdump")):
        pytest.skip("needs nm and objdump")
    python = _installed(_wheel(supported_levels()[0], tmp_path), tmp_path / "environment")
    check.refuse_numba(python)
    assert "the same bytes: " in check.check_bytes(python, "linear")[0]
    assert "no fused multiply-add" in check.check_libraries(python)[0]
    ended = subprocess.run([python, "-I", check.MERGES, "ties"], capture_output=True, text=True, check=False)
    assert ended.returncode == 1  # its kernels were left out of the wheel
    assert "polyak[compile]" in ended.stderr


def test_merges_that_differ_between_levels_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    answers = {"x86-64-v2": '{"linear": "a"}', "x86-64-v3": '{"linear": "b"}', None: '["x86-64-v3", "x86-64-v2"]'}
    libraries = [Path(f"kernels-{level}.so") for level in ("x86-64-v2", "x86-64-v3")]
    monkeypatch.setattr(check, "_libraries", lambda _: libraries)
    monkeypatch.setattr(check, "_run", lambda *_, **env: answers.get(env.get("POLYAK_KERNEL_LEVEL"), "{}"))
    with pytest.raises(SystemExit, match=r"merges differ:\nx86-64-v3: .*\nx86-64-v2: "):
        check.check_bytes(tmp_path / "python", "linear")


def _wheel(level: str, folder: Path) -> Path:
    variables = {"POLYAK_KERNEL_LEVELS": level, "POLYAK_KERNEL_ONLY": ONLY}
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
    subprocess.run(command, cwd=ROOT, env=os.environ | variables, check=True, capture_output=True)
    (wheel,) = folder.glob("polyak-*-manylinux_*.whl")
    return wheel


def _installed(wheel: Path, environment: Path) -> Path:
    """Make an environment of the wheel and what it requires, and nothing else; return its Python."""
    venv.create(environment, with_pip=False)
    packages = next((environment / "lib").glob("python*/site-packages"))
    shutil.unpack_archive(wheel, packages, "zip")
    for required in _requirements(Distribution.at(next(packages.glob("polyak-*.dist-info"))), {}).values():
        _link(required, packages)
    return environment / "bin" / "python"


def _requirements(package: Distribution, seen: dict[str, Distribution]) -> dict[str, Distribution]:
    """All installed packages that a package requires, by name; its extras are left out."""
    for text in package.requires or ():
        requirement = Requirement(text)
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if applies and requirement.name not in seen:
            seen[requirement.name] = distribution(requirement.name)
            _requirements(seen[requirement.name], seen)
    return seen


def _link(package: Distribution, packages: Path) -> None:
    """Link the files of an installed package: copies would take longer than the test."""
    for top in {path.parts[0] for path in package.files or ()} - {"..", "__pycache__"}:
        (packages / top).symlink_to(str(package.locate_file(top)))
