"""Late-interaction models, one vector per token, in three layouts: sentence-transformers', PyLate's and Stanford's.

sentence-transformers loads all three. PyLate allows only older versions of it, so its folder is written with the files,
module names and settings of PyLate's `ColBERT.save`; where PyLate is installed, it loads the merge too.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
library = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")

from .encoders import RECIPE, assert_mean, averaged, write_encoder  # noqa: E402

WIDTH = 8
PYLATE = {
    "model_type": "ColBERT", "prompts": {}, "similarity_fn_name": "MaxSim", "query_prefix": "[unused0]",
    "document_prefix": "[unused1]", "query_length": 6, "document_length": 12, "attend_to_expansion_tokens": False,
    "skiplist_words": ["w3"], "do_query_expansion": True,
}  # fmt: skip
STANFORD = {"query_token_id": "[unused0]", "doc_token_id": "[unused1]", "query_maxlen": 6, "doc_maxlen": 12, "dim": 8}
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


class Stanford(transformers.BertPreTrainedModel):
    """A BERT with a projection beside it, as the ColBERT library saves them."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.bert = transformers.BertModel(config)
        self.linear = torch.nn.Linear(config.hidden_size, WIDTH, bias=False)
        self.post_init()


def write_native(folder: Path, seed: int) -> None:
    from sentence_transformers.models import Dense, Normalize, Transformer
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    body = Transformer(write_encoder(folder.with_suffix(".parts"), seed))
    dense = Dense(16, WIDTH, bias=False, module_input_name="token_embeddings")
    modules = [body, dense, MultiVectorMask(["w3"]), Normalize(module_input_name="token_embeddings")]
    library.MultiVectorEncoder(modules=modules, device="cpu").save_pretrained(str(folder))


def write_pylate(folder: Path, seed: int) -> None:
    write_encoder(folder, seed)
    dense = folder / "1_Dense"
    dense.mkdir()
    identity = "torch.nn.modules.linear.Identity"
    settings = {"in_features": 16, "out_features": WIDTH, "bias": False, "activation_function": identity}
    (dense / "config.json").write_text(json.dumps(settings | {"use_residual": False}))
    weights = {"linear.weight": torch.nn.Linear(16, WIDTH, bias=False).weight.detach()}
    pytest.importorskip("safetensors.torch").save_file(weights, dense / "model.safetensors")
    modules = ["sentence_transformers.models.Transformer", "pylate.models.Dense.Dense"]
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": kind}
        for i, (path, kind) in enumerate(zip(["", "1_Dense"], modules, strict=True))
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "config_sentence_transformers.json").write_text(json.dumps(PYLATE))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 11, "do_lower_case": False}))
    (folder / "onnx").mkdir()
    (folder / "onnx/model.onnx").write_bytes(b"of the model before the merge")


def write_stanford(folder: Path, seed: int) -> None:
    write_encoder(folder, seed, Stanford)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["HF_ColBERT"]}))
    (folder / "artifact.metadata").write_text(json.dumps(STANFORD))


# The writer of each layout, the files that go along unchanged, and what is listed as left out.
LAYOUTS: dict[str, tuple[Callable[[Path, int], None], list[str], str]] = {
    "sentence-transformers": (write_native, ["modules.json", "2_MultiVectorMask/config.json"], "README.md"),
    "PyLate": (write_pylate, ["modules.json", "config_sentence_transformers.json"], "onnx/"),
    "Stanford": (write_stanford, ["artifact.metadata", "tokenizer.json"], ""),
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_merge_is_a_late_interaction_model(place, polyak, layout):
    if not hasattr(library, "MultiVectorEncoder"):
        pytest.skip("this sentence-transformers has no multi-vector encoders")
    write, carried, left_out = LAYOUTS[layout]
    for seed, name in enumerate("ab"):
        write(place / name, seed)
    polyak("merge", "recipe.yaml", "out", "--quiet")
    assert left_out in polyak("plan", "recipe.yaml")
    for file in carried:
        assert Path("out", file).read_bytes() == Path("a", file).read_bytes()
    a, b, merged = (library.MultiVectorEncoder(name, device="cpu") for name in ("a", "b", "out"))
    assert [type(module) for module in merged] == [type(module) for module in a]
    assert_mean(merged.state_dict(), a.state_dict(), b.state_dict())
    query, document = merged.encode_query("w1 w2"), merged.encode_document("w1 w3 w2")
    expected = averaged(a, b)
    torch.testing.assert_close(torch.as_tensor(query), torch.as_tensor(expected.encode_query("w1 w2")))
    torch.testing.assert_close(torch.as_tensor(document), torch.as_tensor(expected.encode_document("w1 w3 w2")))
    assert query.shape[1] == WIDTH


@pytest.mark.parametrize("layout", ["PyLate", "Stanford"])
def test_pylate_loads_a_merge(place, polyak, layout):
    models = pytest.importorskip("pylate.models", reason="PyLate is not installed")
    for seed, name in enumerate("ab"):
        LAYOUTS[layout][0](place / name, seed)
    polyak("merge", "recipe.yaml", "out", "--quiet")
    a, b, merged = (models.ColBERT(name, device="cpu") for name in ("a", "b", "out"))
    assert_mean(merged.state_dict(), a.state_dict(), b.state_dict())
    assert (merged.query_prefix, merged.query_length, merged.document_length) == ("[unused0]", 6, 12)
    [query], [expected] = (model.encode(["w1 w2"], is_query=True) for model in (merged, averaged(a, b)))
    torch.testing.assert_close(torch.as_tensor(query), torch.as_tensor(expected))
