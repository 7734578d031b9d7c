"""The callback in a real Trainer: steps are counted, and a resumed training is an uninterrupted one."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
import torch  # noqa: E402

from polyak.averaging import live  # noqa: E402
from polyak.errors import CannotResume, Mismatch  # noqa: E402

from .training import bits  # noqa: E402

SIZES = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def examples():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(30, (40, 6), generator=generator)
    return [{"input_ids": row, "labels": row.sum() % 2} for row in tokens]


def bert():
    torch.manual_seed(0)
    return transformers.BertForSequenceClassification(transformers.BertConfig(**SIZES))


def trainer_of(folder, averages, model=None, callbacks=(), **options):
    model = bert() if model is None else model
    averager = live.Averager(model, *averages)
    arguments = transformers.TrainingArguments(
        str(folder), report_to=[], use_cpu=True, disable_tqdm=True, logging_strategy="no", seed=0, learning_rate=1e-2,
        per_device_train_batch_size=4, gradient_accumulation_steps=2,
        **{"max_steps": 9, "save_steps": 3, "lr_scheduler_type": "constant"} | options,
    )  # fmt: skip
    callbacks = [averager.for_transformers(), *callbacks]
    return transformers.Trainer(model, arguments, train_dataset=examples(), callbacks=callbacks), averager


AVERAGES = (live.ema(0.8), live.lawa(2, every=2), live.switch_ema(0.5, switch_every=4), live.bema())


def result(averager):
    return bits(averager.state_dict()["tensors"]), bits(averager.model.state_dict()), averager.steps


def test_steps_and_examples_are_counted(tmp_path):
    averages = (live.uniform(), live.ema(half_life=16.0, half_life_in="samples"))
    trainer, averager = trainer_of(tmp_path, averages, save_strategy="no")
    history = []

    class Spy(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            history.append(model.classifier.weight.detach().double().clone())

    trainer.add_callback(Spy())
    trainer.train()
    assert averager.steps == averager.updates("uniform") == len(history) == 9
    mean = torch.stack(history).mean(0)
    torch.testing.assert_close(averager.weights("uniform")["classifier.weight"].double(), mean, rtol=0, atol=1e-6)
    average = history[0]
    for theta in history[1:]:  # 8 examples per step: half a half-life
        average = average * 0.5**0.5 + theta * (1 - 0.5**0.5)
    torch.testing.assert_close(averager.weights("ema")["classifier.weight"].double(), average, rtol=0, atol=1e-6)


@pytest.mark.parametrize("stop", [3, 6])
def test_a_resumed_training_is_an_uninterrupted_one(stop, tmp_path):
    trainer, averager = trainer_of(tmp_path / "whole", AVERAGES)
    trainer.train()
    wanted = result(averager)
    assert wanted[2] == 9
    assert not list((tmp_path / "whole").glob(".*"))  # states that are staged are moved into the checkpoints

    trainer, _ = trainer_of(tmp_path / "parts", AVERAGES, max_steps=stop)
    trainer.train()
    trainer, averager = trainer_of(tmp_path / "parts", AVERAGES)
    trainer.train(resume_from_checkpoint=True)
    assert result(averager) == wanted


def test_checkpoints_of_epochs_have_their_averages(tmp_path):
    trainer, averager = trainer_of(tmp_path, AVERAGES, max_steps=-1, num_train_epochs=2, save_strategy="epoch")
    trainer.train()
    found = sorted(path.parent.name for path in tmp_path.glob("checkpoint-*/averages.safetensors"))
    assert found == ["checkpoint-10", "checkpoint-5"]
    assert averager.steps == 10


class Killed(Exception):
    pass


def test_a_checkpoint_is_never_without_its_averages(tmp_path, monkeypatch):
    trainer, averager = trainer_of(tmp_path / "whole", AVERAGES)
    trainer.train()
    wanted = result(averager)

    trainer, _ = trainer_of(tmp_path / "killed", AVERAGES)
    callback = next(c for c in trainer.callback_handler.callbacks if type(c).__name__ == "AveragerCallback")

    def killed(args, state, control, **kwargs):  # when the checkpoint is complete, before its averages are in it
        if state.global_step == 6:
            raise Killed

    monkeypatch.setattr(callback, "on_save", killed)
    with pytest.raises(Killed):
        trainer.train()
    assert (tmp_path / "killed" / "checkpoint-6").is_dir()
    trainer, averager = trainer_of(tmp_path / "killed", AVERAGES)
    trainer.train(resume_from_checkpoint=True)
    assert result(averager) == wanted
    assert (tmp_path / "killed" / "checkpoint-6" / "averages.safetensors").exists()


def test_a_moved_checkpoint_is_named_and_another_schedule_is_refused(tmp_path):
    trainer, _ = trainer_of(tmp_path / "first", AVERAGES, max_steps=3)
    trainer.train()
    moved = tmp_path / "moved"
    Path(tmp_path / "first" / "checkpoint-3").rename(moved)
    trainer, averager = trainer_of(tmp_path / "second", AVERAGES)
    with pytest.raises(CannotResume, match=r"resumes at step 3, but .* has no averages.safetensors"):
        trainer.train(resume_from_checkpoint=str(moved))
    averager.for_transformers(resume_from=moved).on_train_begin(trainer.args, trainer.state, trainer.control)
    assert averager.steps == 3
    other = live.Averager(averager.model, live.ema(0.7))
    with pytest.raises(CannotResume, match="the names of the averages differs"):
        other.for_transformers(resume_from=moved).on_train_begin(trainer.args, trainer.state, trainer.control)


def test_another_model_is_refused(tmp_path):
    trainer, _ = trainer_of(tmp_path, AVERAGES)
    other = live.Averager(bert(), live.ema())
    trainer.add_callback(other.for_transformers())
    with pytest.raises(Mismatch, match="trains another model"):
        trainer.train()


def test_a_saved_average_is_loaded_by_transformers(tmp_path):
    trainer, averager = trainer_of(tmp_path / "run", (live.ema(0.8),), save_strategy="no", max_steps=2)
    trainer.train()
    averager.save("ema", tmp_path / "out")
    loaded = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "out")
    ours = averager.weights("ema")
    assert bits(dict(loaded.named_parameters())) == bits(ours)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers, for what PEFT calls
def test_a_lora_run_is_saved_as_an_adapter(tmp_path):
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(bert(), peft.LoraConfig(r=2, target_modules=["query"]))
    averager = live.Averager(model, live.ema(0.5), trainable_only=True)
    averager.step()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.add_(1)
    averager.step()
    assert all("lora_" in name for name in averager.weights("ema"))
    averager.save("ema", tmp_path / "out")
    loaded = peft.PeftModel.from_pretrained(bert(), tmp_path / "out")
    ours = averager.weights("ema")
    theirs = {name: parameter for name, parameter in loaded.named_parameters() if name in ours}
    assert bits(theirs) == bits(ours)
    assert any(float(tensor.abs().max()) == 0.5 for tensor in ours.values())
