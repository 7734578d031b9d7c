"""Models of the transformers library: masks, dictionaries of inputs, matrices with their inputs first."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from polyak.statistics import Fisher, Gram, measure  # noqa: E402

TOKENS = torch.randint(5, 50, (5, 6), generator=torch.Generator().manual_seed(0))
MASK = (torch.arange(6) < torch.tensor([[6], [3], [5], [2], [6]])).long()
BATCH = {"input_ids": TOKENS * MASK, "attention_mask": MASK}


def bert():
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
                                     intermediate_size=16, num_labels=3, max_position_embeddings=16)  # fmt: skip
    return transformers.BertForSequenceClassification(config).double()


def gpt2():
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=50, n_embd=8, n_layer=1, n_head=2, n_positions=16)
    return transformers.GPT2LMHeadModel(config).double()


def halves(batch):
    return [{k: v[:2] for k, v in batch.items()}, {k: v[2:] for k, v in batch.items()}]


@pytest.mark.parametrize(("make", "likelihood", "estimator"), [(bert, "classification", "exact"),
                                                               (gpt2, "language_model", "sampled")])  # fmt: skip
def test_fisher_information_does_not_depend_on_batches_or_on_vectorising(make, likelihood, estimator):
    def run(batches, together=None):
        statistic = Fisher(make(), lambda m, b: m(input_ids=b["input_ids"], attention_mask=b["attention_mask"]).logits,
                           likelihood=likelihood, estimator=estimator, together=together,
                           targets=lambda b: b.get("labels"))  # fmt: skip
        return measure(statistic, batches)

    batch = dict(BATCH)
    if likelihood == "language_model":
        batch["labels"] = torch.where(MASK.bool(), TOKENS, -100)
    whole = run([batch])
    for other in (run(halves(batch)), run([batch], together=1)):
        for name, tensor in whole.tensors.items():
            np.testing.assert_allclose(other.tensors[name], tensor, rtol=1e-5, atol=1e-10, err_msg=name)


def test_grams_of_a_padded_batch_are_those_of_the_texts_alone():
    def run(batches):
        outputs = lambda m, b: m(**b).logits  # noqa: E731
        return measure(Gram(bert(), outputs, mask=lambda b: b["attention_mask"].bool()), batches)

    padded = run([BATCH])
    apart = run([{k: v[i : i + 1, : int(MASK[i].sum())] for k, v in BATCH.items()} for i in range(5)])
    assert padded.rows == apart.rows
    assert set(padded.rows.values()) == {int(MASK.sum()), 5}
    for name, tensor in apart.tensors.items():
        np.testing.assert_allclose(padded.tensors[name], tensor, rtol=1e-5, atol=1e-8, err_msg=name)


def test_gpt2_has_grams_of_the_inputs_of_matrices_that_keep_them_first():
    module = gpt2()
    found = measure(Gram(module, lambda m, b: m(**b).logits), [BATCH])
    shapes = {name: place.shape for name, place in module.named_parameters()}
    assert len(found.tensors) == 4
    for name, tensor in found.tensors.items():
        assert tensor.shape == (shapes[name][0], shapes[name][0])
    assert any("wte.weight" in note for note in found.notes)
