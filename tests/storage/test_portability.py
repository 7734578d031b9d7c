"""The storage room without what Linux alone has: the same files, locks and errors by portable calls."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading

import pytest

import polyak
from polyak.engine import run
from polyak.errors import OutputBusy, OutputError
from polyak.storage import (
    Lock,
    as_json,
    available_memory,
    cpu_count,
    exchange,
    locked,
    locks,
    machine,
    open_for_writing,
    read_at,
    read_into,
    sync_data,
    sync_folder,
    write_at,
    write_text,
    write_whole,
)

from ..engine.conftest import random_family, recipe_text, write_model

LINUX_ALONE = ("posix_fallocate", "fdatasync", "pread", "preadv", "pwrite", "sched_getaffinity")


@pytest.fixture
def not_linux(monkeypatch):
    """A system without flock, positioned input and output, preallocation, affinity and renameat2."""
    pytest.importorskip("filelock")
    for name in LINUX_ALONE:
        monkeypatch.delattr(os, name)
    monkeypatch.setattr(platform, "system", lambda: "Elsewhere")
    monkeypatch.setattr(locks, "fcntl", None)


@pytest.fixture(params=["linux", "elsewhere"])
def system(request):
    if request.param == "elsewhere":
        request.getfixturevalue("not_linux")
    return request.param


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_merge_writes_the_same_bytes_and_replaces_a_model(tmp_path, request):
    for name, tensors in random_family().items():
        write_model(tmp_path / name, tensors)
    (tmp_path / "recipe.yaml").write_text(recipe_text())
    run(polyak.plan(tmp_path / "recipe.yaml"), tmp_path / "linux")
    request.getfixturevalue("not_linux")
    for _ in range(2):  # the second replaces the first without an atomic exchange
        run(polyak.plan(tmp_path / "recipe.yaml"), tmp_path / "elsewhere", force=True)
        assert tree(tmp_path / "elsewhere") == tree(tmp_path / "linux")
    assert not list(tmp_path.glob(".*"))


def test_writes_and_reads_at_offsets_from_many_threads(tmp_path, system):
    fd = open_for_writing(tmp_path / "f", 64 * 1000)
    assert os.fstat(fd).st_size == 64 * 1000

    def fill(i):
        for j in range(0, 1000, 50):
            write_at(fd, bytes([i]) * 50, i * 1000 + j)

    threads = [threading.Thread(target=fill, args=(i,)) for i in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sync_data(fd)
    assert all(read_at(fd, 1000, i * 1000) == bytes([i]) * 1000 for i in range(64))
    buffer = memoryview(bytearray(8))
    assert read_into(fd, buffer, 64 * 1000 - 3) == 3
    assert bytes(buffer) == b"\x3f" * 3 + b"\0" * 5
    os.close(fd)


def test_an_existing_file_is_kept_and_given_its_length(tmp_path, system):
    (tmp_path / "f").write_bytes(b"abc")
    fd = open_for_writing(tmp_path / "f", 5)
    assert read_at(fd, 9, 0) == b"abc\0\0"
    os.close(fd)


HOLD = "import sys; from polyak.storage import Lock; Lock(__import__('pathlib').Path(sys.argv[1])); print('held', flush=True); input()"  # fmt: skip  # noqa: E501


def test_a_lock_keeps_another_process_out_until_it_dies(tmp_path, system):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / ".f.lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None and holder.stdout.readline()
    with pytest.raises(OutputBusy, match="in use"), locked(tmp_path / "f", "it is in use."):
        pass
    holder.kill()
    holder.communicate()
    with locked(tmp_path / "f", "it is in use."):
        assert (tmp_path / ".f.lock").exists()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_whose_file_was_removed_is_not_in_place(tmp_path):
    lock = Lock(tmp_path / "lock")
    assert lock.is_in_place()
    (tmp_path / "lock").unlink()
    assert not lock.is_in_place()
    lock.release()


def test_a_lock_that_cannot_be_made_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"), locked(tmp_path / "file" / "f", "busy"):
        pass


def test_two_folders_are_swapped_where_the_system_can(tmp_path, system):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    swapped = exchange(tmp_path / "a", tmp_path / "b")
    assert swapped == (system == "linux")
    assert (tmp_path / "a" / ("b" if swapped else "a")).exists()


def test_a_text_file_appears_whole_and_keeps_its_line_ends(tmp_path, system):
    write_whole(tmp_path / "new" / "t", "one\r\ntwo\n")
    assert (tmp_path / "new" / "t").read_bytes() == b"one\r\ntwo\n"
    write_text(tmp_path / "u", "é\n")
    assert (tmp_path / "u").read_bytes() == "é\n".encode()
    sync_folder(tmp_path)
    (tmp_path / "new" / "d").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        write_whole(tmp_path / "new" / "d", "text")
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["d", "t"]


def test_the_machine_tells_its_cpus_and_memory(monkeypatch, system):
    assert 1 <= cpu_count() <= (os.cpu_count() or 1)
    assert available_memory() > 2**20
    monkeypatch.setattr(machine, "Path", lambda name: (_ for _ in ()).throw(OSError))
    assert available_memory(default=7) == 7


def test_json_is_indented_as_the_standard_library_does():
    import json

    data = {"a": [1, {"b": []}, "é"], "c": {}, "d": {"e": None, "f": [1.5, 2]}}
    assert as_json(data) == json.dumps(data, indent=2, ensure_ascii=False) + "\n"
