"""Kernels: compiled once, believed from the cache only when whole, and the same to their callers as before."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path

import numba
import numpy as np
import pytest

from polyak.errors import KernelUnavailable
from polyak.native import _store, kernel, saying_when_compiling, scratch

LOOPS = """
import sys
import numpy as np
from polyak.native import filled, in_rows, inlined, kernel, scratch, settle, stream

ADDEND = 3

@inlined
def added(x):
    return x + ADDEND

@kernel
def grown(row):
    for i in range(row.size):
        row[i] = added(row[i])

@kernel
def total(rows, scale, twice):
    kept, found = scratch(4, np.float32), np.float32(0)
    for i in range(kept.size):
        kept[i] = np.float32(0)
    for r in range(rows.shape[0]):
        for i in range(rows.shape[1]):
            kept[i % 4] += rows[r, i]
    for i in range(kept.size):
        found += kept[i]
    return float(found) * scale * (2 if twice else 1)

@kernel
def ends(row):
    return row[0], row[row.size - 1]

@kernel
def streamed(row, out, begin):
    stream(row, out, begin)
    settle()

def doubled(row):
    for i in range(row.size):
        row[i] *= 2

def _change(row):
    pass

def _changed(flat, rows, *more):
    table = in_rows(flat, rows, 3)
    for r in range(rows):
        _change(table[r])
    return table[rows - 1, 0] + more[0]

changed_by_growing = filled(_changed, _change=grown)
changed_by_doubling = filled(_changed, _change=kernel(doubled))

if __name__ == "__main__":
    row = np.arange(6, dtype=np.float32)
    grown(row)
    print(row.tolist(), "numba" in sys.modules)
"""


@pytest.fixture
def loops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    _store.folder.cache_clear()
    (tmp_path / "loops.py").write_text(LOOPS)
    module = types.ModuleType("loops")
    exec(compile(LOOPS, str(tmp_path / "loops.py"), "exec"), module.__dict__)
    yield module
    _store.folder.cache_clear()


def run(tmp_path: Path, source: str = LOOPS) -> str:
    """In a process of its own, with its own cache."""
    (tmp_path / "loops.py").write_text(source)
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, str(tmp_path / "loops.py")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


def test_the_second_process_loads_what_the_first_compiled_without_numba(tmp_path: Path):
    numbers = [3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    assert run(tmp_path) == f"{numbers} True"
    assert run(tmp_path) == f"{numbers} False"
    changed = [number + 2 for number in numbers]  # a constant of a function that the kernel calls
    assert run(tmp_path, LOOPS.replace("ADDEND = 3", "ADDEND = 5")) == f"{changed} True"
    damaged = max((tmp_path / "cache").iterdir(), key=lambda kept: kept.stat().st_mtime_ns)
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    source = LOOPS.replace("ADDEND = 3", "ADDEND = 5")
    assert run(tmp_path, source) == f"{changed} True"
    damaged.write_bytes(damaged.read_bytes()[:40])
    assert run(tmp_path, source) == f"{changed} True"
    assert run(tmp_path, source) == f"{changed} False"


def test_another_kernels_file_is_not_taken_for_this_one(tmp_path: Path):
    assert run(tmp_path).endswith("True")
    (kept,) = (tmp_path / "cache").iterdir()
    changed = LOOPS.replace("ADDEND = 3", "ADDEND = 5")
    assert run(tmp_path, changed).endswith("True")
    (other,) = set((tmp_path / "cache").iterdir()) - {kept}
    other.write_bytes(kept.read_bytes())  # whole, but of the kernel that adds 3
    assert run(tmp_path, changed) == f"{[5.0, 6.0, 7.0, 8.0, 9.0, 10.0]} True"


@pytest.mark.parametrize("what", ["folder", "file"])
def test_a_cache_that_others_may_write_to_is_ignored_with_a_remedy(loops, tmp_path: Path, what: str):
    loops.grown(np.zeros(3, np.float32))
    (kept,) = (tmp_path / "cache").iterdir()
    (kept if what == "file" else kept.parent).chmod(0o777)
    _store.folder.cache_clear()
    with pytest.warns(RuntimeWarning, match=r"cache.*writable by others. (Remedy: chmod go-w|Delete it)"):
        if what == "file":
            assert _store.read(kept) is None
        else:
            assert kept.parent != _store.folder(tmp_path)


def test_a_cache_of_another_user_is_ignored(loops, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    loops.grown(np.zeros(3, np.float32))
    status = os.stat_result((0o100600, 0, 0, 1, os.geteuid() + 1, 0, 0, 0, 0, 0))
    monkeypatch.setattr(_store.os, "fstat", lambda _: status)
    (kept,) = (tmp_path / "cache").iterdir()
    with pytest.warns(RuntimeWarning, match="belongs to another user"):
        assert _store.read(kept) is None


FORBID = """
import ctypes, sys
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0):  # PR_SET_MDWE: memory that was written never becomes executable
    sys.exit("unsupported")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_MDWE is Linux's")
