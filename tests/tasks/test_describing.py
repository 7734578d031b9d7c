"""Descriptions of tasks, the files that examples come from, and splits that have nothing in common."""

from __future__ import annotations

import gzip
import json
import sys

import numpy as np
import pytest

from polyak.errors import TaskError
from polyak.tasks import read_task, task_of
from polyak.tasks.rows import read_rows
from polyak.tasks.splits import Part, Splits

ROWS = [{"text": f"text {i}", "label": i % 3} for i in range(60)]
COLUMNS = {"text": "text", "label": "label"}


def jsonl(path, rows=ROWS):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def described(tmp_path, **changes):
    jsonl(tmp_path / "rows.jsonl")
    return task_of({"kind": "text-classification", "data": "rows.jsonl", "model": "nowhere"} | changes, tmp_path)


def test_every_file_kind_gives_the_same_rows(tmp_path):
    wanted = read_rows(jsonl(tmp_path / "a.jsonl"), COLUMNS)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    (tmp_path / "a.json").write_text(json.dumps(ROWS))
    lines = [f'"{row["text"]}",{row["label"]}\n' for row in ROWS]
    (tmp_path / "a.csv").write_text("\ufefftext,label\n" + "".join(lines), encoding="utf-8")
    for name in ("a.jsonl.gz", "a.json"):
        assert read_rows(tmp_path / name, COLUMNS).fingerprints == wanted.fingerprints
    table = read_rows(tmp_path / "a.csv", COLUMNS)
    assert list(table.columns["text"]) == list(wanted.columns["text"])
    assert [int(one) for one in table.columns["label"]] == list(wanted.columns["label"])
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 2)), y=np.arange(3))
    assert len(read_rows(tmp_path / "a.npz", {"image": "x", "label": "y"})) == 3


@pytest.mark.parametrize(
    ("name", "contents", "said"),
    [
        ("a.jsonl", b'{"text": "a", "label": 0}\n{"text": "b"', r"line 2: not JSON"),
        ("a.jsonl", b'{"text": "a", "label": 0}\n{"text": "b"}\n', r"example 2 has no 'label'; others have"),
        ("a.jsonl", b'{"text": "a", "lable": 0}\n', r"no column 'label'. Did you mean 'lable'"),
        ("a.jsonl", b"[1]\n", r"example 1: expected an object"),
        ("a.jsonl", b"", r"a\.jsonl has no examples"),
        ("a.jsonl", b"\xff\xfe{", r"cannot be read"),
        ("a.jsonl.gz", b"not gzip", r"cannot be read"),
        ("a.csv", b"text,label\na\n", r"row 2: 1 fields, but the header has 2"),
        ("a.csv", b"text,label\n", r"has no examples"),
        ("a.json", b'{"text": 1}', r"must hold a list of objects"),
        ("a.npz", b"PK nothing", r"cannot be read"),
        ("a.npz", b"\x80\x04N.", r"cannot be read: it is not a \.npz file"),
        ("a.txt", b"text", r"has a suffix that polyak does not read. Known: CSV"),
    ],
)
def test_damaged_files_are_refused_with_the_place(tmp_path, name, contents, said):
    (tmp_path / name).write_bytes(contents)
    with pytest.raises(TaskError, match=said):
        read_rows(tmp_path / name, COLUMNS)


def test_pickled_arrays_are_never_loaded(tmp_path):
    np.savez(tmp_path / "a.npz", text=np.array([{"a": 1}], dtype=object), label=np.zeros(1))
    with pytest.raises(TaskError, match="cannot be read"):
        read_rows(tmp_path / "a.npz", COLUMNS)


