"""Keys and methods that one types by intuition: each is accepted, or answered with the one that is meant."""

from __future__ import annotations

from typing import Any

import pytest

from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.sweeps.spec import read_spec

SPEC = {"model": "tiny-random-bert", "task": "planted", "method": "lora", "rank": 1, "lr": 1e-3, "seed": 0, "steps": 60}
EPOCHS = "a run has steps, the same for every method: epochs * examples / batch"


def answer(**changes: Any) -> str:
    """What a specification with these keys is answered; empty where it is accepted."""
    try:
        read_spec({**SPEC, **changes})
    except TensorAdaptError as error:
        return str(error)
    return ""


def test_keys_that_are_right_are_accepted() -> None:
    assert not answer(head_lr=1e-3, lr=1e-2, precision="bf16", batch=8, max_length=16)


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("epochs", f"unknown key epochs; {EPOCHS}"),
        ("num_train_epochs", EPOCHS),
        ("batch_size", "unknown key batch_size; it is called batch"),
        ("max_len", "unknown key max_len; it is called max_length"),
        ("dtype", "unknown key dtype; it is called precision"),
        ("learning_rate", "it is called lr"),
        ("max_steps", "it is called steps"),
        ("bf16", 'write precision = "bf16"'),
        ("warmup_steps", "warmup is a share of the steps"),
        # with one letter wrong
        ("epohcs", f"unknown key epohcs; epochs: {EPOCHS}"),
        ("batch_siez", 'did you mean "batch"?'),
        ("max_ken", 'did you mean "max_length"?'),
        ("precison", 'did you mean "precision"?'),
        ("haed_lr", 'did you mean "head_lr"?'),
        ("stesp", 'did you mean "steps"?'),
    ],
)
def test_other_keys_name_the_right_one(key: str, says: str) -> None:
    assert says in answer(**{key: 1})
    assert says in answer(method=[{"method": "lora", key: 1}])


def test_a_key_in_the_wrong_table_is_told_its_place() -> None:
    assert answer(tuning={"head_lr": 1e-3}).startswith("tuning: unknown key head_lr; it stands at the top")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("loar", "lora"), ("lroa", "lora"), ("vear", "vera"), ("tukcer", "tucker"), ("LoAR", "lora"), ("lotrr", "lotr")],
)
def test_a_method_with_two_letters_exchanged_is_recognised(typed: str, meant: str) -> None:
    assert f'did you mean "{meant}"?' in answer(method=[typed])
