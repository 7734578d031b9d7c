"""What pages say of the code is what the code says."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest

from polyak import cli, errors, methods, tasks
from polyak.methods import Law
from polyak.recipe import Factorisation, Lora, Model, Recipe, Rule, Source, Token, Vocabulary

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tables() -> Iterator[ModuleType]:
    """The part of the generator that writes the tables of methods."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "docs"))
        yield importlib.import_module("_methods")


@pytest.fixture(scope="module")
def generate(tables: ModuleType) -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_parts_are_fresh(generate):
    stale = [page.name for page, text in generate.pages().items() if text != page.read_text(encoding="utf-8")]
    assert not stale, "run `make fix`"


def test_a_change_of_the_code_makes_a_page_stale(generate, monkeypatch):
    monkeypatch.setattr(errors.NotFinite, "__doc__", "Something else.")
    recipes = ROOT / "docs" / "recipes.md"
    assert generate.pages()[recipes] != recipes.read_text(encoding="utf-8")


def test_recipes_documents_every_key_and_no_other():
    keys = documented("recipes.md", r"keys of an? (\w+)")
    wanted = {"recipe": [Recipe], "model": [Model, Source], "adapter": [Lora], "rule": [Rule]}
    wanted |= {"factorisation": [Factorisation], "vocabulary": [Vocabulary], "token": [Token]}
    for part, classes in wanted.items():
        names = {field.name for cls in classes for field in fields(cls)}
        assert set(keys[part]) == names - {"folder", "door"} - ({"settings", "source"} if part == "model" else set())


def test_recipes_documents_every_exit_code():
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", page, re.MULTILINE)
    kinds = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.PolyakError)]
    assert set(rows) == {(str(one.exit_code), one.__name__) for one in kinds if one.exit_code > 1}
    codes = re.findall(r"^\| (\d+) \|", page, re.MULTILINE)
    assert set(re.findall(r"(\d+) [a-z]", cli.app.info.epilog or "")) == set(codes)


def test_the_table_of_methods_has_every_method_and_no_other():
    methods.load_all()
    wanted = {m.name for m in methods.registry.values() if m.fn.__module__.startswith("polyak.methods.")}
    for part in ("methods", "methods compared", "settings of methods", "departures of methods"):
        assert set(documented("choosing-a-method.md", f"({part})")[part]) == wanted


def test_every_method_says_where_it_departs_from_its_source(tables):
    methods.load_all()
    assert [m.name for m in tables.by_name() if tables.departures(m) == tables.NONE] == []
    assert tables.departures(methods.resolve("linear")) == "None known."
    assert tables.departures(methods.resolve("regmean")).startswith(
        "The ridge is an addition: the authors invert without one."
    )


def test_the_rivals_methods_are_ours(tables):
    methods.load_all()
    assert {name for theirs in json.loads(tables.RIVALS.read_text()).values() for name in theirs} <= set(
        methods.registry
    )
    also_in = tables._also_in(methods.resolve("ties"))
    assert also_in == "mergekit 0.1.5, PEFT 0.21, FusionBench 0.2.33, merge-and-rebase"
    assert tables._also_in(methods.resolve("median")) == tables.NONE


def test_times_of_methods_become_a_column_and_a_table(tables, monkeypatch, tmp_path):
    methods.load_all()
    monkeypatch.setattr(tables, "SPEEDS", tmp_path / "methods.json")
    assert "ns per parameter" not in tables.methods_compared()
    assert "method_speed.py" in tables.methods_speeds()
    entry = {"limit_s": 1.5, "ours_s": 3, "ratio": 2.0, "target": "4", "cpu_ns_per_parameter": 6.127}
    rows = [
        {"work": "ties, 500M", **entry, "ns_per_parameter": 4.25, "mergekit_s": 208},
        {"work": 'ties, granularity "model", 500M', **entry, "ns_per_parameter": 9.0},
        {"work": "linear, 500M", **entry, "ns_per_parameter": 1.5, "mergekit_s": None},
    ]
    found = {"machine": {"CPU": "one"}, "commands": "method_speed.py", "rows": rows}
    (tmp_path / "methods.json").write_text(json.dumps(found))
    lines = {line.split("`")[1]: line for line in tables.methods_compared().splitlines() if line.startswith("| `")}
    assert "| 4.25 |" in lines["ties"]
    assert "| 1.5 |" in lines["linear"]
    said = tables.methods_speeds()
    assert "| ties, 500M | 1.5 s | 3 s | 2.00 | 4 | 4.25 | 6.13 | 208 s |" in said
    assert "| linear, 500M | 1.5 s | 3 s | 2.00 | 4 | 1.5 | 6.13 | – |" in said
    assert "(CPU: one)" in said


