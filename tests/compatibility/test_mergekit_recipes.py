"""Recipes of mergekit from public reports: read as their authors meant them, or refused at the line that is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from .reported import reported
from .small_models import assert_same, config_of, llama, merged, refused, write

LAYERS = 4
HALVES = "[{model: ./a, parameters: {weight: 0.5}}, {model: ./b, parameters: {weight: 0.5}}]"


@pytest.fixture
def models(tmp_path: Path) -> dict[str, dict[str, np.ndarray]]:
    return {name: write(tmp_path / name, llama(seed, LAYERS)) for seed, name in enumerate("abc")}


def stacked(*layers: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Layers by the parts of their names behind the number, one on top of the other."""
    return {f"model.layers.{i}.{part}": tensor for i, parts in enumerate(layers) for part, tensor in parts.items()}


def layer(tensors: dict[str, np.ndarray], i: int) -> dict[str, np.ndarray]:
    prefix = f"model.layers.{i}."
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def outside(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: tensor for name, tensor in tensors.items() if ".layers." not in name}


@reported(
    "arcee-ai/mergekit#354",
    what="Layer ranges that should be stacked were listed as sources of one slice; mergekit stops at an assertion "
    "about numbers of layers.",
    versions="files only",
    result="Refused at the second source, with the way to stack them: a slice for each stacks exactly these layers.",
)
def test_ranges_of_one_model_in_one_slice(tmp_path, models):
    sources = [f"{{model: ./a, layer_range: {layers}}}" for layers in ("[0, 1]", "[0, 2]", "[1, 2]")]
    together = f"merge_method: passthrough\nslices:\n- sources: [{', '.join(sources)}]\n"
    refused(tmp_path, together, "slices[0].sources[1]", "give each a slice of its own")
    apart = "merge_method: passthrough\nslices:\n" + "".join(f"- sources: [{source}]\n" for source in sources)
    a = models["a"]
    assert_same(merged(tmp_path, apart), stacked(*(layer(a, i) for i in (0, 0, 1, 1))) | outside(a))


@reported(
    "arcee-ai/mergekit#360",
    what="Each layer of a model was to be merged with a later one of the same model, by ranges such as [0, 0]; the "
    "result had no layers.",
    versions="files only",
    result="Refused, because mergekit keeps only the last of two ranges of one model; polyak's own form, which the "
    "message names, gives the mean of the two layers.",
)
def test_layers_of_one_model_merged_with_each_other(tmp_path, models):
    both = "- {model: ./a, layer_range: [0, 0]}\n  - {model: ./a, layer_range: [3, 3]}"
    text = f"merge_method: linear\nparameters: {{weight: 1}}\nslices:\n- sources:\n  {both}\n"
    refused(tmp_path, text, "slices[0].sources[1]", "polyak's own form")
    own = "method: linear\nslices:\n" + "".join(
        f"- models: [{{path: ./a, layers: [{i}, {i + 1}]}}, {{path: ./a, name: last, layers: [3, 4]}}]\n"
        for i in range(3)
    )
    a = models["a"]
    means = ({part: (values + layer(a, 3)[part]) / 2 for part, values in layer(a, i).items()} for i in range(3))
    assert_same(merged(tmp_path, own), stacked(*means) | outside(a))
    assert config_of(tmp_path / "out")["num_hidden_layers"] == 3


@reported(
    "arcee-ai/mergekit#51",
    what="An example's layer range reached beyond the model's last layer: no rule to produce model.layers.32.",
    versions="files only",
    result="Refused at planning time with the number of layers and the largest stop, with which the merge is right.",
)
def test_a_range_beyond_the_last_layer(tmp_path, models):
    text = (
        "merge_method: linear\nparameters: {weight: 1}\nslices:\n"
        "- sources: [{model: ./a, layer_range: [0, 5]}, {model: ./b, layer_range: [0, 5]}]\n"
    )
    refused(tmp_path, text, "out of range", "it has 4", "largest stop is 4")
    mean = {name: (values + models["b"][name]) / 2 for name, values in models["a"].items()}
    assert_same(merged(tmp_path, text.replace("5]", "4]")), mean)


@reported(
    "arcee-ai/mergekit#85",
    what="A model was stacked on itself, and writing failed because tensors share memory.",
    versions="files only; read back by safetensors 0.8.0",
    result="Every repeated layer is written once per place, and the config counts all of them.",
)
def test_a_model_stacked_on_itself(tmp_path, models):
    numpy = pytest.importorskip("safetensors.numpy")
    whole = "- sources: [{model: ./a, layer_range: [0, 4]}]\n"
    merged(tmp_path, f"merge_method: passthrough\nslices:\n{whole}{whole}")
    layers = [layer(models["a"], i % LAYERS) for i in range(2 * LAYERS)]
    assert_same(numpy.load_file(tmp_path / "out/model.safetensors"), stacked(*layers) | outside(models["a"]))
    assert config_of(tmp_path / "out")["num_hidden_layers"] == 2 * LAYERS


