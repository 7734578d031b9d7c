"""Libraries of compiled kernels: which level is chosen, what is found in one, and what happens without a compiler."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from building.check import ALLOWED, FUSED, fused_instructions, undefined
from polyak.engine.step.prepared import PreparedStep
from polyak.errors import KernelUnavailable
from polyak.kernels.weighted_sums import add, middle, weighted_sum
from polyak.native import Kernel, _kernel, _library, is_available, kernel

BUILDING = Path(__file__).parents[2]
ONLY = r"weighted_sums\.(add|weighted_sum)$"
V2 = "cx16 lahf_lm popcnt pni ssse3 sse4_1 sse4_2"
V3 = f"{V2} avx avx2 bmi1 bmi2 f16c fma abm movbe xsave"
V4 = f"{V3} avx512f avx512bw avx512cd avx512dq avx512vl"


def forget() -> None:
    for function in (_library._best, _library.opened, _library.supported_levels, is_available):
        function.cache_clear()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library of two kernels for the lowest level that this machine has."""
    if not _library.supported_levels():
        pytest.skip("libraries are made for Linux on x86-64-v2 and aarch64")
    made = tmp_path_factory.mktemp("libraries")
    command = [sys.executable, "-m", "building", "--levels", _library.supported_levels()[-1]]
    command += ["--only", ONLY, "--out", made / "cache", "--into", made, "--jobs", "1"]
    subprocess.run(command, cwd=BUILDING, check=True, capture_output=True)
    return made