def test_where_executable_memory_is_forbidden_the_remedy_is_told(tmp_path: Path):
    run(tmp_path)  # compiled by Numba, which needs such memory itself
    (tmp_path / "loops.py").write_text(FORBID + LOOPS)
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, str(tmp_path / "loops.py")]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if "unsupported" in ended.stderr:
        pytest.skip("this kernel has no PR_SET_MDWE")
    assert ended.returncode == 1
    assert "forbids processes to make executable memory" in ended.stderr
    assert "Install a wheel" in ended.stderr


def test_without_a_place_for_the_cache_kernels_are_compiled_each_time(loops, tmp_path: Path):
    (tmp_path / "cache").write_text("a file where a folder should be")
    row = np.zeros(3, np.float32)
    loops.grown(row)
    assert row.tolist() == [3, 3, 3]


def test_a_kernel_that_cannot_be_kept_leaves_no_draft(loops, tmp_path: Path):
    loops.grown(np.zeros(3, np.float32))
    (kept,) = (tmp_path / "cache").iterdir()
    kept.unlink()
    kept.mkdir()  # so that a file cannot be moved there
    _store.write(kept, _store.Compiled("", b"code"))
    assert [*(tmp_path / "cache").iterdir()] == [kept]


def test_a_compiler_that_is_switched_off_is_refused_with_a_remedy(loops, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    with pytest.raises(KernelUnavailable, match=r"NUMBA_DISABLE_JIT turns off the compiler .* Unset it"):
        loops.grown(np.zeros(3, np.float32))


def test_a_numba_that_cannot_be_imported_is_told(loops, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "polyak.native._build", None)  # as Numba does with a NumPy that is too new
    with pytest.raises(KernelUnavailable, match=r"Numba cannot be imported: .*\. Install versions that fit"):
        loops.grown(np.zeros(3, np.float32))


@pytest.mark.slow
def test_arrays_of_any_layout_are_taken(loops):
    whole = np.arange(24, dtype=np.float32).reshape(4, 6)
    unaligned = np.frombuffer(b"\0" + whole.tobytes(), np.uint8)[1:].view(np.float32).reshape(4, 6)
    for rows in (whole, whole[:, :4], whole[::2], whole.T, whole[::-1, ::-1], unaligned, whole[:0]):
        assert loops.total(rows, 0.5, False) == 0.5 * rows.sum()
    assert loops.total(whole.astype(np.float64), 2.0, True) == 4 * whole.sum()


def test_results_are_tuples_of_numbers_too(loops):
    assert loops.ends(np.array([4, 5, 6])) == (4, 6)
    assert loops.ends(np.array([0.25, 6])) == (0.25, 6.0)


def test_it_is_said_once_that_kernels_are_compiled(loops):
    messages: list[str] = []
    with saying_when_compiling(messages.append):
        loops.grown(np.zeros(3, np.float32))
        loops.grown(np.zeros(3, np.float64))
        loops.grown(np.zeros(3, np.float64))
    loops.ends(np.zeros(3))
    assert len(messages) == 1


def test_a_kernel_that_allocates_is_refused(loops):
    @kernel
    def careless(row):
        row[:] = np.zeros(row.size)

    with pytest.raises(TypeError, match=r"careless cannot be compiled\..*`scratch`"):
        careless(np.zeros(3))


def test_a_kernel_whose_result_has_no_known_type_is_refused(loops):
    @kernel
    def narrow(row):
        return row[0]

    with pytest.raises(TypeError, match="narrow returns float32"):
        narrow(np.zeros(3, np.float32))


def test_arguments_that_are_no_numbers_are_refused(loops):
    with pytest.raises(TypeError, match=r"grown .* str"):
        loops.grown("row")


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0, 1, 15])
@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 100])
def test_what_is_streamed_arrives_where_it_should_and_nowhere_else(loops, n: int, shift: int):
    row = np.arange(1, n + 1, dtype=np.float32)
    memory = np.zeros(200, np.float32)
    first = -memory.ctypes.data // 4 % 16 + shift  # lines of the cache have 16 numbers
    out, expected = memory[first : first + n + 40], np.zeros(n + 40, np.float32)
    expected[3 : 3 + n] = row
    loops.streamed(row, out, 3)
    np.testing.assert_array_equal(out, expected)
    assert memory.sum() == row.sum()
    loops.streamed.code(row, out := np.zeros(n + 40, np.float32), 3)
    np.testing.assert_array_equal(out, expected)


def test_scratch_is_an_array_in_plain_python_too():
    assert scratch(3, np.float32).shape == (3,)


def test_a_template_is_a_kernel_of_its_own_for_each_filling(loops: types.ModuleType):
    flat = np.arange(7, dtype=np.float32)
    assert loops.changed_by_growing(flat, 2, 0.5) == 6.5
    np.testing.assert_array_equal(flat, [3, 4, 5, 6, 7, 8, 6])
    assert loops.changed_by_doubling(flat, 2, 0.25) == 12.25
    np.testing.assert_array_equal(flat, [6, 8, 10, 12, 14, 16, 6])


def test_a_user_without_a_home_has_a_folder_for_kernels(monkeypatch, tmp_path):
    def homeless():
        raise RuntimeError

    for variable in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert _store.folder.__wrapped__(tmp_path) == tmp_path / "__pycache__" / "kernels"
