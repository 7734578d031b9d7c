"""The benchmark runs, and keeps results in the form that the pages are made from."""

from __future__ import annotations

import importlib
import importlib.util
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
SCRIPT = BENCHMARKS / "merge_speed.py"
LINEAR = "linear, 3 models, tiny"
MACHINE = {"CPU": "one"}


@pytest.fixture
def results(monkeypatch):
    return imported("_results", monkeypatch)


@pytest.fixture
def process(monkeypatch):
    return imported("_process", monkeypatch)


def imported(name, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module(name)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    work = tmp_path_factory.mktemp("work")
    only = f"^{LINEAR}$|polyak --help"
    command = [sys.executable, SCRIPT, "--shape", "tiny", "--runs", "1", "--work", work, "--only", only]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return work / "results.json", done.stdout


def test_a_run_keeps_what_it_measured(measured):
    found = json.loads(measured[0].read_text())
    [row], [fact] = found["rows"], found["facts"]
    assert row["work"] == LINEAR
    assert len(row["ours_runs_s"]) == len(row["limit_runs_s"]) == 1
    assert 0 < row["limit_s"] < row["ours_s"]
    assert row["ratio"] == pytest.approx(row["ours_s"] / row["limit_s"], rel=1e-2)
    assert fact["what"].startswith("`polyak --help`")
    assert LINEAR in measured[1]


def test_the_pages_can_show_what_a_run_keeps(measured, monkeypatch):
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    monkeypatch.syspath_prepend(ROOT / "docs")
    spec.loader.exec_module(generate)
    monkeypatch.setattr(generate, "RESULTS", measured[0])
    assert f"| {LINEAR} |" in generate.benchmark()


def test_results_name_no_host_and_no_path(measured):
    text = measured[0].read_text()
    assert not [word for word in (socket.gethostname(), str(measured[0].parent), str(ROOT)) if word in text]


def test_nothing_but_inputs_and_results_is_left_behind(measured):
    assert {path.name for path in measured[0].parent.iterdir()} == {"tiny", "results.json"}


def test_an_unknown_shape_is_refused_by_name(tmp_path):
    command = [sys.executable, SCRIPT, "--shape", "5M", "--work", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "'5M'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_line_that_fails_does_not_lose_the_others(results, process, tmp_path, capsys):
    def fails():
        raise process.Failed("the disk is full")

    book = results.Results(tmp_path / "results.json", MACHINE, afresh=True)
    lines = [line(results, "a"), results.Line("facts", "b", fails), line(results, "c")]
    assert book.measure(lines) == 1
    assert [one["what"] for one in kept(tmp_path)["facts"]] == ["a", "c"]
    assert "the disk is full" in capsys.readouterr().out


def test_what_is_measured_again_takes_its_old_place(results, tmp_path):
    for names in ("ab", "a"):
        book = results.Results(tmp_path / "results.json", MACHINE, afresh=False)
        book.ran(names)
        book.measure([line(results, name, value=names) for name in names])
    found = kept(tmp_path)
    assert [(one["what"], one["value"]) for one in found["facts"]] == [("a", "a"), ("b", "ab")]
    assert found["commands"] == "ab; a"


def test_results_of_two_machines_are_not_mixed(results, process, tmp_path):
    results.Results(tmp_path / "results.json", MACHINE, afresh=True).measure([line(results, "a")])
    with pytest.raises(process.Failed, match="another machine"):
        results.Results(tmp_path / "results.json", {"CPU": "two"}, afresh=False)


def test_mergekit_times_stand_in_their_rows_and_say_where_they_are_from(results, tmp_path):
    entry = {"limit_s": 1.0, "ours_s": 2.0, "ratio": 2.0, "target": "3"}
    row = results.Line("rows", "TIES", lambda: results.Measured("", entry=entry))
    results.Results(tmp_path / "results.json", MACHINE, afresh=True).measure([row])
    theirs = {"machine": {"CPU": "two"}, "version": "0.1.5", "seconds": {"TIES": 9.0}}
    results.write_json(tmp_path / "mergekit.json", theirs)
    for _ in range(2):
        results.refresh(tmp_path / "results.json")
    found = kept(tmp_path)
    assert found["rows"] == [{"work": "TIES", **entry, "mergekit_s": 9.0}]
    assert [one["value"] for one in found["facts"]] == ["version 0.1.5, one run a row, on CPU: two"]


def test_every_method_is_measured_with_as_many_models_as_it_takes(monkeypatch, tmp_path):
    from polyak import methods

    bench = imported("_bench", monkeypatch).Bench(tmp_path, tmp_path, 1, "tiny", "tiny")
    monkeypatch.setattr(type(bench), "family", lambda self, shape: [Path(n) for n in ("base", "a", "b", "c")])
    speed = imported("method_speed", monkeypatch)
    recipes = [speed.recipe_for(work, bench) for work in speed.works()]
    free = {name for name, method in methods.registry.items() if not method.statistics}
    assert {recipe["method"] for recipe in recipes} == free
    for recipe in recipes:
        method = methods.resolve(recipe["method"])
        method.check_count(len(recipe["models"]))
        assert set(method.bind(recipe["settings"], len(recipe["models"]))) == set(method.settings)
        assert ("base" in recipe) is method.uses_base


def test_mergekit_is_asked_for_the_same_settings_where_it_has_them(monkeypatch, tmp_path):
    bench = imported("_bench", monkeypatch).Bench(tmp_path, tmp_path, 1, "tiny", "tiny")
    monkeypatch.setattr(type(bench), "family", lambda self, shape: [Path(n) for n in ("base", "a", "b", "c")])
    speed = imported("method_speed", monkeypatch)
    asked = {work.name: speed._theirs(work, bench) for work in speed.works()}
    assert asked["della"]["parameters"] == {
        "lambda": 1.0, "density": 0.7, "epsilon": 0.07, "normalize": True
    }  # fmt: skip
    assert asked["slerp"]["base_model"] == "a"
    assert [one["model"] for one in asked["slerp"]["models"]] == ["a", "b"]
    assert asked["tsv_m"] is None


def test_matrices_are_decomposed_at_the_small_shape_and_have_no_target(monkeypatch, tmp_path):
    bench = imported("_bench", monkeypatch).Bench(tmp_path, tmp_path, 1, "large", "small")
    speed = imported("method_speed", monkeypatch)
    found = {speed._name(work, bench): speed._target(work) for work in speed.works()}
    assert found["tsv_m, small"] is None
    assert (found["ties, large"], found["della, large"]) == (4, 10)


def test_a_method_is_measured_and_kept_with_its_cost(tmp_path):
    options = ["--shape", "tiny", "--runs", "1", "--work", tmp_path, "--only", "^magmax$"]
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "method_speed.py", *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    [row] = json.loads((tmp_path / "methods.json").read_text())["rows"]
    assert row["work"] == "magmax, tiny"
    assert row["inputs"] == 4
    assert row["cpu_ns_per_parameter"] > 0
    assert row["ratio"] == pytest.approx(row["ours_s"] / row["limit_s"], rel=1e-2)


def test_runs_are_in_turn_and_the_first_of_each_does_not_count(process):
    called = []

    def work(name):
        return lambda: called.append(name) or len(called)

    assert process.in_turn([work("limit"), work("ours")], 2) == [[3, 5], [4, 6]]
    assert called == ["limit", "ours"] * 3


def test_anonymous_memory_is_seen_and_mapped_files_are_not(process, tmp_path):
    big = tmp_path / "big"
    big.write_bytes(bytes(100_000_000))
    code = f"import mmap; f = open({str(big)!r}, 'rb'); m = mmap.mmap(f.fileno(), 0, prot=1); sum(m[::4096])"
    code += "; a = bytearray(50_000_000); import time; time.sleep(0.3)"
    found = process.run([sys.executable, "-c", code], sampled=True)
    assert 50e6 < found.anonymous < 90e6
    assert found.resident > 150e6
    assert found.seconds > 0.3


def test_a_command_that_fails_says_why(process):
    with pytest.raises(process.Failed, match="ended with 3: no such thing"):
        process.run([sys.executable, "-c", "import sys; print('no such thing'); sys.exit(3)"])


def line(results, name, value="1 s"):
    return results.Line("facts", name, lambda: results.Measured(value))


def kept(folder):
    return json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize("script", sorted(path.name for path in BENCHMARKS.glob("[a-z]*.py")))
def test_the_page_names_every_script(script):
    assert script in (BENCHMARKS / "README.md").read_text(encoding="utf-8")