@pytest.fixture
def installed(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """As if the wheel had been installed without Numba."""
    monkeypatch.setattr(_library, "FOLDER", folder)
    monkeypatch.setattr(_kernel, "has_compiler", lambda: False)
    for loaded in (add, middle, weighted_sum):
        monkeypatch.setattr(loaded, "_variants", {})
    forget()
    yield
    forget()


def test_a_library_needs_the_c_library_for_memory_alone_and_fuses_nothing(folder: Path):
    if not (shutil.which("nm") and shutil.which("objdump")):
        pytest.skip("needs nm and objdump")
    (library,) = folder.glob("*.so")
    assert undefined(library) <= ALLOWED
    assert fused_instructions(library) == []


def test_a_library_that_objdump_cannot_read_does_not_pass(tmp_path: Path):
    if not shutil.which("objdump"):
        pytest.skip("needs nm and objdump")
    (tmp_path / "kernels.so").write_bytes(b"no library")
    with pytest.raises(SystemExit, match=r"objdump cannot read kernels\.so"):
        fused_instructions(tmp_path / "kernels.so")


@pytest.mark.parametrize(
    "instruction", ["vfmadd213ps %ymm0,%ymm1,%ymm2", "vfnmsub231ss", "fmla v0.4s, v1.4s", "fmadd s0"]
)
def test_fused_instructions_are_recognised(instruction: str):
    assert FUSED.search(instruction)
    assert not FUSED.search("vmulps %ymm0,%ymm1,%ymm2")


@pytest.mark.parametrize(
    ("flags", "level"), [("sse2", None), (V2, "x86-64-v2"), (V3, "x86-64-v3"), (V4, "x86-64-v4"), (V4[5:], None)]
)
def test_the_level_is_the_highest_whose_flags_are_all_there(flags: str, level: str | None):
    assert next(iter(_library._x86_64_levels(frozenset(flags.split()))), None) == level


def test_a_missing_flag_of_a_lower_level_counts():
    assert _library._x86_64_levels(frozenset(V4.split()) - {"bmi2"}) == ("x86-64-v2",)


@pytest.mark.parametrize(
    ("forced", "message"),
    [("avx9", "unknown level. Known: x86-64-v4"), ("X86-64-V2", "unknown"), ("aarch64", "supports")],
)
def test_a_level_that_cannot_be_forced_is_refused(monkeypatch: pytest.MonkeyPatch, forced: str, message: str):
    monkeypatch.setattr(_library, "supported_levels", lambda: ("x86-64-v2",))
    monkeypatch.setenv("POLYAK_KERNEL_LEVEL", forced)
    with pytest.raises(KernelUnavailable, match=message):
        _library.level()


def test_a_level_without_a_library_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(_library, "FOLDER", tmp_path)
    monkeypatch.setattr(_library, "supported_levels", lambda: ("x86-64-v2",))
    monkeypatch.setenv("POLYAK_KERNEL_LEVEL", "x86-64-v2")
    with pytest.raises(KernelUnavailable, match=r"no .*kernels-x86-64-v2.so. Install a wheel"):
        _library.level()


DAMAGE = {
    "empty": lambda data: b"",
    "header cut": lambda data: data[:40],
    "half": lambda data: data[: len(data) // 2],
    "last byte cut": lambda data: data[:-1],
    "text": lambda data: b"kernels\n" * 100,
    "another processor": lambda data: data[:18] + b"\x08\x00" + data[20:],  # e_machine: MIPS
    "no index": lambda data: data.replace(b"polyak_index\0", b"polyak_indeX\0"),
    "no such symbol": lambda data: re.sub(rb"\0polyak_(\w{32}\0)", rb"\0Polyak_\1", data),
    "torn index": lambda data: re.sub(rb"(polyak_\w{32}) ", rb"\1_", data),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_library_is_refused_with_a_remedy(folder: Path, tmp_path: Path, damage):
    """In the process of the test: a crash of the loader would end it."""
    whole = next(folder.glob("*.so"))
    assert _library.Library(whole)._variants
    path = tmp_path / whole.name
    path.write_bytes(damage(whole.read_bytes()))
    with pytest.raises(KernelUnavailable, match=r"is not a whole library of kernels: .*Install polyak again"):
        _library.Library(path)


def test_a_kernel_of_the_library_computes_what_its_source_says(installed: None):
    rng = np.random.default_rng(0)
    stack, weight = rng.standard_normal((3, 1500)).astype(np.float32), np.array([0.5, -1, 2], np.float32)
    out, expected = np.zeros(1500, np.float32), np.zeros(1500, np.float32)
    weighted_sum(out, stack, weight, 0.25)
    weighted_sum.code(expected, stack, weight, 0.25)
    np.testing.assert_array_equal(out, expected)


def test_what_a_kernel_writes_to_other_layouts_arrives(installed: None):
    wide, base = np.zeros((4, 3), np.float32), np.arange(4, dtype=np.float32)
    add(wide[:, 1], base)
    np.testing.assert_array_equal(wide, [[0, i, 0] for i in range(4)])


def test_a_kernel_outside_the_library_is_refused_with_a_remedy(installed: None):
    with pytest.raises(KernelUnavailable, match=r"middle was not built for \(float32\[1\], .*polyak\[compile\]"):
        middle(np.zeros(3, np.float32), np.zeros((2, 3), np.float32))


def test_none_turns_the_library_off(installed: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("POLYAK_KERNEL_LEVEL", "none")
    with pytest.raises(KernelUnavailable):
        add(np.zeros(3, np.float32), np.zeros(3, np.float32))


@kernel
def _foreign(out, stack, start):
    out[:] = stack[0]


def _form(out, stack):
    _foreign(out, stack, 0)


@pytest.mark.parametrize("fn", [_foreign, _form])
def test_a_kernel_of_another_package_needs_the_compiler_and_says_so(installed: None, fn):
    with pytest.warns(RuntimeWarning, match=r"_foreign: not compiled.*definitions run.*polyak\[compile\]"):
        assert not is_available(fn)
    assert is_available(add)
    assert isinstance(add, Kernel)


def test_without_a_compiler_a_foreign_kernel_gives_way_to_the_definition(installed: None):
    prepared = SimpleNamespace(method=SimpleNamespace(kernel_form=_form))
    with pytest.warns(RuntimeWarning, match="definitions run"):
        assert PreparedStep.kernel_form.func(prepared) is None
