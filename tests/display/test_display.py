"""Progress as people, logs, programs and notebooks see it; sizes and names."""

from __future__ import annotations

import io
import json
import sys
import threading
import time
import types

import pytest

from polyak.display import columns, human_size, natural_key, progress, table, watcher_for
from polyak.display.progress import JsonLines, Lines, NotebookBar, TerminalBar
from polyak.events import Advanced, Finished, Notice, Reporter, Started, TrialFinished, as_data, ignore


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_watcher_suits_where_progress_is_shown(monkeypatch):
    assert watcher_for(io.StringIO(), quiet=True) is ignore
    assert isinstance(watcher_for(io.StringIO()), Lines)
    assert isinstance(watcher_for(Terminal()), TerminalBar)
    assert isinstance(watcher_for(Terminal(), as_json=True), JsonLines)
    shell = type("ZMQInteractiveShell", (), {})()
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    assert isinstance(watcher_for(Terminal()), NotebookBar)


def test_a_reporter_ends_the_activity_after_an_error_too():
    events = []
    with pytest.raises(ZeroDivisionError), Reporter(events.append, "merging") as reporter:
        reporter.start(10)
        reporter.advance(4)
        reporter.say("note")
        reporter.trial(3, "complete", (0.5,))
        raise ZeroDivisionError
    trial = TrialFinished(3, "complete", (0.5,))
    assert events == [Started("merging", 10, "bytes"), Advanced(4), Notice("note"), trial, Finished("merging")]
    assert as_data(trial)["event"] == "trial" and json.dumps(list(map(as_data, events)))


def test_a_log_gets_a_line_now_and_then_even_while_nothing_advances():
    stream = io.StringIO()
    lines = Lines(stream, every=0.06)
    with Reporter(lines, "learning", "steps") as reporter:
        reporter.start(8)
        reporter.advance(2)
        deadline = time.monotonic() + 20
        while stream.getvalue().count("\n") < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    written = stream.getvalue().splitlines()
    assert len(written) >= 3
    assert written[0].startswith("learning: 2 of 8 steps, ") and written[0].endswith(" left")
    time.sleep(0.15)
    assert stream.getvalue().splitlines() == written  # the activity has ended


def test_work_of_unknown_length_says_how_much_is_done():
    stream = io.StringIO()
    lines = Lines(stream, every=60)
    lines(Started("merging", 0, "bytes"))
    lines(Advanced(2_500_000))
    assert lines.described() == "merging: 2.5 MB, 0 s"
    lines(Finished("merging"))


def test_a_terminal_gets_a_bar_only_when_the_work_takes_long(monkeypatch):
    stream = Terminal()
    with Reporter(TerminalBar(stream), "merging") as reporter:
        reporter.start(100)
        reporter.advance(50)
        assert stream.getvalue() == ""
    monkeypatch.setattr(progress, "PATIENCE", -1.0)
    with Reporter(TerminalBar(stream), "merging") as reporter:
        reporter.start(100)
        reporter.advance(50)
        reporter.say("a note [with brackets]")
        assert "a note [with brackets]" in stream.getvalue()
    assert "50% of 100 B" in stream.getvalue()


def test_json_lines_add_up_what_advances(monkeypatch):
    stream = io.StringIO()
    with Reporter(JsonLines(stream, every=60), "merging") as reporter:
        reporter.start(100)
        threads = [threading.Thread(target=reporter.advance, args=(10,)) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [event["event"] for event in events] == ["started", "advanced", "finished"]
    assert events[1]["count"] == 100


def test_numbers_in_names_are_ordered_as_numbers():
    names = ["layers.10.w", "layers.2.w", "layers.2.b", "embed", "²"]
    assert sorted(names, key=natural_key) == ["embed", "layers.2.b", "layers.2.w", "layers.10.w", "²"]


def test_sizes_columns_and_tables():
    assert [human_size(n) for n in (999, 1e3, 1.234e9, 5e13)] == ["999 B", "1 kB", "1.23 GB", "50 TB"]
    assert columns([["a", "b"], ["long", "1"]]) == "a     b\nlong  1"
    assert "<caption>A &lt;b&gt;</caption>" in table(["<x>"], [["&"]], "A <b>")
    assert "<td>&amp;</td>" in table(["<x>"], [["&"]])
