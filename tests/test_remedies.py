"""Every key and option that a message names exists where the message can be read."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import polyak
from polyak import cli, training
from polyak import recipe as recipes
from polyak.errors import Mismatch, PolyakError, Remedy, told_at, worded
from polyak.remedies import _WORDS

SOURCE = Path(polyak.__file__).parent
KEY, OPTION = re.compile(r"`(?:- )?\{?([a-z_]+): ?[^`]*`"), re.compile(r"(?<![\w-])(--[a-z][a-z-]+)")
# Keys of mergekit's files that a remedy may name.
MERGEKIT = {"base_model", "dtype", "tokenizer", "modules", "filter", "models", "chat_template", "parameters"}
# Keys that only polyak's recipes have, in messages of the rooms that merge mergekit's recipes too: each is read by
# someone who wrote this key, or another of polyak's own.
OWN = {
    "planning/build.py": {"adapter", "statistics", "heads", "path", "recipe"},
    "planning/steps.py": {"name"},
    "planning/resolve.py": {"settings"},
    "planning/slices.py": {"heads", "skip"},
    "planning/output/sidecars.py": {"base", "skip"},
}


def messages() -> Iterator[tuple[str, str]]:
    """Every text in a `raise` statement, by file; replaced parts are left out."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise):
                parts = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
                yield path.relative_to(SOURCE).as_posix(), "".join(parts)


def options(command: Any) -> set[str]:
    """Options of a command and its subcommands."""
    own = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    if not hasattr(command, "list_commands"):
        return own
    context = command.make_context(command.name, [], resilient_parsing=True)
    return own.union(*(options(command.get_command(context, name)) for name in command.list_commands(context)))


def keys_of_recipes() -> set[str]:
    """All names of properties in the schema of recipes."""

    def names(schema: Any) -> Iterator[str]:
        if isinstance(schema, dict):
            yield from schema.get("properties", ())
            schema = schema.values()
        if not isinstance(schema, str | int | float | bool | None):
            for each in schema:
                yield from names(each)

    return {*names(recipes.schema()), "from"}


COMMANDS: Any = typer.main.get_command(cli.app)


def test_options_in_messages_are_options_of_commands():
    known = options(COMMANDS) | {"--help"}
    named = {(path, option) for path, text in messages() for option in OPTION.findall(text)}
    assert len(named) > 10
    assert {pair for pair in named if pair[1] not in known} == set()


def test_keys_in_messages_are_keys_of_recipes_or_tasks():
    tasks = {key for path in (SOURCE / "tasks").rglob("*.py") for key in re.findall(r'"([a-z_]+)"', path.read_text())}
    training.load_all()
    trained = {key for recipe in training.registry.values() for key in recipe.described_keys}
    known = keys_of_recipes() | tasks | trained | MERGEKIT | {"parameters"}
    named = {(path, key) for path, text in messages() for key in KEY.findall(text)}
    assert len(named) > 20
    assert {pair for pair in named if pair[1] not in known} == set()


def test_rooms_that_merge_mergekits_files_leave_native_keys_to_the_remedies():
    rooms = ("planning/", "engine/", "checkpoint/")
    named = {(path, key) for path, text in messages() for key in KEY.findall(text) if path.startswith(rooms)}
    assert {pair for pair in named if pair[1] not in MERGEKIT | OWN.get(pair[0], set())} == set()


@pytest.mark.parametrize("door", _WORDS)
def test_remedies_name_what_their_door_has(door: Any):
    known = {"recipe": keys_of_recipes(), "mergekit": MERGEKIT}.get(door, set())
    command = COMMANDS.commands["lora"].commands[door] if door in ("extract", "bake") else COMMANDS.commands["merge"]
    for words in _WORDS[door].values():
        assert set(KEY.findall(words)) <= known, words
        assert set(OPTION.findall(words)) <= options(command), words


def test_every_remedy_has_words_in_a_recipe_and_an_error_takes_those_of_the_door_that_it_leaves_first():
    assert set(_WORDS["recipe"]) == set(Remedy)
    error = Mismatch("no base.", remedies=[Remedy.BASE])
    assert str(error) == "no base. Give `base:`."
    with pytest.raises(PolyakError, match=r"^no base\. Give `base_model:`\.$"), told_at("recipe"), told_at("mergekit"):
        raise Mismatch("no base.", remedies=[Remedy.BASE])
    assert worded([Remedy.KEY], "mergekit") == ""
    assert str(Mismatch("two:\n  lines", remedies=[Remedy.BASE])) == "two:\n  lines\n  Give `base:`."


@pytest.mark.parametrize("remedy", Remedy)
def test_models_on_the_command_line_have_options_and_are_told_where_keys_belong(remedy):
    words = worded([remedy], "models")
    assert words.startswith("In a recipe file: ") == bool(KEY.search(words))
    assert worded([Remedy.BASE, remedy], "models").startswith("Give --base.")