@reported(
    "arcee-ai/mergekit#611",
    what="TIES of two Gemma 2 models without weights ended at the first tensor: missing required parameter weight.",
    versions="files only",
    result="Refused before a tensor is read, at the model without a weight; with weights, the values of the paper's "
    "formula.",
)
def test_ties_without_a_weight(tmp_path, models):
    text = "merge_method: ties\nbase_model: ./c\nmodels: [{model: ./a}, {model: ./b}]\nparameters: {density: 1}\n"
    refused(tmp_path, text, "models[0] has no 'weight'", "'ties'")
    found = merged(tmp_path, text.replace("density: 1", "density: 1, weight: 0.5"))
    expected = {}
    for name, base in models["c"].items():
        deltas = np.stack([models["a"][name] - base, models["b"][name] - base])
        agree = np.sign(deltas) == np.sign(deltas.sum(0))
        expected[name] = base + (deltas * agree).sum(0) / agree.sum(0)
    assert_same(found, expected)


@reported(
    "arcee-ai/mergekit#671",
    what="A recipe was pasted with its later keys indented deeper than `models:`.",
    versions="files only",
    result="Refused with the line and column of the first key that is out of place.",
)
def test_keys_that_are_indented_differently(tmp_path, models):
    text = "models:\n    - model: ./a\n      parameters: {weight: 1}\n  merge_method: linear\n"
    refused(tmp_path, text, "line 4, column 3")


@reported(
    "allenai/open-instruct#463",
    what="`normalize: true` stands at the top of the file instead of below `parameters:`, where mergekit ignores it.",
    versions="files only",
    result="Refused, with the place where it belongs; there it has its effect: a sum of models instead of a mean.",
)
def test_a_parameter_outside_of_parameters(tmp_path, models):
    text = f"merge_method: linear\nnormalize: false\nmodels: {HALVES.replace('0.5', '1')}\n"
    refused(tmp_path, text, "normalize is a parameter", "below `parameters:`")
    found = merged(tmp_path, text.replace("normalize: false", "parameters: {normalize: false}"))
    assert_same(found, {name: values + models["b"][name] for name, values in models["a"].items()})


@reported(
    "arcee-ai/mergekit#470",
    what="Weights were written next to `model:`, and ranges ended at -1.",
    versions="files only",
    result="Both are refused at their places; written below `parameters:` and with the number of layers, the recipe "
    "gives the weighted mean.",
)
def test_weights_next_to_the_model_and_ranges_to_minus_one(tmp_path, models):
    a, b = (
        f"- {{model: ./{name}, layer_range: [0, -1], weight: {weight}}}" for name, weight in (("a", 0.3), ("b", 0.2))
    )
    text = f"merge_method: linear\nslices:\n- sources:\n  {a}\n  {b}\n"
    refused(tmp_path, text, "slices[0].sources[0].layer_range[1] must be an integer, at least 0")
    text = text.replace("-1]", "4]")
    refused(tmp_path, text, "slices[0].sources[0].weight is a parameter", "below `parameters:`")
    for weight in ("0.3", "0.2"):
        text = text.replace(f"weight: {weight}", f"parameters: {{weight: {weight}}}")
    mean = {name: 0.6 * values + 0.4 * models["b"][name] for name, values in models["a"].items()}
    assert_same(merged(tmp_path, text), mean)


@reported(
    "arcee-ai/mergekit#327",
    what="Only the q_proj matrices were to be merged, by a filter and a zero for all others.",
    versions="files only",
    result="Those matrices are spherical means, and all other tensors are the base's, bit by bit.",
)
def test_slerp_of_one_kind_of_matrix(tmp_path, models):
    parameters = "{t: [{filter: q_proj, value: 0.5}, {value: 0}]}"
    text = "merge_method: slerp\nbase_model: ./a\nmodels: [{model: ./a}, {model: ./b}]\n"
    found = merged(tmp_path, f"{text}parameters: {parameters}\n")
    for name, a in models["a"].items():
        if "q_proj" not in name:
            np.testing.assert_array_equal(found[name], a)
            continue
        b = models["b"][name]
        angle = np.arccos((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))
        np.testing.assert_allclose(found[name], (a + b) * np.sin(angle / 2) / np.sin(angle), atol=1e-5)


@reported(
    "arcee-ai/mergekit#308",
    what="Everything but the output head was to be merged; the answer was a filter that gives the second model's "
    "head no weight.",
    versions="files only",
    result="The head is the first model's, bit by bit, and all other tensors are means.",
)
def test_the_head_of_one_model(tmp_path, models):
    weight = "[{filter: lm_head, value: 0}, {value: 1}]"
    text = (
        f"merge_method: linear\nmodels: [{{model: ./a, parameters: {{weight: 1}}}}, "
        f"{{model: ./b, parameters: {{weight: {weight}}}}}]\n"
    )
    mean = {name: (values + models["b"][name]) / 2 for name, values in models["a"].items()}
    found = merged(tmp_path, text)
    assert_same(found, mean | {"lm_head.weight": models["a"]["lm_head.weight"]})
    np.testing.assert_array_equal(found["lm_head.weight"], models["a"]["lm_head.weight"])