def test_parquet_and_saved_datasets_say_what_they_need(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "datasets", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(TaskError, match=r"need pyarrow: pip install 'polyak\[datasets\]'"):
        read_rows(tmp_path / "a.parquet", COLUMNS)
    with pytest.raises(TaskError, match=r"need pyarrow: pip install 'polyak\[datasets\]'"):
        read_rows(tmp_path, COLUMNS)
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(TaskError, match=r"saved by `datasets` need it: pip install 'polyak\[datasets\]'"):
        read_rows(tmp_path, COLUMNS)


def test_parquet_files_are_read(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    wanted = read_rows(jsonl(tmp_path / "a.jsonl"), COLUMNS)
    assert read_rows(tmp_path / "a.parquet", COLUMNS).fingerprints == wanted.fingerprints


@pytest.mark.filterwarnings("ignore")
def test_saved_datasets_are_read(tmp_path):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    whole = datasets.Dataset.from_list(ROWS)
    whole.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": whole}).save_to_disk(tmp_path / "many")
    wanted = read_rows(jsonl(tmp_path / "a.jsonl"), COLUMNS)
    assert read_rows(tmp_path / "one", COLUMNS).fingerprints == wanted.fingerprints
    assert read_rows(tmp_path / "many", COLUMNS, part="train").fingerprints == wanted.fingerprints
    with pytest.raises(TaskError, match="has the parts train"):
        read_rows(tmp_path / "many", COLUMNS)


def test_folders_of_data_files_are_read_part_by_part(tmp_path):
    half = len(ROWS) // 2
    folder = tmp_path / "hub"
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text("about")
    (folder / "dataset_infos.json").write_text("{}")
    jsonl(folder / "data" / "train-00000-of-00002.jsonl", ROWS[:half])
    jsonl(folder / "data" / "train-00001-of-00002.jsonl", ROWS[half:])
    (folder / "test").mkdir()
    jsonl(folder / "test" / "0.jsonl", ROWS[:3])
    wanted = read_rows(jsonl(tmp_path / "a.jsonl"), COLUMNS)
    assert read_rows(folder, COLUMNS, part="train").fingerprints == wanted.fingerprints
    assert len(read_rows(folder, COLUMNS, part="test")) == 3
    assert len(read_rows(folder / "test", COLUMNS)) == 3
    for part in ("", "other"):
        with pytest.raises(TaskError, match="has the parts train, test; name one as `part:`"):
            read_rows(folder, COLUMNS, part=part)
    (folder / "test" / "1.jsonl").write_text('{"other": 1}\n')
    with pytest.raises(TaskError, match=r"1\.jsonl has no column"):
        read_rows(folder, COLUMNS, part="test")
    (tmp_path / "empty").mkdir()
    with pytest.raises(TaskError, match="without a file of examples"):
        read_rows(tmp_path / "empty", COLUMNS)


def test_fractions_of_one_file_share_no_example_and_keep_copies_together(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", ROWS + ROWS[:20])
    fractions = {"calibration": 0.25, "validation": 0.25, "test": 0.5}
    data, notes = Splits({"": Part(path)}, fractions).read(COLUMNS)
    found = {name: set(rows.fingerprints) for name, rows in data.items()}
    assert [len(one) for one in found.values()] == [15, 15, 30]
    assert len(set.union(*found.values())) == 60
    assert sum(map(len, data.values())) == 80
    assert notes == ()
    again, _ = Splits({"": Part(path)}, fractions).read(COLUMNS)
    assert again["test"].numbers == data["test"].numbers
    other, _ = Splits({"": Part(path)}, fractions, seed=1).read(COLUMNS)
    assert other["test"].numbers != data["test"].numbers


def test_calibration_loses_what_the_test_has_too(tmp_path):
    calibration, test = jsonl(tmp_path / "a.jsonl", ROWS[:40]), jsonl(tmp_path / "b.jsonl", ROWS[30:])
    data, notes = Splits({"test": Part(test), "calibration": Part(calibration)}).read(COLUMNS)
    assert (len(data["calibration"]), len(data["test"])) == (30, 30)
    assert notes == ("10 of 40 examples left out of calibration: a later split has them too",)
    with pytest.raises(TaskError, match="every example of 'calibration'"):
        Splits({"test": Part(test), "calibration": Part(test)}).read(COLUMNS)


def test_ranges_and_renamed_columns_are_read_for_each_split(tmp_path):
    jsonl(tmp_path / "old.jsonl", [{"t": row["text"], "label": row["label"]} for row in ROWS])
    splits = {
        "calibration": {"data": "rows.jsonl", "rows": [0, 10]},
        "test": {"data": "old.jsonl", "rows": [10, 30], "text": "t"},
    }
    jsonl(tmp_path / "rows.jsonl")
    task = task_of({"kind": "text-classification", "splits": splits, "model": "nowhere"}, tmp_path)
    assert (task.count("calibration"), task.count("test")) == (10, 20)
    splits["test"]["rows"] = [50, 70]
    with pytest.raises(TaskError, match=r"has 60 examples; `rows: \[50, 70\]` is not among them"):
        task_of({"kind": "text-classification", "splits": splits, "model": "nowhere"}, tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "text-clasification"}, r"kind must be one of .*Did you mean 'text-classification'"),
        ({"metrik": "accuracy"}, r"metrik is an unknown key. Did you mean 'metric'"),
        ({"metric": "acuracy"}, r"metric must be one of .*Did you mean 'accuracy'"),
        ({"labels": "a"}, r"labels must be a list"),
        ({"splits": {"tset": 1.0}}, r"splits.tset is an unknown key. Did you mean 'test'"),
        ({"splits": {"test": 0.7, "validation": 0.7}}, r"splits adds up to 1.4"),
        ({"splits": {"test": 2}}, r"splits.test must be a share of `data`"),
        ({"heads": {"match": "("}}, r"heads.match must be a regular expression"),
        ({"data": "none.jsonl"}, r"none.jsonl does not exist"),
        ({"text": "txt"}, r"no column 'txt'. Did you mean 'text'"),
        ({"classes": 0}, r"classes must be at least 1; got 0"),
        ({"length": 0}, r"length must be at least 1; got 0"),
        ({"labels": ["a", "b", "a"]}, r"`labels` names 'a' twice"),
        ({"classes": 2}, r"example 3: label 2 is out of range; labels are numbered from 0 to 1"),
        ({"labels": ["a", "b"]}, r"example 3: label 2 is out of range"),
        ({"text": "label"}, r"example 1: 'text' must be text; got 0"),
        ({"label": "text"}, r"example 1: the label must be an integer; got 'text 0'. .*`labels:`"),
    ],
)
def test_wrong_descriptions_are_refused_with_what_was_meant(tmp_path, changes, said):
    with pytest.raises(TaskError, match=said):
        described(tmp_path, **changes)


