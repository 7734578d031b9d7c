"""Questions answered by spans: against the library's model run by hand, and SQuAD's formulas written again."""

from __future__ import annotations

import math
import re
import string

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from polyak.errors import TaskError  # noqa: E402
from polyak.tasks import evaluate, task_of  # noqa: E402
from polyak.tasks.answers import answer_f1, exact_match  # noqa: E402

from .test_kinds import SIZES, WORDS, write, write_tokenizer  # noqa: E402

ROWS = [
    {"question": "dog runs on", "context": "the cat sits on the mat a dog runs fast", "answers": "the mat"},
    {
        "question": "is good",
        "context": "the mat is good the cat is bad a dog is fast",
        "answers": {"text": ["cat", "the cat"], "answer_start": [20, 16]},
    },
    {"question": "fast", "context": "a dog", "answers": ["dog", "a dog"]},
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("questions")
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=len(WORDS), max_position_embeddings=32, initializer_range=1.0, **SIZES)
    transformers.BertForQuestionAnswering(config).save_pretrained(folder / "reader")
    write_tokenizer(folder / "reader", marks=True)
    write(folder, "questions.jsonl", ROWS)
    return folder


def described(**keys):
    return {"kind": "question-answering", "data": "questions.jsonl", "model": "reader", "overlap": 2} | keys


def windows_by_hand(row, tokenizer, length, overlap):
    """Token ids of each window and the words of the context in it; every word is a token here."""
    words, question = row["context"].split(), row["question"].split()
    room = length - len(question) - 3
    starts = range(0, max(1, len(words) - overlap), room - overlap)
    for start in starts:
        part = words[start : start + room]
        yield tokenizer(row["question"], " ".join(part), return_tensors="pt"), part, start, len(question) + 2


def answer_by_hand(row, model, tokenizer, length, overlap, longest):
    best, answer, logits, size = -math.inf, "", [], 0
    for encoded, words, start, first in windows_by_hand(row, tokenizer, length, overlap):
        with torch.no_grad():
            out = model(**encoded)
        for i in range(len(words)):
            logits.append((float(out.start_logits[0, first + i]), float(out.end_logits[0, first + i]), start + i))
            for j in range(i, min(i + longest, len(words))):
                total = float(out.start_logits[0, first + i] + out.end_logits[0, first + j])
                if total > best:
                    best, answer = total, " ".join(words[i : j + 1])
        size += 1
    return answer, logits, size


@pytest.mark.parametrize("length", [30, 10])
def test_the_likeliest_span_of_any_window_is_the_answer(place, length):
    task = task_of(described(length=length, longest=3), place)
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(place / "reader").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(place / "reader")
    wanted = [answer_by_hand(row, model, tokenizer, length, 2, 3) for row in ROWS]
    assert [size > 1 for _, _, size in wanted] == [length == 10, length == 10, False]
    (batch,) = task.batches("test")
    outputs = task.outputs(model, batch).detach()
    answers = dict(zip(batch.examples, task._answers(outputs, batch), strict=True))
    assert [answers[i] for i in range(3)] == [answer for answer, _, _ in wanted]
    found = evaluate(place / "reader", task)
    accepted = [["the mat"], ["cat", "the cat"], ["dog", "a dog"]]
    assert found.values.tolist() == [max(reference_f1(answers[i], a) for a in accepted[i]) for i in range(3)]
    exact = evaluate(place / "reader", task_of(described(length=length, longest=3, metric="exact_match"), place))
    assert exact.values.tolist() == [float(answer_f1(answers[i], accepted[i]) == 1) for i in range(3)]


@pytest.mark.parametrize("length", [30, 10])
def test_the_loss_is_that_of_both_ends_over_all_windows(place, length):
    task = task_of(described(length=length, metric="loss"), place)
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(place / "reader").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(place / "reader")
    found = evaluate(place / "reader", task)
    for row, value, (first, last) in zip(ROWS, found.values, [(4, 5), (5, 5), (1, 1)], strict=True):
        _, logits, _ = answer_by_hand(row, model, tokenizer, length, 2, 3)
        total = [math.log(sum(math.exp(entry[k]) for entry in logits)) for k in (0, 1)]
        ends = [next(entry[k] for entry in logits if entry[2] == word) for k, word in ((0, first), (1, last))]
        assert value == pytest.approx((total[0] - ends[0] + total[1] - ends[1]) / 2, rel=1e-4)


def reference_f1(predicted, truth):
    ours, theirs = (reference_normal(text).split() for text in (predicted, truth))
    common = sum(min(ours.count(word), theirs.count(word)) for word in set(ours))
    if common == 0:
        return float(ours == theirs)
    precision, recall = common / len(ours), common / len(theirs)
    return 2 * precision * recall / (precision + recall)


def reference_normal(text):
    kept = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


def test_answers_are_compared_as_squad_compares_them():
    assert exact_match("The Denver Broncos!", ["denver broncos"]) == 1
    assert exact_match("Denver", ["denver broncos", "Broncos"]) == 0
    assert answer_f1("in the year 1066", ["1066", "year 1066"]) == pytest.approx(0.8)
    assert answer_f1("to be or not to be", ["to be"]) == pytest.approx(2 * 2 / 8)
    assert (answer_f1("the", ["a"]), answer_f1("the", ["cat"])) == (1, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answers": "the moon"}, r"example 1: the context does not contain the answer 'the moon'"),
        ({"answers": {"text": ["cat"], "answer_start": [5]}}, r"does not have at character 5 the answer 'cat'"),
        ({"answers": []}, r"example 1: `answers` must be a text.*got \[\]"),
        ({"answers": {"answer": "cat"}}, r"`answers` must be a text"),
        ({"context": 3}, r"'context' must be text; got 3"),
    ],
)
def test_answers_that_are_no_spans_are_refused(place, changes, message):
    write(place, "wrong.jsonl", [ROWS[0] | changes])
    with pytest.raises(TaskError, match=message):
        task_of(described(data="wrong.jsonl"), place)


def test_a_question_that_leaves_no_room_is_refused(place):
    with pytest.raises(TaskError, match=r"the question .* leaves no room for its context within 6"):
        evaluate(place / "reader", task_of(described(length=6), place))


def test_a_module_without_both_ends_is_refused(place):
    task = task_of(described(), place)
    with pytest.raises(TaskError, match="without `start_logits` and `end_logits`"):
        task.outputs(lambda **inputs: inputs["input_ids"].double(), next(iter(task.batches("test"))))
