"""The chat template of the result: the one of most models, of one model, a built-in one, or the recipe's own text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any, cast

from ...checkpoint import TOKENIZER_SETTINGS, inside, read_json
from ...errors import CheckpointError, RecipeError, suggestion
from ...recipe import Recipe
from ..compatibility import Opened
from ..steps import Sidecars

TEMPLATE = "chat_template.jinja"
_TEMPLATES = resources.files("polyak.planning.output").joinpath("chat_templates")
_LEGACY = "chat_template.json"


def template_names() -> list[str]:
    """Names of the built-in templates."""
    return sorted(file.name.removesuffix(".jinja") for file in _TEMPLATES.iterdir() if file.name.endswith(".jinja"))


def with_recipe_template(side: Sidecars, recipe: Recipe, opened: Sequence[Opened]) -> Sidecars:
    """The files with the chat template that a recipe names, if it names one."""
    return side if recipe.chat_template is None else with_template(side, recipe.chat_template, opened)


def with_template(side: Sidecars, choice: str, models: Sequence[Opened]) -> Sidecars:
    """Set the chat template of the result as a recipe asks.

    Raises:
        RecipeError: no model has one, or the name is unknown.
    """
    template = _chosen_template(choice, models)
    settings = side.written.get(TOKENIZER_SETTINGS) or _settings_of(side.files)
    dropped = {TEMPLATE, _LEGACY, *([TOKENIZER_SETTINGS] if "chat_template" in settings else [])}
    kept = {name: path for name, path in side.files.items() if name not in dropped and not is_template(name)}
    written = dict(side.written)
    if "chat_template" in settings:
        written[TOKENIZER_SETTINGS] = {key: value for key, value in settings.items() if key != "chat_template"}
    if template is not None:
        written[TEMPLATE] = template
    return replace(side, files=kept, written=written)


def is_template(name: str) -> bool:
    """Test for the path of a further chat template in a model's folder."""
    return name.startswith("additional_chat_templates/")


def _settings_of(files: Mapping[str, Path]) -> Mapping[str, Any]:
    return read_json(files[TOKENIZER_SETTINGS]) if TOKENIZER_SETTINGS in files else {}


def _chosen_template(choice: str, models: Sequence[Opened]) -> str | None:
    if choice == "none":
        return None
    if choice == "auto":
        return _usual(models)
    if "{" in choice:
        return choice
    if named := next((model for model in models if model.name == choice), None):
        if template := template_of(named):
            return template
        raise RecipeError(f"`chat_template: {choice}`: this model has no chat template.")
    if choice in template_names():
        return _TEMPLATES.joinpath(f"{choice}.jinja").read_text("utf-8")
    names = {"auto", "none", *template_names(), *(model.name for model in models)}
    raise RecipeError(
        f"`chat_template: {choice:.80}` is neither a template nor the name of one. {suggestion(choice, names)}"
    )


def _usual(models: Sequence[Opened]) -> str:
    """The template that most models have; in a tie, that of the first of them."""
    templates = [template for model in models if (template := template_of(model))]
    if not templates:
        raise RecipeError("`chat_template: auto`: no model has a chat template. Name one, such as `chatml`.")
    return Counter(templates).most_common(1)[0][0]


def template_of(model: Opened) -> str | None:
    """The chat template in a model's folder, or None."""
    folder = model.checkpoint.folder
    if folder is None:
        return None
    if (folder / TEMPLATE).is_file():
        path = inside(folder, TEMPLATE)
        try:
            return path.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}.") from error
    for name in (_LEGACY, TOKENIZER_SETTINGS):
        if (folder / name).is_file() and (template := _default(read_json(inside(folder, name)).get("chat_template"))):
            return template.strip()
    return None


def _default(template: Any) -> str | None:
    """The template itself, or the one named `default` of a list of templates."""
    if isinstance(template, list):
        entries = [cast("dict[str, Any]", entry) for entry in cast("list[Any]", template) if isinstance(entry, dict)]
        template = next((entry.get("template") for entry in entries if entry.get("name") == "default"), None)
    return template if isinstance(template, str) else None
