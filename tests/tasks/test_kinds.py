"""Every kind of task on a small transformer of its own: scores against what is computed by hand."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from tokenizers import Tokenizer, models, pre_tokenizers, processors  # noqa: E402

from polyak import checkpoint  # noqa: E402
from polyak.errors import TaskError  # noqa: E402
from polyak.tasks import compare, evaluate, score_interval, task_of  # noqa: E402
from polyak.tasks.examples import logits_of  # noqa: E402
from polyak.tasks.ranking import measure  # noqa: E402

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "the",
    "cat",
    "dog",
    "sits",
    "runs",
    "on",
    "mat",
    "fast",
    "a",
    "is",
    "good",
    "bad",
]
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def write_tokenizer(folder, *, marks):
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    if marks:
        made.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    names = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "eos_token": "[SEP]",
    }
    transformers.PreTrainedTokenizerFast(tokenizer_object=made, **names).save_pretrained(folder)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinds")
    torch.manual_seed(0)
    bert = transformers.BertConfig(vocab_size=len(WORDS), max_position_embeddings=32, num_labels=2, **SIZES)
    for name, kind in [
        ("classifier", transformers.BertForSequenceClassification),
        ("other", transformers.BertForSequenceClassification),
        ("tagger", transformers.BertForTokenClassification),
        ("encoder", transformers.BertModel),
    ]:
        kind(bert).save_pretrained(folder / name)
        write_tokenizer(folder / name, marks=True)
    write_causal(folder / "causal")
    return folder


def write_causal(folder):
    torch.manual_seed(0)
    llama = transformers.LlamaConfig(vocab_size=len(WORDS), tie_word_embeddings=True, **SIZES)
    transformers.LlamaForCausalLM(llama).save_pretrained(folder)
    write_tokenizer(folder, marks=False)


def write(folder, name, rows):
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


TEXTS = [
    {"text": t, "label": i % 2} for i, t in enumerate(["the cat sits", "a dog runs fast", "is good", "the mat is bad"])
]


def test_texts_are_classified_as_the_library_does_it(place):
    write(place, "texts.jsonl", TEXTS)
    task = task_of({"kind": "text-classification", "data": "texts.jsonl", "model": "classifier"}, place)
    found = evaluate(place / "classifier", task, batch_size=3)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(place / "classifier").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(place / "classifier")
    with torch.no_grad():
        alone = [model(**tokenizer(row["text"], return_tensors="pt")).logits for row in TEXTS]
    assert found.values.tolist() == [
        float(int(one.argmax()) == row["label"]) for one, row in zip(alone, TEXTS, strict=True)
    ]
    live = task.live(checkpoint.open(place / "classifier"))
    assert live.names["bert.embeddings.word_embeddings.weight"] == "bert.embeddings.word_embeddings.weight"
    assert len(live.parameters) == len(list(model.parameters()))


def test_a_merged_body_takes_the_head_of_its_task(place):
    opened = checkpoint.open(place / "other")
    body = {name: opened.read(name) for name in opened.specs if not name.startswith("classifier")}
    described = {"kind": "text-classification", "data": "texts.jsonl", "model": "classifier"}
    with pytest.raises(TaskError, match=r"'classifier\.\w+' of the module is filled by no tensor"):
        task_of(described, place).live(checkpoint.open(body))
    task = task_of(described | {"heads": {"match": "^classifier", "from": "classifier"}}, place)
    live = task.live(checkpoint.open(body))
    expert = checkpoint.open(place / "classifier")
    assert np.array_equal(live.module.classifier.weight.detach().numpy(), expert.read("classifier.weight"))
    assert np.array_equal(live.module.bert.pooler.dense.weight.detach().numpy(), body["bert.pooler.dense.weight"])


def test_heads_of_another_size_are_refused(place):
    described = {"kind": "text-classification", "data": "texts.jsonl", "model": "classifier", "classes": 5}
    with pytest.raises(TaskError, match=r"no module can be built from .*heads"):
        task_of(described, place).live(checkpoint.open(place / "classifier"))


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_pooled_encoders_have_a_linear_head(place, pooling):
    opened = checkpoint.open(place / "encoder")
    weights = {name: opened.read(name) for name in opened.specs}
    head = {"classifier.weight": np.eye(2, 16, dtype=np.float32), "classifier.bias": np.ones(2, np.float32)}
    write(place, "texts.jsonl", TEXTS)
    described = {"kind": "text-classification", "data": "texts.jsonl", "model": "encoder", "pooling": pooling}
    task = task_of(described | {"heads": "^classifier", "classes": 2}, place)
    live = task.live(checkpoint.open(weights | head))
    (batch,) = task.batches("test")
    model = transformers.AutoModel.from_pretrained(place / "encoder").eval()
    hidden = model(**batch.inputs).last_hidden_state
    mask = batch.mask.unsqueeze(-1)
    pooled = (hidden * mask).sum(1) / mask.sum(1) if pooling == "mean" else hidden[:, 0]
    assert torch.allclose(task.outputs(live.module, batch), pooled[:, :2] + 1, atol=1e-5)
    assert live.names["encoder.pooler.dense.weight"] == "pooler.dense.weight"
    with pytest.raises(TaskError, match=r"'classifier\.weight' is \(2, 16\); the task needs \(3, hidden size\)"):
        task_of(described | {"heads": "^classifier", "classes": 3}, place).live(checkpoint.open(weights | head))


def test_words_are_tagged_by_their_first_piece_and_cut_words_are_wrong(place):
    rows = [
        {"tokens": ["the", "cat", "sits"], "tags": ["D", "N", "D"]},
        {"tokens": ["dog", "runs-fast", "good"], "tags": ["N", "N", "D"]},
    ]
    write(place, "tags.jsonl", rows)
    described = {"kind": "token-tagging", "data": "tags.jsonl", "model": "tagger", "labels": ["D", "N"]}
    task = task_of(described, place)
    (batch,) = task.batches("test")
    assert [row[row >= 0].tolist() for row in batch.targets] == [[0, 1, 0], [1, 1, 0]]
    assert batch.targets[1].tolist()[:6] == [-100, 1, 1, -100, -100, 0]
    live = task.live(checkpoint.open(place / "tagger"))
    guesses = task.outputs(live.module, batch).argmax(-1)
    wanted = [
        (guesses[i][batch.targets[i] >= 0] == batch.targets[i][batch.targets[i] >= 0]).float().mean() for i in (0, 1)
    ]
    found = evaluate(place / "tagger", task)
    assert found.values == pytest.approx([float(one) for one in wanted])
    assert found.weights.tolist() == [3, 3]
    short = evaluate(place / "tagger", task_of(described | {"length": 4}, place))
    assert max(short.values) <= 2 / 3
    with pytest.raises(TaskError, match=r"example 1: unknown tag 'D'. List the tags' names"):
        task_of({k: v for k, v in described.items() if k != "labels"}, place)


NAMES = [
    {"tokens": ["the", "cat", "sits", "on", "the", "mat"], "tags": ["O", "B-A", "I-A", "O", "O", "O"]},
    {"tokens": ["a", "dog", "runs-fast"], "tags": ["O", "O", "B-B"]},
    {"tokens": ["is", "good"], "tags": ["O", "O"]},
]


def write_constant_tagger(folder, labels, tag):
    """A tagger that gives every word the same tag."""
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=len(WORDS), max_position_embeddings=32, num_labels=labels, **SIZES)
    model = transformers.BertForTokenClassification(config)
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.nn.functional.one_hot(torch.tensor(tag), labels))
    model.save_pretrained(folder)
    write_tokenizer(folder, marks=True)


def test_a_model_that_says_o_everywhere_has_no_f1_and_the_majoritys_accuracy(place):
    write(place, "names.jsonl", NAMES)
    labels = ["O", "B-A", "I-A", "B-B"]
    described = {"kind": "token-tagging", "data": "names.jsonl", "model": "silent", "labels": labels}
    write_constant_tagger(place / "silent", 4, tag=0)
    f1, accuracy = (task_of(described | {"metric": metric}, place) for metric in ("f1", "accuracy"))
    found = evaluate(place / "silent", f1)
    assert (found.metric_value, found.majority, found.weights.tolist()) == (0, 0, [1, 1, 0])
    right = evaluate(place / "silent", accuracy)
    assert (right.metric_value, right.majority) == (pytest.approx(8 / 11), 8 / 11)
    assert any("`metric: f1`" in note for note in accuracy.notes)
    with pytest.raises(TaskError, match=r"needs `labels:` that mark spans"):
        task_of(described | {"metric": "f1", "labels": ["D", "N", "X", "Y"]}, place)


def test_f1_is_that_of_all_spans_together_and_its_models_are_compared(place):
    write(place, "names.jsonl", NAMES)
    labels = ["O", "B-A", "I-A", "B-B"]
    described = {"kind": "token-tagging", "data": "names.jsonl", "labels": labels, "metric": "f1"}
    for name, tag in (("silent", 0), ("loud", 3)):
        write_constant_tagger(place / name, 4, tag)
    task = task_of(described | {"model": "loud"}, place)
    found = evaluate(place / "loud", task)  # 11 spans of one word, one of them right; 2 expected
    assert found.metric_value == pytest.approx(2 * 1 / (11 + 2))
    comparison = compare({"silent": place / "silent", "loud": place / "loud"}, [task])
    silent = score_interval(task, evaluate(place / "silent", task))  # resamples of the last text alone have no span
    assert (silent.low, silent.high) == (0, 0)
    assert comparison.tasks[0].results["silent"].score == silent
    assert comparison.tasks[0].results["loud"].difference.value == pytest.approx(2 / 13)
    assert comparison.tasks[0].majority == 0
    cut = evaluate(place / "loud", task_of(described | {"model": "loud", "length": 4}, place))
    assert cut.metric_value == pytest.approx(0)  # the B of the second text is beyond the cut, and O


@pytest.mark.parametrize("shape", ["mapping", "tuple", "loss and tuple", "list", "dataclass", "output"])
def test_logits_are_taken_from_whatever_a_module_returns(shape):
    logits, loss = torch.ones(2, 3), torch.tensor(1.0)
    output = transformers.modeling_outputs.SequenceClassifierOutput(loss=loss, logits=logits)
    result = {
        "mapping": {"loss": loss, "logits": logits}, "tuple": (logits,), "loss and tuple": (loss, logits),
        "list": [logits], "output": output, "dataclass": Returned(loss, logits),
    }[shape]  # fmt: skip
    assert logits_of(result) is logits


@dataclass
class Returned:
    cost: object
    class_logits: object


@pytest.mark.parametrize(
    "result",
    [{"last_hidden_state": torch.ones(2, 3)}, {"a_logits": torch.ones(1), "b_logits": torch.ones(1)}, (), None],
)
def test_what_holds_no_logits_is_refused(result):
    with pytest.raises(TaskError, match="which has no logits: expected a tensor"):
        logits_of(result)


def causal(place):
    model = transformers.AutoModelForCausalLM.from_pretrained(place / "causal").eval()
    return model, transformers.AutoTokenizer.from_pretrained(place / "causal")


def log_probability(model, ids, start):
    with torch.no_grad():
        logs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return float(sum(logs[i - 1, ids[i]] for i in range(start, len(ids))))


def test_perplexity_is_that_of_all_tokens_together(place):
    write(place, "lm.jsonl", [{"text": "the cat sits on the mat"}, {"text": "a dog"}])
    task = task_of({"kind": "language-model", "data": "lm.jsonl", "model": "causal"}, place)
    found = evaluate(place / "causal", task)
    model, tokenizer = causal(place)
    every = [tokenizer(text)["input_ids"] for text in ("the cat sits on the mat", "a dog")]
    total = -sum(log_probability(model, ids, 1) for ids in every)
    assert found.weights.tolist() == [5, 1]
    assert found.metric_value == pytest.approx(np.exp(total / 6), rel=1e-5)
    live = task.live(checkpoint.open(place / "causal"))
    assert "lm_head.weight" not in live.names


def test_only_answers_count_after_prompts(place):
    write(place, "qa.jsonl", [{"q": "the cat", "a": "sits on"}])
    described = {"kind": "language-model", "data": "qa.jsonl", "model": "causal", "prompt": "q", "answer": "a"}
    found = evaluate(place / "causal", task_of(described | {"metric": "loss"}, place))
    model, tokenizer = causal(place)
    ids = tokenizer("the cat sits on")["input_ids"]
    assert found.metric_value == pytest.approx(-log_probability(model, ids, 2) / 2, rel=1e-5)
    with pytest.raises(TaskError, match="example 1: no token is left to predict within 2"):
        evaluate(place / "causal", task_of(described | {"length": 2}, place))


def test_the_likeliest_choice_is_the_answer(place):
    rows = [
        {"question": "the cat", "choices": ["sits on", "runs fast", "is"], "answer": "B"},
        {"question": "a dog is", "choices": ["good", "bad"], "answer": 0},
    ]
    write(place, "choices.jsonl", rows)
    described = {"kind": "multiple-choice", "data": "choices.jsonl", "model": "causal"}
    task = task_of(described, place)
    (batch,) = task.batches("test")
    live = task.live(checkpoint.open(place / "causal"))
    outputs = task.outputs(live.module, batch).detach()
    model, tokenizer = causal(place)
    for row, logits in zip(rows, outputs, strict=True):
        start = len(tokenizer(row["question"])["input_ids"])
        for choice, logit in zip(row["choices"], logits, strict=False):
            ids = tokenizer(f"{row['question']} {choice}")["input_ids"]
            assert float(logit) == pytest.approx(log_probability(model, ids, start), abs=1e-4)
    assert outputs[1, 2].exp() == 0
    assert batch.targets.tolist() == [1, 0]
    assert evaluate(place / "causal", task).values.tolist() == (outputs.argmax(1) == batch.targets).double().tolist()
    assert np.isfinite(evaluate(place / "causal", task_of(described | {"metric": "loss"}, place)).metric_value)
    sizes = torch.tensor([[7.0, 9.0, 2.0], [4.0, 3.0, 1.0]])
    wanted = (outputs / sizes).argmax(1) == batch.targets
    fair = evaluate(place / "causal", task_of(described | {"metric": "normalised_accuracy"}, place))
    assert fair.values.tolist() == wanted.double().tolist()


def retrieval(place):
    write(
        place,
        "corpus.jsonl",
        [{"id": i, "text": t} for i, t in enumerate(["the cat sits", "dog runs", "good mat", "a"])],
    )
    write(place, "queries.jsonl", [{"id": "x", "text": "cat"}, {"id": "y", "text": "runs"}])
    write(
        place,
        "qrels.jsonl",
        [{"query": "x", "doc": 0, "rel": 1}, {"query": "x", "doc": 2, "rel": 2}, {"query": "y", "doc": "1", "rel": 1}],
    )
    described = {"kind": "retrieval", "data": "queries.jsonl", "corpus": "corpus.jsonl", "relevance": "qrels.jsonl"}
    return described | {"model": "encoder", "metric": "ndcg@3"}


def test_retrieval_ranks_the_whole_corpus(place):
    described = retrieval(place)
    task = task_of(described, place)
    found = evaluate(place / "encoder", task)
    live = task.live(checkpoint.open(place / "encoder"))
    (batch,) = task.batches("test")
    tokens = task.tokens.encode(task.corpus.texts)
    with torch.no_grad():
        similar = task.outputs(live.module, batch) @ task._embed(live.module, tokens).T
    order = similar.argsort(dim=1, descending=True).tolist()
    assert found.values.tolist() == [measure("ndcg@3", order[0], {0: 1, 2: 2}), measure("ndcg@3", order[1], {1: 1})]
    losses = task.losses(live.module, batch)
    assert losses.shape == (2,) and losses.requires_grad
    with pytest.raises(TaskError, match=r"ndcg@K, recall@K or mrr@K.*got 'ncdg@3'"):
        task_of(described | {"metric": "ncdg@3"}, place)
    write(place, "queries.jsonl", [{"id": "z", "text": "mat"}])
    with pytest.raises(TaskError, match="no document is relevant for the query 'z'"):
        task_of(described, place)


def test_rankings_are_measured_by_their_formulas():
    assert measure("ndcg@10", [3, 1, 2], {1: 1}) == pytest.approx(1 / np.log2(3))
    assert measure("ndcg@10", [2, 1, 3], {1: 1, 2: 3}) == 1
    assert measure("recall@2", [3, 1, 2], {1: 1, 2: 1}) == 0.5
    assert measure("mrr@3", [3, 4, 1], {1: 1}) == pytest.approx(1 / 3)
    assert measure("mrr@2", [3, 4, 1], {1: 1}) == 0


def test_texts_of_similar_length_go_together_and_scores_keep_their_order(place):
    long, short = "the cat sits fast is good the mat is bad", "a dog"
    write(place, "mixed.jsonl", [{"text": text, "label": i // 2} for i, text in enumerate([long, short, long, short])])
    described = {"kind": "text-classification", "data": "mixed.jsonl", "model": "classifier", "metric": "loss"}
    task = task_of(described, place)
    assert [batch.examples for batch in task.batches("test", batch_size=2)] == [(1, 3), (0, 2)]
    assert {batch.examples for batch in task.batches("test", batch_size=2, limit=4, seed=1)} == {(1, 3), (0, 2)}
    orders = {sum((b.examples for b in task.batches("test", batch_size=2, seed=seed)), ()) for seed in range(9)}
    assert len(orders) > 2  # a random order stays one
    scores = evaluate(place / "classifier", task, batch_size=2)
    assert scores.examples == (0, 1, 2, 3)
    assert np.allclose(scores.values, evaluate(place / "classifier", task, batch_size=1).values)


def test_sequences_of_all_kinds_have_a_length(place):
    write(place, "tags.jsonl", [{"tokens": ["a", "cat", "sits"], "tags": [0, 1, 0]}, {"tokens": ["dog"], "tags": [1]}])
    write(place, "lm.jsonl", [{"text": "a dog runs fast"}, {"text": "a cat"}])
    tagging = {"kind": "token-tagging", "data": "tags.jsonl", "model": "tagger", "labels": ["other", "noun"]}
    for described in (tagging, {"kind": "language-model", "data": "lm.jsonl", "model": "causal"}):
        batches = task_of(described, place).batches("test", batch_size=1)
        assert [batch.examples for batch in batches] == [(1,), (0,)], described["kind"]
