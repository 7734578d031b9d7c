from collections.abc import Callable
from pathlib import Path

import pytest

from polyak.errors import RecipeError
from polyak.recipe import Recipe, load, loads


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    """Write a file with its folders and return its path."""

    def write_file(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write_file


Refused = Callable[..., str]


@pytest.fixture
def assert_refused() -> Refused:
    """Check that a recipe (text, or the path of a file) is refused with a message that holds every part."""

    def check(recipe: str | Path, *parts: str) -> str:
        with pytest.raises(RecipeError) as caught:
            read(recipe)
        message = str(caught.value)
        for part in parts:
            assert part in message, f"{part!r} is not in {message!r}"
        return message

    return check


def read(recipe: str | Path) -> Recipe:
    return load(recipe) if isinstance(recipe, Path) else loads(recipe)
