"""What the campaign feeds: for each kind of file, valid examples, and the code that reads it up to the merge."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import polyak
from polyak import adapters, checkpoint, recipe, statistics
from polyak.checkpoint import DTYPES, TensorSpec
from polyak.checkpoint.safetensors import layout
from polyak.engine import run
from polyak.inspection import verify

from ..adapters.made import write_adapter
from ..engine.conftest import random_family, recipe_text, write_model
from ..harm.made import tensor
from ..surgery.test_vocabulary import write_speaker

STATE = b"\x80\x02}(X\x01\0\0\0w" + tensor() + b"X\x01\0\0\0v" + tensor() + b"u."


@dataclass(frozen=True)
class Target:
    """A kind of file.

    Attributes:
        file: Its path in the working folder.
        seeds: Valid contents.
        read: Reads it; raises a PolyakError if it is refused.
        is_json: Its structure is mutated, too.
    """

    file: str
    seeds: list[bytes]
    read: Callable[[Path], object]
    is_json: bool = False


class Wants:
    def __reduce__(self) -> object:
        return print, ("this must never be printed",)


def programs() -> list[bytes]:
    values = {"epoch": 3, "text": "é" * 300, "list": [1, (2, 3.5), None, True], "set": {1}, "big": 2**70, "bytes": b"x"}
    plain = [pickle.dumps(values, protocol) for protocol in range(6)]
    nested = b"\x80\x02}X\x05\0\0\0model" + STATE[2:-1] + b"s."
    return [STATE, *plain, pickle.dumps(Wants(), 2), pickle.dumps(Wants(), 4), nested]


def archived(program: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, data in {"data.pkl": program, "byteorder": b"little", "data/0": bytes(24)}.items():
            file.writestr(f"archive/{name}", data)
    return out.getvalue()


def legacy(program: bytes) -> bytes:
    start = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    return start + program + pickle.dumps(["0"], 2) + struct.pack("<q", 6) + bytes(24)


def headers() -> list[bytes]:
    specs = [TensorSpec(f"layer.{i}.{name}", dtype, (i, 3)) for i, (name, dtype) in enumerate(DTYPES.items())]
    chosen = [
        layout(some, {"format": "pt"})[0].rstrip() + bytes(sum(s.nbytes for s in some)) for some in (specs, specs[:2])
    ]
    odd = json.dumps({'é\\"': {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}}).encode()
    return [*chosen, len(odd).to_bytes(8, "little") + odd + bytes(4)]


def _read_all(path: Path) -> None:
    with checkpoint.open(path) as opened:
        for name, spec in opened.specs.items():
            if spec.nbytes < 1 << 20:
                opened.read(name)


def _recipes() -> list[bytes]:
    rules = {"match": "layers\\\\.0", "method": "linear", "settings": {"normalize": True}}
    models = [{"path": "m0", "weight": 0.4}, {"path": "m1", "weight": {"layers": [0, 1], "outside": 0.5}}]
    ties = {
        "base": "base",
        "models": models,
        "method": "ties",
        "settings": {"density": 0.4},
        "rules": [rules],
        "seed": 3,
    }
    skips = {
        "models": ["m0", "m1"],
        "method": "linear",
        "skip": ["norm", "(a|b)+c"],
        "dtype": "float32",
        "base": "base",
    }
    slices = {
        "method": "passthrough",
        "slices": [{"models": [{"path": "m0", "layers": [0, 1]}]}, {"models": [{"path": "m1", "layers": [1, 2]}]}],
    }
    merges = {
        "merge_method": "dare_ties",
        "base_model": "base",
        "models": [
            {"model": "m0", "parameters": {"weight": [0, 1], "density": [{"filter": "w", "value": 0.5}, {"value": 1}]}},
            {"model": "m1", "parameters": {"weight": 1}},
        ],
        "dtype": "bfloat16",
    }
    nested = {
        "models": [{"recipe": {"models": ["m0", "m1"], "method": "linear"}, "name": "x"}, {"path": "m2"}],
        "method": "linear",
    }
    return [json.dumps(data).encode() for data in (ties, skips, slices, merges, nested)]


def _plan(path: Path) -> None:
    polyak.plan(path)


def _spoken(path: Path) -> None:
    data = {"models": ["speaker0", "speaker1"], "method": "linear", "vocabulary": "union"}
    polyak.plan(recipe.read(data, path.parents[1]))


def _adapted(path: Path) -> None:
    folder = path.parents[1]
    adapters.merge(
        recipe.read({"models": ["adapter0", "adapter1"], "method": "linear"}, folder), folder / "adapted", force=True
    )


def made(folder: Path) -> dict[str, Target]:
    """The working folder's models, and the targets."""
    for name, tensors in random_family().items():
        write_model(folder / name, tensors, {"model_type": "llama", "num_hidden_layers": 2, "architectures": ["X"]})
    (folder / "recipe.yaml").write_text(recipe_text("linear"))
    run(polyak.plan(folder / "recipe.yaml"), folder / "merged", shard_nbytes=9_000)
    for i, words in enumerate((["<s>", "one", "two"], ["<s>", "two", "three", "<b>"])):
        write_speaker(folder / f"speaker{i}", words, i, added=tuple(w for w in words if w == "<b>"))
    for i in range(2):
        write_adapter(folder / f"adapter{i}", i)
    return _of_files(folder) | _of_json(folder) | _of_studies(folder)


