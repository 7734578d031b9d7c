"""The suite of languages: a whole small run, claims by hand, and an encoder whose outputs trimming leaves alone."""

from __future__ import annotations

import gzip
import importlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from tokenizers import Tokenizer, models, pre_tokenizers, processors  # noqa: E402

WORDS = ["cat", "dog", "runs", "sits", "fast", "slow", "gato", "corre"]
TAGS = ["NOUN", "NOUN", "VERB", "VERB", "ADV", "ADV", "NOUN", "VERB"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small encoder with a Unigram tokenizer that has tokens that no text needs."""
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁unused", *(f"▁{word}" for word in WORDS), "▁other", "s"]
    made = Tokenizer(models.Unigram([(piece, -float(i)) for i, piece in enumerate(pieces)], unk_id=3))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )  # fmt: skip
    marks = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=made, **marks).save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.BertConfig(vocab_size=len(pieces), max_position_embeddings=64, pad_token_id=1, **sizes)
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The suite, reading made-up sentences of two languages."""
    folder = tmp_path_factory.mktemp("data")
    for file, words in {"en.train": 0, "en.valid": 1, "en.test": 2, "es.test": 3}.items():
        draw = random.Random(words)
        chosen = [draw.choices(range(8), k=6) for _ in range(24)]
        rows = [{"tokens": [WORDS[n] for n in each], "upos": [TAGS[n] for n in each]} for each in chosen]
        with gzip.open(folder / f"{file}.jsonl.gz", "wt", encoding="utf-8") as out:
            out.writelines(f"{json.dumps(row)}\n" for row in rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT)
        data = importlib.import_module("examples.suite_languages.data")
        patch.setattr(data, "FOLDER", folder)
        yield importlib.import_module("examples.suite_languages.suite")


def test_a_small_suite_has_every_claim_with_its_interval(suite: ModuleType, source: Path, tmp_path: Path) -> None:
    data = importlib.import_module("examples.suite_languages.data")
    keys = {"kind": "token-tagging", "tags": "upos"}
    one = data.Set("tags", ("es",), "en.train", "en.valid", "{language}.test", keys, "upos")
    plan = suite.Plan((one,), data.Sizes(24, 8, 8, 8), (1e-6, 0.01), 2, 1.0, 2, 8)
    found = suite.run(source, tmp_path / "out", tmp_path / "results.json", plan)
    task = found["tasks"]["tags"]
    assert len(task["claims"]) == 12
    assert all(one["low"] <= one["value"] <= one["high"] for one in task["claims"])
    first = task["claims"][0]["value"]
    scores = task["scores"]
    wanted = sum(scores["CA"]["0.01"][s] - scores["LAST"]["0.01"][s] for s in ("seed1", "seed2")) / 2
    assert first == pytest.approx(wanted)
    assert json.loads((tmp_path / "results.json").read_text())["plan"]["sets"] == {"tags": ["es"]}


def test_a_trimmed_encoder_gives_the_same_outputs(suite: ModuleType, source: Path, tmp_path: Path) -> None:
    encoder = importlib.import_module("examples.suite_languages.encoder")
    texts = [["cat", "runs", "fast"], ["gato", "dogs"]]
    encoder.trim(source, texts, tmp_path / "small")
    outputs = []
    for folder in (source, tmp_path / "small"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        model = transformers.AutoModel.from_pretrained(folder).eval()
        with torch.inference_mode():
            inputs = tokenizer(texts, is_split_into_words=True, padding=True, return_tensors="pt")
            outputs.append((len(model.embeddings.word_embeddings.weight), model(**inputs).last_hidden_state))
    assert outputs[1][0] < outputs[0][0]
    assert torch.equal(outputs[0][1], outputs[1][1])


def test_claims_say_what_their_intervals_say(suite: ModuleType) -> None:
    claims = importlib.import_module("examples.suite_languages.claims").claims
    seeds = [f"seed{i}" for i in range(5)]

    def table(tiny: float, *others: float) -> dict[str, dict[str, float]]:
        rates = {"5e-06": tiny, "0.0001": others[0], "0.001": others[1]}
        return {rate: {s: value + 0.001 * i for i, s in enumerate(seeds)} for rate, value in rates.items()}

    scores = {"LAST": table(0.5, 0.6, 0.5), "CA": table(0.5, 0.61, 0.6), "TRG-DEV": table(0.6, 0.65, 0.65)}
    scores |= {"CA of all": table(0.4, 0.6, 0.6), "MWA": table(0.5, 0.5, 0.5), "EMA": table(0.5, 0.6, 0.5)}
    over = {"0.001": {"LAST": 0.58}}
    own = {"runs": {s: 0.5 + 0.001 * i for i, s in enumerate(seeds)}, "average": 0.3}
    found = {one["claim"].split(",")[0]: one for one in claims(scores, over, own)}
    first = next(iter(found.values()))
    assert (first["value"], first["verdict"]) == (pytest.approx(0.055), "holds")
    assert found["EMA beats LAST"]["verdict"] == "undecided"
    assert found["MWA beats LAST"]["verdict"] == "the opposite holds"
    assert found["the mean of runs with heads of their own is worse than the runs"]["verdict"] == "holds"
    assert [one["verdict"] for one in found.values()].count("holds") == 7
