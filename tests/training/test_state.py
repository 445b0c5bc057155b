"""A training that was stopped goes on from its checkpoint, bit for bit; what cannot be gone on from is begun anew."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
from pathlib import Path

import pytest
import torch
from support.families import planned
from torch import nn

import tensoradapt as ta
from tensoradapt import parameterizations
from tensoradapt.lab import tasks
from tensoradapt.lab.data import models
from tensoradapt.training.fit import fit
from tensoradapt.training.state import TrainingState


class Stopped(Exception):
    """Stands for a kill at some step."""


def batch_stream():
    generator = torch.Generator().manual_seed(2)
    while True:
        ids = torch.randint(3, 64, (4, 6), generator=generator)
        yield {"input_ids": ids, "labels": ids[:, 1] % 2}


def made(family: str) -> nn.Module:
    """A tiny model, whose base has dropout, with an adapter that has both kinds of it."""
    torch.manual_seed(0)
    model = models.load("tiny-random-bert", tasks.get("planted"))
    plan = planned(ta.find_sites(model), family, rank=2, train=("classifier",), dropout=0.2, rank_dropout=0.1)
    ta.attach(model, plan, seed=1)
    torch.manual_seed(3)
    return model


def trained(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def train(model, steps=20, stop=None, checkpoint=None, **more):
    def on_step(step, _loss):
        if step == stop:
            raise Stopped

    options = {"lr": 1e-2, "head_lr": 3e-3, "heads": ("classifier",), "weight_decay": 0.01, **more}
    return fit(model, batch_stream(), steps=steps, on_step=on_step, checkpoint=checkpoint, **options)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("family", "optimizer"),
    [(name, "adamw") for name in parameterizations.names()]
    + [(name, "equal_steps") for name in ("lora", "tucker", "vera")],
)
def test_ten_and_ten_steps_are_twenty_bit_for_bit_with_dropout(family, optimizer, tmp_path):
    whole = made(family)
    expected = train(whole, optimizer=optimizer)
    with pytest.raises(Stopped):
        train(made(family), stop=13, checkpoint=TrainingState(tmp_path / "state", 10), optimizer=optimizer)
    again, kept = made(family), TrainingState(tmp_path / "state", 10)
    torch.manual_seed(99)  # the random numbers are the checkpoint's, not those that happen to be there
    found = train(again, checkpoint=kept, optimizer=optimizer)
    assert kept.resumed == 10
    assert found.losses == expected.losses and len(found.seconds) == 20
    assert all(torch.equal(a, b) for a, b in zip(trained(whole).values(), trained(again).values(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("at", [3, 6, 7])
def test_a_training_that_is_terminated_in_a_step_goes_on(at, tmp_path):
    expected = train(made("cp"), steps=10)

    def terminated():
        steps = itertools.count(1)

        class Terminates(torch.nn.Module):
            def forward(self, *_):  # in the loss, in the middle of a step
                if next(steps) == at:
                    os.kill(os.getpid(), signal.SIGTERM)

        model = made("cp")
        model.classifier.register_forward_hook(Terminates())
        train(model, steps=10, checkpoint=TrainingState(tmp_path / "state", 2))

    child = multiprocessing.get_context("fork").Process(target=terminated)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGTERM
    kept = TrainingState(tmp_path / "state", 2)
    assert train(made("cp"), steps=10, checkpoint=kept).losses == expected.losses
    assert kept.resumed == (at - 1) // 2 * 2


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "cut":
        data = data[: len(data) // 2]
    elif how == "bit":
        data[-20] ^= 1
    elif how == "pickle":
        data = bytearray(b"\x80\x04garbage")
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["cut", "bit", "pickle", "other key"])
def test_a_damaged_or_foreign_state_is_not_gone_on_from(how, tmp_path):
    expected = train(made("lora"), steps=6)
    with pytest.raises(Stopped):
        train(made("lora"), steps=6, stop=4, checkpoint=TrainingState(tmp_path / "state", 2, {"torch": "1"}))
    damage(tmp_path / "state", how)
    kept = TrainingState(tmp_path / "state", 2, {"torch": "2" if how == "other key" else "1"})
    found = train(made("lora"), steps=6, checkpoint=kept)
    assert kept.resumed == 0 and found.losses == expected.losses


def test_a_state_of_another_model_changes_nothing(tmp_path):
    with pytest.raises(Stopped):
        train(made("cp"), stop=2, checkpoint=TrainingState(tmp_path / "state", 2))
    model, kept = made("lora"), TrainingState(tmp_path / "state", 2)
    found = train(model, steps=4, checkpoint=kept)
    assert kept.resumed == 0 and found.losses == train(made("lora"), steps=4).losses


def test_a_disk_that_is_full_does_not_end_a_training(tmp_path):
    kept = TrainingState(tmp_path / "file" / "state", 2)
    (tmp_path / "file").write_text("in the way")
    assert train(made("cp"), steps=4, checkpoint=kept).status == "finished" and kept.failures == 2


def test_a_diverged_training_leaves_the_last_good_state(tmp_path):
    kept = TrainingState(tmp_path / "state", 1)
    numbers = itertools.count(1)

    def loss(model, batch):
        return model(**batch).loss * (float("nan") if next(numbers) == 3 else 1.0)

    fitted = fit(made("cp"), batch_stream(), lr=1e-2, steps=5, loss=loss, checkpoint=kept)
    assert fitted.status == "diverged" and len(kept.read()["losses"]) == 2


def test_a_checkpoint_and_falling_ranks_exclude_each_other(tmp_path):
    with pytest.raises(ta.TensorAdaptError, match="both checkpoint= and reduce= were given"):
        fit(made("lora"), batch_stream(), lr=1e-2, steps=4, reduce={2: 1}, checkpoint=TrainingState(tmp_path / "s"))
