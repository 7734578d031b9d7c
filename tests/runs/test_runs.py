"""Runs are done once, resumed, refused and left clean."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from polyak import events
from polyak.errors import CannotResume, DeclarationError, OutputBusy, OutputError, OutputExists, PolyakError
from polyak.runs import About, LocalProcesses, Stage, Unit, UnitFailed, run

from . import work

ABOUT = About("adding", {"first": 1, "nested": {"second": [2, 3]}}, {"data": "abc"}, {"library": "1"})
STAGES = [
    Stage([Unit("a", work.add, 1, steps=2), Unit("b", work.add, 10, steps=2)]),
    Stage([Unit("c", work.add, 100, steps=2)]),
]


def totals(results: Any) -> dict[str, float]:
    return {name: result["metrics"]["total"] for name, result in results.items()}


def files(out: Path) -> dict[str, bytes]:
    """What a unit, or the run as a whole, has written, without times."""
    left_out = {"journal.jsonl", "log.jsonl"}
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in left_out
    }


def test_units_see_the_results_of_earlier_stages(tmp_path):
    results = run(STAGES, tmp_path / "out", about=ABOUT, report=lambda done, failed: f"{len(done)} {len(failed)}")
    assert totals(results) == {"a": 1, "b": 10, "c": 111}
    assert (tmp_path / "out/units/c/total.txt").read_text() == "111\n"
    assert (tmp_path / "out/report.html").read_text() == "3 0"
    metrics = [json.loads(line) for line in (tmp_path / "out/metrics.jsonl").read_text().splitlines()]
    assert metrics == [{"unit": name, "step": 1, "total": total} for name, total in totals(results).items()]
    assert not list(tmp_path.glob(".*"))  # the lock is gone


def test_two_processes_write_the_same_bytes(tmp_path):
    run(STAGES, tmp_path / "one", about=ABOUT)
    with LocalProcesses(2) as executor:
        results = run(STAGES, tmp_path / "two", about=ABOUT, executor=executor)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert results["a"]["process"] != os.getpid()


def test_a_finished_run_is_not_done_again(tmp_path):
    first = run(STAGES, tmp_path / "out", about=ABOUT)
    log: list[events.Event] = []
    assert run(STAGES, tmp_path / "out", about=ABOUT, resume=True, watcher=log.append) == first
    assert not [event for event in log if isinstance(event, events.UnitStarted)]
    assert events.Notice("3 of 3 units were done before.") in log
    assert events.Advanced(6) in log


def test_events_tell_of_every_unit(tmp_path):
    log: list[events.Event] = []
    run(STAGES[:1], tmp_path / "out", about=ABOUT, watcher=log.append)
    assert log[:3] == [events.Started("running", 4, "steps"), events.UnitStarted("a", 2), events.UnitAdvanced("a", 2)]
    finished = [event for event in log if isinstance(event, events.UnitFinished)]
    assert [(event.name, event.state, event.metrics) for event in finished] == [
        ("a", "done", {"total": 1}), ("b", "done", {"total": 10}),
    ]  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / "out/log.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines][:2] == ["started", "unit_started"]
    assert all(line["time"] > 1e9 for line in lines)


def test_a_folder_with_a_run_is_refused_without_resume(tmp_path):
    run(STAGES, tmp_path / "out", about=ABOUT)
    with pytest.raises(OutputExists, match=r"holds a run. Continue it with --resume"):
        run(STAGES, tmp_path / "out", about=ABOUT)


def test_a_folder_with_other_things_is_refused(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("mine")
    with pytest.raises(OutputExists, match="other things than a run"):
        run(STAGES, tmp_path / "out", about=ABOUT, resume=True)
    with pytest.raises(OutputExists, match="is a file"):
        run(STAGES, tmp_path / "out/thesis.txt", about=ABOUT)


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (replace(ABOUT, settings={"first": 1, "nested": {"second": [2, 4]}}), r"settings.nested.second is \[2, 3\]"),
        (replace(ABOUT, settings={"first": 1}), "settings.nested is "),
        (replace(ABOUT, recipe="dividing"), "recipe is 'adding' there and 'dividing' now"),
        (replace(ABOUT, inputs={"data": "abd"}), "inputs.data is 'abc' there and 'abd' now"),
    ],
)
def test_another_run_is_not_resumed_and_the_difference_is_named(tmp_path, other, difference):
    run(STAGES, tmp_path / "out", about=ABOUT)
    with pytest.raises(CannotResume, match=difference):
        run(STAGES, tmp_path / "out", about=other, resume=True)


def test_another_version_of_a_library_is_told(tmp_path):
    run(STAGES, tmp_path / "out", about=ABOUT)
    log: list[events.Event] = []
    run(STAGES, tmp_path / "out", about=replace(ABOUT, versions={"library": "2"}), resume=True, watcher=log.append)
    assert "versions.library is '1' there and '2' now" in log[1].text


def test_two_runs_at_once_are_refused(tmp_path):
    def run_again(event: events.Event) -> None:
        if isinstance(event, events.UnitStarted):
            with pytest.raises(OutputBusy, match="another run is writing into"):
                run(STAGES, tmp_path / "out", about=ABOUT, resume=True)

    run(STAGES[:1], tmp_path / "out", about=ABOUT, watcher=run_again)


def test_a_unit_that_fails_is_left_out_by_name(tmp_path):
    stages = [Stage([Unit("a", work.add, 1), Unit("b", work.diverge, "nan")], needs=1), STAGES[1]]
    log: list[events.Event] = []
    told: list[Any] = []
    report = lambda done, failed: told.append(dict(failed)) or ""  # noqa: E731
    for resume in (False, True):
        results = run(stages, tmp_path / "out", about=ABOUT, resume=resume, watcher=log.append, report=report)
        assert totals(results) == {"a": 1, "c": 101}
    assert [(e.name, e.error) for e in log if isinstance(e, events.UnitFinished) and e.error] == [
        ("b", "the loss is nan.")
    ]
    assert told == [{"b": "the loss is nan."}] * 2


def test_a_stage_of_which_nothing_is_left_ends_the_run(tmp_path):
    stages = [Stage([Unit("a", work.diverge, "nan"), Unit("b", work.diverge, "inf")], needs=1)]
    with pytest.raises(UnitFailed, match=r"too few units are left: a failed \(the loss is nan"):
        run(stages, tmp_path / "out", about=ABOUT)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_unexpected_error_names_the_unit_and_its_traceback_is_in_the_log(tmp_path, workers):
    stages = [Stage([Unit("a", work.break_down)], needs=1)]
    with LocalProcesses(workers) as executor, pytest.raises(PolyakError, match=r"^a: something is zero \(ZeroDiv"):
        run(stages, tmp_path / "out", about=ABOUT, executor=executor)
    assert "break_down" in (tmp_path / "out/log.jsonl").read_text()


def test_a_unit_whose_process_dies_is_done_once_more_and_then_left_out(tmp_path):
    stages = [Stage([Unit("a", work.die, 0), Unit("b", work.die, 1)], needs=1)]
    with LocalProcesses(2) as executor:
        results = run(stages, tmp_path / "out", about=ABOUT, executor=executor)
    assert totals(results) == {"a": 1}
    journal = (tmp_path / "out/journal.jsonl").read_text()
    assert "its process was ended by signal 9, twice" in journal


def test_a_killed_run_continues_to_the_same_bytes(tmp_path):
    marker = tmp_path / "marker"
    code = (
        "import sys; from tests.runs.test_runs import *\n"
        f"third = Stage([Unit('c', work.die_until_marked, {str(marker)!r})])\n"
        "stages = [STAGES[0], third, Stage([Unit('d', work.add, 7)])]\n"
        "run(stages, sys.argv[1], about=ABOUT, resume='resume' in sys.argv)"
    )

    def start(out: str, *more: str) -> int:
        return subprocess.run([sys.executable, "-c", code, str(tmp_path / out), *more], check=False).returncode

    assert start("killed") == -signal.SIGKILL
    assert sorted(path.name for path in (tmp_path / "killed/units").iterdir()) == ["a", "b"]
    with (tmp_path / "killed/journal.jsonl").open("a") as journal:
        journal.write('["0000')  # half an entry
    marker.touch()
    assert start("killed", "resume") == 0
    assert start("whole") == 0
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def test_a_folder_of_a_unit_that_vanished_is_made_again(tmp_path):
    import shutil

    first = run(STAGES, tmp_path / "out", about=ABOUT)
    shutil.rmtree(tmp_path / "out/units/a")
    log: list[events.Event] = []
    assert totals(run(STAGES, tmp_path / "out", about=ABOUT, resume=True, watcher=log.append)) == totals(first)
    assert events.Notice("note: the folder of a is gone: it is done again.") in log
    assert (tmp_path / "out/units/a/total.txt").exists()


def test_folders_that_a_stage_removes_stay_removed(tmp_path):
    stages = [STAGES[0], replace(STAGES[1], removes=["a"])]
    for resume in (False, True):
        results = run(stages, tmp_path / "out", about=ABOUT, resume=resume)
        assert totals(results) == {"a": 1, "b": 10, "c": 111}
        assert not (tmp_path / "out/units/a").exists()


def test_ctrl_c_ends_the_processes_and_the_run_continues(tmp_path):
    code = (
        "import sys; from tests.runs.test_runs import *\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # shells let background jobs ignore it
        "stages = [Stage([Unit('a', work.sleep, 60), Unit('b', work.sleep, 60)])]\n"
        "if __name__ == '__main__':\n"
        "    with LocalProcesses(2) as executor:\n"
        "        run(stages, sys.argv[1], about=ABOUT, executor=executor)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "out")], stderr=subprocess.PIPE, start_new_session=True
    )
    while len(list((tmp_path / "out").glob("unfinished/*/began"))) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert process.communicate(timeout=30)[1].decode().strip().endswith("KeyboardInterrupt")
    results = run(
        [Stage([Unit("a", work.sleep, 0), Unit("b", work.sleep, 0)])], tmp_path / "out", about=ABOUT, resume=True
    )
    assert set(results) == {"a", "b"}


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    import errno

    from polyak.storage import journal

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(journal, "sync_data", full)
    with pytest.raises(OutputError, match=r"is full .* Make room and run again with --resume"):
        run(STAGES, tmp_path / "out", about=ABOUT)
    monkeypatch.undo()
    assert len(run(STAGES, tmp_path / "out", about=ABOUT, resume=True)) == 3


def test_a_run_folder_that_vanishes_is_one_line(tmp_path):
    import shutil

    def vanish(event: events.Event) -> None:
        if isinstance(event, events.UnitStarted) and event.name == "b":
            shutil.rmtree(tmp_path / "out")

    with pytest.raises(OutputError, match=r"b: .*cannot be written: No such file or directory"):
        run(STAGES, tmp_path / "out", about=ABOUT, watcher=vanish)


def test_names_of_units_are_checked():
    with pytest.raises(DeclarationError, match=r"'a' is the name of two units"):
        run([Stage([Unit("a", work.add)]), Stage([Unit("a", work.add)])], "out", about=ABOUT)
    with pytest.raises(DeclarationError, match=r"'../a' is not fit for the folder"):
        run([Stage([Unit("../a", work.add)])], "out", about=ABOUT)


@pytest.mark.parametrize("workers", [1, 2])
def test_units_have_one_thread(tmp_path, workers):
    pytest.importorskip("torch")
    with LocalProcesses(workers) as executor:
        results = run([Stage([Unit("a", work.threads)])], tmp_path / "out", about=ABOUT, executor=executor)
    assert results["a"]["threads"] == 1