def documented(page: str, part: str) -> dict[str, list[str]]:
    """The first cells of the tables in the generated parts of a page."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    found = re.findall(f"<!-- {part}:start -->(.*?)<!-- [^>]*:end -->", text, re.DOTALL)
    return {name: re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) for name, table in found}


def test_adding_a_method_explains_every_law():
    page = (ROOT / "docs" / "adding-a-method.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([A-Z_]+)` \|", page, re.MULTILINE)) == set(Law.__members__)


def test_task_files_document_every_key():
    text = (ROOT / "docs" / "task-files.md").read_text(encoding="utf-8")
    common = re.findall(
        r"^\| `(\w+)` \|", text.partition("## Keys of every kind")[2].partition("## Data")[0], re.MULTILINE
    )
    with pytest.raises(errors.TaskError) as refused:
        tasks.task_of({"kind": "token-tagging", "data": "x", "zzz": 1})
    known = str(refused.value).partition("Known: ")[2].rstrip(".").split(", ")
    assert set(known) == {*common, *tasks.registry["token-tagging"].keys}
    tasks.load_all()
    for name, kind in tasks.registry.items():
        section = text.partition(f"### `{name}`")[2].partition("###")[0]
        assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == set(kind.keys)


def test_the_readme_names_every_room():
    tree = (ROOT / "README.md").read_text(encoding="utf-8").partition("src/polyak/\n")[2].partition("tests/")[0]
    rooms = {path.name for path in (ROOT / "src" / "polyak").iterdir() if (path / "__init__.py").exists()}
    assert set(re.findall(r"^  (\w+)/ ", tree, re.MULTILINE)) == rooms


def test_the_changelog_names_every_method_and_command():
    page = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    methods.load_all()
    built_in = [m.name for m in methods.registry.values() if m.fn.__module__.startswith("polyak.methods.")]
    commands = [c.name or c.callback.__name__ for c in cli.app.registered_commands if c.callback]
    assert [name for name in [*built_in, *commands] if f"`{name}`" not in page] == []


RESULTS = {
    "machine": {"cpu": "a CPU", "cores": 2},
    "commands": "make bench",
    "rows": [
        {"work": "linear", "limit_s": 1.0, "ours_s": 1.25, "ratio": 1.25, "target": "1.3", "mergekit_s": 10.0},
        {"work": "ties", "limit_s": 1.0, "ours_s": 2.0, "ratio": 2.0, "target": "2.2", "mergekit_s": None},
    ],
    "facts": [{"what": "memory", "value": "200 MB", "target": "300 MB"}],
}


def test_results_of_the_benchmark_become_tables(generate, monkeypatch, tmp_path):
    monkeypatch.setattr(generate, "RESULTS", tmp_path / "results.json")
    assert "make bench" in generate.benchmark()
    (tmp_path / "results.json").write_text(json.dumps(RESULTS))
    written = generate.benchmark()
    assert "| linear | 1 s | 1.25 s | 1.25 | 1.3 | 10 s |" in written
    assert "| ties | 1 s | 2 s | 2.00 | 2.2 | – |" in written
    assert "| memory | 200 MB | 300 MB |" in written


HOW = {"layers": 1, "layers_in_all": 14, "threads": 2, "runs": 3, "load": "0.1"}
SPECTRAL = {
    "machine": {"CPU": "a CPU"}, "shape": "150M", "experts": 8,
    "rows": [
        {"work": "tsv_m", "against": "them", "target": "1/3", "their_s": 3.0, "our_s": 1.5, "ratio": 0.5,
         "their_cpu_s": 4, "our_cpu_s": 1, "cpu_ratio": 0.25, "their_error": 1e-5, "our_error": 2e-8, **HOW},
        {"work": "aswudi", "against": "it", "target": "1.5", "their_s": 1, "our_s": 2, "ratio": 2,
         "their_cpu_s": 1, "our_cpu_s": 2, "cpu_ratio": 2, **HOW},
    ],
}  # fmt: skip


def test_results_of_decompositions_become_a_table(generate, monkeypatch, tmp_path):
    monkeypatch.setattr(generate, "SPECTRAL", tmp_path / "spectral.json")
    assert "make bench-spectral" in generate.spectral_benchmark()
    (tmp_path / "spectral.json").write_text(json.dumps(SPECTRAL))
    written = generate.spectral_benchmark()
    assert "| `tsv_m` | them | 3 s | 1.5 s | 0.50 | 4 s | 1 s | 0.25 | 1/3 | 1.0e-05 | 2.0e-08 |" in written
    assert "| `aswudi` | it | 1 s | 2 s | 2.00 | 1 s | 2 s | 2.00 | 1.5 | – | – |" in written
    assert written.count("1 of 14 layers") == 1
