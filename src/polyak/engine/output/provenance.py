"""Provenance of a merged model: digests of every tensor read and written, and a model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ... import recipe as recipes
from ..._version import __version__
from ...checkpoint import INDEX, MODULES, Checkpoint, library_of
from ...planning import BASE, Plan, Sidecars
from ...recipe import plain_source
from ...storage import model_digest
from ..step.device import Device

PROVENANCE = "polyak.json"
_OPEN_CLIP = "open_clip_model"  # beginning of the names of its weight files


def provenance(
    plan: Plan,
    algorithm: str,
    outputs: Mapping[str, str],
    inputs: Mapping[str, Mapping[str, str]],
    device: Device | None = None,
) -> dict[str, Any]:
    """The contents of polyak.json: no time, no machine, so the same merge writes the same bytes.

    Args:
        plan: The plan.
        algorithm: Digest algorithm.
        outputs: Digest of each tensor of the result, by `file:name` or name.
        inputs: For each model and statistic, the digest of each tensor as it was read.
        device: Device of whole-matrix merges, if not the CPU: its name and what the bytes depend on are told.
    """
    facts = {
        "polyak": __version__,
        "digest": algorithm,
        "recipe": recipes.dump(plan.recipe),
        "recipe_digest": recipes.digest(plan.recipe),
        "models": _read(plan, plan.models, inputs, algorithm),
        "result": {"digest": model_digest(outputs, algorithm), "tensors": dict(sorted(outputs.items()))},
    }
    if device is not None:
        facts["device"] = {"name": device.name, "said": device.said}
    return facts | ({"statistics": _read(plan, plan.statistics, inputs, algorithm)} if plan.statistics else {})


def _read(
    plan: Plan, checkpoints: Mapping[str, Checkpoint], inputs: Mapping[str, Mapping[str, str]], algorithm: str
) -> dict[str, Any]:
    return {
        name: {
            "path": one.label,
            **_source(plan, name),
            "digest": model_digest(inputs.get(name, {}), algorithm),
            "tensors": dict(sorted(inputs.get(name, {}).items())),
        }
        for name, one in checkpoints.items()
    }


def _source(plan: Plan, name: str) -> dict[str, Any]:
    """The source of a model that needs more than a path to be read again."""
    sources = {model.name: model.source for model in plan.recipe.models}
    source = plan.recipe.base if name == BASE else sources.get(name)
    if source is None or not (source.recipe or source.lora or source.key or source.strip_prefix):
        return {}
    return {"source": plain_source(source, plan.recipe)}


def card(plan: Plan, methods: Sequence[str]) -> str:
    """A model card in the Hub's format: YAML for machines, then words."""
    recipe = recipes.dump(plan.recipe)
    models = [name for name in plan.models if name != BASE]
    head = ["---", f"library_name: {_library(plan.sidecars)}", "tags:", "- merge", "- polyak", "---", ""]
    rows = [f"| {name} | `{model.label}` |" for name, model in plan.inputs.items()]
    return "\n".join(
        [
            *head,
            f"# Merge of {', '.join(models)}",
            "",
            f"{len(models)} models merged with polyak {__version__} by {', '.join(methods)}.",
            "",
            "| model | read from |",
            "|---|---|",
            *rows,
            "",
            f"`{PROVENANCE}` holds the digests of every tensor read and written; `polyak verify` checks them.",
            "",
            *_of_masks(plan),
            "## Recipe",
            "",
            "```yaml",
            recipe.rstrip(),
            "```",
            "",
        ]
    )


def _library(side: Sidecars) -> str:
    """The library that loads the result: by the index among its files, otherwise by its config."""
    for file, library in {INDEX: "diffusers", MODULES: "sentence-transformers"}.items():
        if file in side.files:
            return library
    if "open_clip_config.json" in side.files and (side.config is None or side.stems.get("") == _OPEN_CLIP):
        return "open_clip"  # beside a config and weights of transformers, its own weights are left out
    return library_of(side.config or {})


def _of_masks(plan: Plan) -> list[str]:
    files = sorted({step.file for step in plan.steps if step.kind == "mask" and step.file})
    if not files:
        return []
    shown = ", ".join(f"`{file}`" for file in files)
    return [f"With their base, masks cut each model's own weights out of this one: {shown} (`polyak bake`).", ""]