def _of_files(folder: Path) -> dict[str, Target]:
    rows = {"w": 3}
    measured = statistics.Measurement("fisher", {"w": np.ones(4, np.float32)}, rows, 3, "d", "e", {})
    measured.save(folder / "fisher.safetensors")
    yaml = [
        recipe_text("ties", extra="rules: [{match: 'layers', method: linear}]").encode(),
        recipe_text("linear", base=False).encode(),
    ]
    return {
        "header": Target("a.safetensors", headers(), _read_all),
        "archive": Target("a.pt", [archived(program) for program in programs()], _read_all),
        "pickle": Target("p.pt", programs(), _archived_and_read),
        "legacy": Target("l.pt", [legacy(program) for program in programs()], _read_all),
        "statistics": Target("fisher.safetensors", [(folder / "fisher.safetensors").read_bytes()], statistics.load),
        "yaml": Target("fuzzed.yaml", yaml, _plan),
    }


def _archived_and_read(path: Path) -> None:
    path.write_bytes(archived(path.read_bytes()))
    _read_all(path)


def _of_json(folder: Path) -> dict[str, Target]:
    readers: dict[str, tuple[str, Callable[[Path], object]]] = {
        "index": ("merged/model.safetensors.index.json", lambda path: checkpoint.open(path.parent).close()),
        "config": ("m0/config.json", lambda path: polyak.plan(path.parents[1] / "recipe.yaml")),
        "provenance": ("merged/polyak.json", lambda path: verify(path.parent, inputs=True)),
        "adapter": ("adapter0/adapter_config.json", _adapted),
        "tokenizer": ("speaker1/tokenizer.json", _spoken),
        "tokens": ("speaker0/tokenizer_config.json", _spoken),
    }
    files = {name: Target(file, [(folder / file).read_bytes()], read, True) for name, (file, read) in readers.items()}
    return files | {"recipe": Target("fuzzed.json", _recipes(), _plan, True)}


def _of_studies(folder: Path) -> dict[str, Target]:
    """The study of a search with three candidates; none where Optuna, which writes studies, is not installed."""
    if find_spec("optuna") is None:
        return {}
    from optuna.distributions import FloatDistribution
    from optuna.trial import create_trial

    from polyak.search import studies

    about, space = {"recipe": "ties"}, {"density": FloatDistribution(0, 1)}
    opened = studies.open_study(folder / "study.db", about, ["maximize"], space)
    for density in (0.25, 0.5, 1.0):
        record = {studies.NAME: {"objectives": [density], "metrics": {"accuracy": density}}}
        opened.add_trial(
            create_trial(value=density, params={"density": density}, distributions=space, user_attrs=record)
        )
    studies.close(opened)

    def read(path: Path) -> None:
        studies.close(studies.open_study(path, about, ["maximize"], space))

    return {"study": Target("study.db", [(folder / "study.db").read_bytes()], read)}
