"""Answers to prompts: what is trained on, what is left out, and that an adapter learns them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.chat_models import numbered, saved_chat_model
from support.configs import config_of

from tensoradapt.errors import TensorAdaptError
from tensoradapt.extras.answers import chat
from tensoradapt.extras.answers.instruct import Instruct
from tensoradapt.lab.runs.execute import execute
from tensoradapt.lab.tasks.registry import resolve
from tensoradapt.lab.tasks.splits import DataSpec, Splits

LENGTH = 160  # in the tiny model's tokens, which are letters


def splits() -> Splits:
    return numbered(first="1 " * 200)  # too long


TASK = Instruct("answers", splits, content="sixty numbers")


@pytest.fixture
def model(tmp_path: Path) -> str:
    return saved_chat_model(tmp_path / "model")


def test_the_loss_is_that_of_transformers_on_the_answers_alone(model: str) -> None:
    train = TASK.load(model, DataSpec(n_train=12, n_test=4, max_length=LENGTH)).train
    made, examples = TASK.model(model), TASK.encode(train, model, LENGTH)
    rows = chat.collate([question.options[0] for question in examples], "cpu")
    letters = [len(answer.encode()) for _, answer in train.texts or ()]
    assert (rows["labels"] != chat.IGNORED).sum(1).tolist() == [n + 2 for n in letters]  # and <|im_end|>, line break
    batch = TASK.collate(examples, made, "cpu")
    losses, gradients = [TASK.loss(made, batch), made(**rows).loss], []
    assert losses[0].item() == pytest.approx(losses[1].item(), abs=2e-6)
    for loss in losses:
        made.zero_grad()
        loss.backward()
        gradients.append(made.model.layers[0].self_attn.q_proj.weight.grad.clone())  # type: ignore[union-attr]
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-6, rtol=1e-4)


def test_what_is_too_long_is_left_out_and_counted(model: str) -> None:
    found = TASK.load(model, DataSpec(n_test=4, max_length=LENGTH))
    assert (len(found.train), len(found.validation), len(found.test)) == (39, 10, 4) and "0" not in found.train.ids
    assert found.notes == (f"1 of 40 train examples have more than {LENGTH} tokens and are left out",)
    assert found.chance == pytest.approx(-np.log(len(chat.tokenizer(model))))
    with pytest.raises(TensorAdaptError, match=r"none of .* has at most 20 tokens"):
        TASK.load(model, DataSpec(max_length=20))
    with pytest.raises(TensorAdaptError, match="tokens; expected at most 20"):
        TASK.encode(found.train, model, 20)


def test_a_run_learns_the_answers(model: str) -> None:
    record = resolve(f"{__name__}:TASK")[1]
    sizes: dict[str, Any] = {"rank": 4, "batch": 8, "steps": 25, "lr": 2e-2, "max_length": LENGTH}
    run = config_of(model, "answers", "lora", own=record, **sizes)
    parts = execute(run, "cpu")
    losses, stored = parts["arrays"]["losses"], parts["arrays"]["predictions"]
    assert losses[-5:].mean() < 0.7 * losses[0] and stored.shape == (10, 2)
    nats, tokens = stored.astype(np.float64).sum(0)
    assert parts["result"]["test"] == {"log_likelihood": pytest.approx(nats / tokens)}
    assert parts["result"]["metric"]["chance"] < nats / tokens < 0


def test_likelihoods_are_exact_with_a_whole_vocabulary() -> None:
    """Summed over another axis than the last, fp32 is off by 1e-4 a token."""
    torch.manual_seed(0)
    logits, tokens = 3 * torch.randn(40, 49152), torch.arange(40)
    exact = logits.double().log_softmax(1)[tokens, tokens]
    assert (chat.nats(logits, tokens) - exact).abs().max() < 1e-5
