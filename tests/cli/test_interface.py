"""The command line as a whole: help, version, models without a recipe, progress and errors for machines."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from polyak import cli
from polyak.errors import RecipeError

from ..engine.conftest import random_family, recipe_text, write_model

SECTIONS = {
    "Merge models": {"bake", "merge", "plan"},
    "LoRA adapters": {"lora"},
    "Evaluate, search and learn from data": {
        "compare",
        "evaluate",
        "learn",
        "measure",
        "recalibrate",
        "search",
        "train",
    },
    "Checkpoints of a training run": {"average", "select"},
    "Inspect models, methods and recipes": {"diff", "inspect", "methods", "schema", "verify"},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("interface")
    for name, tensors in random_family().items():
        write_model(folder / name, tensors)
    (folder / "recipe.yaml").write_text(recipe_text())
    return folder


def digest(polyak, place, *arguments):
    return json.loads(polyak(place, *arguments, "--json", "--force"))["digest"]


def test_help_lists_every_command_in_its_section_and_cuts_no_summary(place, polyak):
    text = polyak(place, "--help")
    assert sorted(name for names in SECTIONS.values() for name in names) == sorted(cli.commands())
    parts = text.split("\n\n")
    for title, names in SECTIONS.items():
        (section,) = (part for part in parts if part.startswith(f"{title}:"))
        assert {line.split()[0] for line in section.splitlines()[1:] if line[2] != " "} == names
    assert "..." not in text.partition("\n")[2]


def test_version(place, polyak):
    from polyak import __version__

    assert polyak(place, "--version") == f"polyak {__version__}\n"


def test_models_with_a_method_merge_as_the_recipe_that_says_the_same(place, polyak):
    (place / "ties.yaml").write_text(
        "base: base\nmethod: ties\nsettings: {density: 0.4}\n"
        "models: [{path: m0, weight: 0.5}, {path: m1, weight: -1}]\n"
    )
    expected = digest(polyak, place, "merge", "ties.yaml", "out")
    inline = ["merge", "m0", "m1", "--method", "ties", "--base", "base", "--set", "density=0.4"]
    assert digest(polyak, place, *inline, "--weight", "0.5", "--weight", "-1", "-o", "out") == expected
    assert digest(polyak, place, *inline, "out", "--weights", "0.5,-1") == expected
    assert digest(polyak, place, *inline, "out", "--weights", "0.5,-0.9") != expected
    per_model = ["merge", "m0", "m1", "-m", "ties", "-b", "base", "-s", "density=0.4", "-s", "weight=0.5,-1", "out"]
    assert digest(polyak, place, *per_model) == expected


def test_errors_on_models_name_options_and_keys_of_recipe_files_as_such(place, polyak):
    assert polyak(place, "merge", "m0", "m1", "-m", "ties", "-o", "out", code=3).endswith(" Give --base.\n")
    write_model(place / "unlike", {"other": next(iter(random_family()["base"].values()))})
    refused = polyak(place, "plan", "m0", "unlike", code=4)
    assert "\n  In a recipe file: `heads: REGEX` keeps" in refused
    refused = polyak(place, "plan", "m0", "m1", "-m", "fisher", code=3)
    assert "`polyak measure fisher`. In a recipe file: Name the file at each model: `statistics:" in refused


def test_a_model_may_be_called_as_the_base_is_called_in_recipes(place, polyak):
    merge = ["merge", "base", "m0", "-m", "task_arithmetic", "--weight", "0.5,1", "-o", "out"]
    (place / "same.yaml").write_text(
        "base: m1\nmethod: task_arithmetic\nmodels: [{path: base, name: b, weight: 0.5}, {path: m0, weight: 1}]\n"
    )
    assert digest(polyak, place, *merge, "-b", "m1") == digest(polyak, place, "merge", "same.yaml", "out")


def test_a_recipe_is_read_from_standard_input(place, polyak, monkeypatch):
    expected = digest(polyak, place, "merge", "recipe.yaml", "out")
    monkeypatch.setattr(sys, "stdin", io.StringIO(recipe_text()))
    assert digest(polyak, place, "merge", "-", "out") == expected
    monkeypatch.setattr(sys, "stdin", io.StringIO("models: ["))
    assert "error: " in polyak(place, "plan", "-", code=3)


def test_plan_takes_models_too(place, polyak):
    assert "slerp(" in polyak(place, "plan", "m0", "m1", "--method", "slerp")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["merge", "out"], "Give a RECIPE and OUT"),
        (["merge", "recipe.yaml", "out", "--method", "ties"], "stand in the recipe"),
        (["merge", "m0", "m1", "out", "--weight", "1"], "2 models have 1 weights"),
        (["merge", "m0", "m1", "out", "--weight", "1,1", "--method", "slerp"], "'slerp' has no weights"),
        (["merge", "m0", "m1", "./m0", "out"], "m0 is given twice"),
        (["merge", "m0", "m1", "out", "--seed", str(2**64)], "is not in the range"),
        (["merge", "m0", "m1", "out", "--set", "density"], "not NAME=VALUE"),
        (["merge", "m0", "m1", "out", "--set", "=1"], "not NAME=VALUE"),
        (["merge", "m0", "m1", "out", "--set", "zero-sum=drop", "--set", "zero_sum=drop"], "zero_sum is given twice"),
        (["merge", "m0", "m1", "out", "--weight", "1,1", "--set", "weight=1"], "by --weight too"),
        (["merge", "m0", "recipe.yaml", "out"], "recipe.yaml is a recipe, which stands alone"),
        (["plan", "-", "m0"], "- is a recipe, which stands alone"),
        (["merge", "recipe.yaml", "out", "--memory", "much"], "is not a size"),
        (["merg"], "No such command"),
        (["merge", "--metod", "ties"], "No such option"),
    ],
)
def test_wrong_use_is_a_usage_error(place, polyak, arguments, word):
    said = polyak(place, *arguments, code=2)
    assert word in said and "error: " in said
    *_, last = polyak(place, *arguments, "--json", code=2).splitlines()
    assert json.loads(last)["kind"] == "UsageError"


@pytest.mark.parametrize(
    ("arguments", "code", "kind"),
    [
        (["merge", "nowhere.yaml", "out"], 3, "RecipeError"),
        (["plan", "m0", "--method", "tise"], 3, "UnknownMethod"),
        (["inspect", "nowhere"], 4, "CheckpointError"),
        (["diff", "m0", "nowhere"], 4, "CheckpointError"),
        (["verify", "m0"], 4, "CheckpointError"),
        (["bake", "m0/model.safetensors", "out"], 4, "CheckpointError"),
        (["methods", "tise"], 3, "UnknownMethod"),
        (["lora", "merge", "m0", "m1", "out"], 4, "CheckpointError"),
        (["lora", "bake", "m0", "m1", "out"], 4, "CheckpointError"),
        (["average", "nowhere", "out"], 4, "CheckpointError"),
    ],
)
def test_every_error_is_one_json_object_on_the_last_line(place, polyak, arguments, code, kind):
    lines = [json.loads(line) for line in polyak(place, *arguments, "--json", code=code).splitlines()]
    assert lines[-1].keys() == {"event", "kind", "message", "exit_code"}
    assert (lines[-1]["event"], lines[-1]["kind"], lines[-1]["exit_code"]) == ("error", kind, code)


def test_progress_is_json_lines_under_json_and_nothing_when_quiet(place, capsys, monkeypatch):
    def errors_of(*arguments):
        monkeypatch.setattr(sys, "argv", ["polyak", "merge", "recipe.yaml", "out", "--force", "--json", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert not ended.value.code
        return capsys.readouterr().err

    monkeypatch.chdir(place)
    events = [json.loads(line) for line in errors_of().splitlines()]
    assert [event["event"] for event in events] == ["started", "advanced", "finished"]
    assert 0 < events[1]["count"] == pytest.approx(events[0]["total"], rel=0.01)
    assert errors_of("--quiet") == ""


def test_layers_are_listed_by_number(place, polyak):
    import numpy as np

    tensors = {f"layers.{i}.w": np.full((2, 2), i + 1.0, np.float32) for i in range(11)}
    write_model(place / "deep", tensors)
    write_model(place / "moved", {name: tensor + 1 for name, tensor in tensors.items()})
    listed = [line.split()[0] for line in polyak(place, "inspect", "deep").splitlines() if "layers." in line]
    assert listed == [f"layers.{i}.w" for i in range(11)]
    by_layer = polyak(place, "diff", "deep", "moved", "--top", "0").splitlines()
    assert [line.split()[0] for line in by_layer if "layers." in line] == [f"layers.{i}" for i in range(11)]


def test_bake_of_an_adapter_names_the_command_for_it(place, polyak):
    (place / "adapter").mkdir(exist_ok=True)
    (place / "adapter" / "adapter_config.json").write_text("{}")
    assert "polyak lora bake BASE adapter out" in polyak(place, "bake", "adapter", "out", code=2)


@pytest.mark.parametrize("name", ["dare-ties", "dare_ties"])
def test_names_take_dashes_or_underscores(place, polyak, name):
    assert polyak(place, "methods", name).startswith("dare_ties\n")
    assert "dare_ties(" in polyak(place, "plan", "m0", "m1", "-b", "base", "-m", name, "-s", "density=0.5")
    assert "Did you mean 'dare_ties'" in polyak(place, "methods", "dare-tise", code=3)


def test_statistics_and_settings_take_dashes_or_underscores(place, polyak):
    assert "regmean_plus_plus" in polyak(place, "measure", "merged_gram", "--help").replace("-", "_")
    from polyak import recipe

    models = [{"path": "m0", "statistics": {"merged-gram": "a.safetensors"}}]
    read = recipe.read({"models": models, "method": "regmean-plus-plus"})
    assert (read.method, set(read.models[0].statistics)) == ("regmean_plus_plus", {"merged_gram"})
    dashed = {"models": ["m0"], "base": "base", "method": "ties", "settings": {"zero-sum": "drop"}}
    assert recipe.read(dashed).settings == {"zero_sum": "drop"}
    with pytest.raises(RecipeError, match=r"zero_sum is given twice"):
        recipe.read({**dashed, "settings": {"zero-sum": "drop", "zero_sum": "drop"}})


@pytest.mark.parametrize("command", ["methods", "--help"])
def test_a_reader_that_has_enough_is_no_error(command):
    """`polyak ... | head`: the pipe closes while the command still writes."""
    read, write = os.pipe()
    os.close(read)
    try:
        assert run_into(write, command) == (1, "")
    finally:
        os.close(write)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("command", ["methods", "--help"])
def test_output_that_cannot_be_written_is_an_error(command):
    with open("/dev/full", "w") as full:
        assert run_into(full, command) == (1, "error: standard output: No space left on device.\n")


def run_into(output, command):
    polyak = [sys.executable, "-m", "polyak", command]
    done = subprocess.run(polyak, stdout=output, stderr=subprocess.PIPE, text=True, check=False)
    return done.returncode, done.stderr


def test_errors_of_the_system_are_told_with_their_file_or_by_their_words(place, polyak, monkeypatch):
    def fail(error):
        def raise_it(*_):
            raise error

        monkeypatch.setattr(cli, "_with", raise_it)
        return polyak(place, "methods", code=1)

    assert fail(OSError(5, "Input/output error", "m0/config.json")) == "error: m0/config.json: Input/output error.\n"
    assert fail(OSError(28, "No space left on device")) == "error: standard output: No space left on device.\n"
    assert fail(OSError("no tokenizer at m0")) == "error: no tokenizer at m0\n"


WARNING = "a score\nof   two lines"


@pytest.fixture
def warned(place, tmp_path):
    """Standard error of an evaluation by a function that raises warnings, as a process: pytest has its own filters."""
    library = tmp_path / "site-packages" / "chatty.py"
    library.parent.mkdir()
    library.write_text("import warnings\ndef talk():\n    warnings.warn('of a library', stacklevel=1)\n")
    (tmp_path / "mine.py").write_text(
        f"import sys, warnings\nsys.path.insert(0, {str(library.parent)!r})\nimport chatty\n"
        "def score(checkpoint):\n"
        "    chatty.talk()\n"
        "    warnings.warn('a kernel (Triggered internally at torch/csrc/x.cpp:1.)')\n"
        "    warnings.warn('is deprecated', DeprecationWarning)\n"
        "    warnings.warn('will change', FutureWarning)\n"
        f"    warnings.warn({WARNING!r})\n"
        "    return [1.0, 0.0]\n"
    )

    def run(*arguments, options=()):
        polyak = [sys.executable, *options, "-m", "polyak", "evaluate", place / "m0", "--task", "mine:score"]
        done = subprocess.run([*polyak, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stderr

    return run


def test_warnings_of_the_users_own_modules_show_in_one_line_and_those_of_libraries_do_not(warned):
    assert [line for line in warned().splitlines() if "warning" in line.lower()] == ["warning: a score of two lines"]


def test_warnings_are_objects_under_json_and_nothing_when_quiet(warned):
    events = [json.loads(line) for line in warned("--json").splitlines()]
    (event,) = (event for event in events if event["event"] == "warning")
    assert event == {"event": "warning", "kind": "UserWarning", "message": "a score of two lines"}
    assert warned("--quiet") == ""


def test_pythons_own_option_shows_all_warnings(warned):
    told = warned(options=["-Wdefault"])
    assert all(text in told for text in ("of a library", "Triggered internally", "is deprecated", "will change"))


def test_streams_may_be_closed(place, polyak, monkeypatch):
    for stream in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, stream, None)  # as Python does for a descriptor that is closed
    assert polyak(place, "merge", "recipe.yaml", "out", "--force") == ""
    assert polyak(place, "plan", "-", code=3) == ""
    for stream in (sys.stdin, sys.stdout, sys.stderr):  # which the program opened in their place
        stream.close()


def test_standard_input_that_is_not_utf8_is_a_wrong_recipe(place, polyak, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"models: [\xff]"), encoding="utf-8"))
    assert "surrogate is not a character" in polyak(place, "plan", "-", code=3)


def test_names_that_the_terminal_cannot_show_are_escaped(place, polyak, monkeypatch):
    import numpy as np

    write_model(place / "greek", {"\N{GREEK SMALL LETTER OMEGA}": np.zeros(2, np.float32)})
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    polyak(place, "inspect", "greek")
    assert b"\\u03c9" in written.getvalue()


def test_help_of_derived_commands_cuts_no_summary(place, polyak):
    text = polyak(place, "measure", "--help")
    assert "merged-gram" in text and "..." not in text.partition("\n")[2]


def test_completion_suggests_commands_and_options():
    words = {"COMP_WORDS": "polyak me", "COMP_CWORD": "1", "_POLYAK_COMPLETE": "complete_bash"}
    done = subprocess.run(
        [sys.executable, "-m", "polyak"], env=os.environ | words, capture_output=True, text=True, check=False
    )
    assert set(done.stdout.split()) == {"merge", "measure", "methods"}