def test_labels_beyond_any_model_are_refused(tmp_path):
    jsonl(tmp_path / "many.jsonl", [{"text": "a", "label": 10**30}])
    with pytest.raises(TaskError, match=r"many\.jsonl, example 1: label 10+ is out of range"):
        described(tmp_path, data="many.jsonl")


def test_a_description_without_examples_or_that_is_no_mapping_is_refused(tmp_path):
    with pytest.raises(TaskError, match="the task has no examples"):
        task_of({"kind": "text-classification"}, tmp_path)
    with pytest.raises(TaskError, match="the task must be a mapping; got 3"):
        task_of(3)
    (tmp_path / "a.yaml").write_text("kind: [")
    with pytest.raises(TaskError, match=r"a\.yaml, line 2, column 1"):
        read_task(tmp_path / "a.yaml")


def test_named_labels_become_the_numbers_of_outputs(tmp_path):
    jsonl(tmp_path / "rows.jsonl", [{"text": "x", "label": "no"}, {"text": "y", "label": "yes"}])
    task = task_of(
        {"kind": "text-classification", "data": "rows.jsonl", "model": "m", "labels": ["yes", "no"]}, tmp_path
    )
    assert list(task.data["test"].columns["label"]) == [1, 0]


def test_digests_follow_examples_and_settings_and_nothing_else(tmp_path):
    first = described(tmp_path).digest("test")
    assert first == described(tmp_path, name="another").digest("test")
    assert first != described(tmp_path, length=12).digest("test")
    assert first != described(tmp_path, metric="loss").digest("test")
    changed = [*ROWS[:-1], {"text": "other", "label": 0}]
    jsonl(tmp_path / "new.jsonl", changed)
    assert first != described(tmp_path, data="new.jsonl").digest("test")


def test_a_seed_shuffles_and_a_limit_cuts(tmp_path):
    pytest.importorskip("torch")
    task = described(tmp_path)
    task.collate = lambda rows, examples: examples
    plain = list(task.batches("test", batch_size=25))
    assert [len(part) for part in plain] == [25, 25, 10]
    assert sum(plain, ()) == tuple(range(60))
    shuffled = sum(task.batches("test", seed=1), ())
    assert sorted(shuffled) == list(range(60)) and shuffled != tuple(range(60))
    assert sum(task.batches("test", seed=1, limit=7), ()) == shuffled[:7]
    with pytest.raises(TaskError, match="no split 'validation'"):
        list(task.batches("validation"))
