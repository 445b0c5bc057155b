"""Preference pairs: what is too long, the loss and metrics by hand, and runs that share references."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from support.chat_models import saved_chat_model
from support.configs import config_of, encoded
from torch import Tensor, nn

import tensoradapt as ta
from tensoradapt.errors import TensorAdaptError
from tensoradapt.extras.answers import chat, preference
from tensoradapt.lab.runs.batches import batches
from tensoradapt.lab.runs.config import RunConfig
from tensoradapt.lab.runs.execute import execute, load_data, prepare
from tensoradapt.lab.tasks.registry import resolve
from tensoradapt.lab.tasks.splits import Split, Splits

NAMES = ("the sea", "a fox", "my hat", "the sun", "an oak", "a bell", "the rain", "old salt")


def splits() -> Splits:
    """Questions whose polite answers are preferred."""
    asked = [f"What of {NAMES[i % 8]}, {i}?" for i in range(100)]
    texts = [(text, f"Yes, {i}.", f"no {i} no") for i, text in enumerate(asked)]
    parts = [(0, 48), (48, 60), (60, 100)]
    made = [Split(tuple(texts[a:b]), np.ones(b - a, np.int64), tuple(map(str, range(a, b)))) for a, b in parts]
    return made[0], made[1], made[2], ()


TASK = preference.Preferences("pairs", splits, content="a hundred polite answers")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved_chat_model(tmp_path_factory.mktemp("chat"))


def config(model: str, **more: Any) -> RunConfig:
    sizes = {"rank": 4, "batch": 8, "steps": 30, "lr": 2e-2, "max_length": 96, **more}
    record = resolve(f"{__name__}:TASK")[1]
    return config_of(model, "pairs", None if "kind" in more else "lora", own=record, **sizes)


def by_hand(model: nn.Module, pair: chat.Answered) -> Tensor:
    """The log probabilities of every token at each place of an answer, (tokens, vocabulary)."""
    ids = torch.tensor([pair.ids])
    return model(input_ids=ids).logits[0, pair.start - 1 : -1].log_softmax(-1)


def trained(model: str) -> tuple[nn.Module, list[preference.Pair], Any]:
    """A model with an adapter that is not at its start, its pairs, and the task."""
    task, run = TASK, config(model)
    base, _ = prepare(TASK, run)
    with torch.no_grad():
        for p in base.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)) if p.requires_grad else 0)
    return base, encoded(load_data(run).test, run)[:5], task


def test_the_loss_and_what_is_stored_are_those_by_hand(model: str) -> None:
    adapted, some, task = trained(model)
    expected = []
    for pair in some:
        changes = []
        for side in (pair.rejected, pair.chosen):
            words = torch.tensor(side.ids[side.start :])[:, None]
            now = by_hand(adapted, side).detach()
            with ta.disabled(adapted):
                base = by_hand(adapted, side).detach()
            changes.append(float((now - base).gather(1, words).sum()))
        expected.append((changes[1], changes[0], float((now.exp() * (now - base)).sum()), len(words)))
    batch = task.collate(some, adapted, "cpu")
    with torch.no_grad():
        stored = task.predict(adapted, batch)
    assert torch.allclose(stored, torch.tensor(expected), atol=1e-4)
    chosen, rejected, kl, tokens = np.array(expected).T
    loss = np.log1p(np.exp(-0.1 * (chosen - rejected))).mean()
    assert float(task.loss(adapted, batch).detach()) == pytest.approx(loss, rel=1e-5)
    assert float(replace(task, beta=2.0).loss(adapted, batch).detach()) == pytest.approx(
        np.log1p(np.exp(-2 * (chosen - rejected))).mean(), rel=1e-4
    )
    found = task.evaluate(stored.numpy(), None)
    assert found["loss"] == pytest.approx(loss, rel=1e-4) and found["kl_per_token"] == pytest.approx(
        kl.sum() / tokens.sum()
    )
    assert found["reward_margin"] == pytest.approx(0.1 * (chosen - rejected).mean(), rel=1e-3)
    assert found["reward_accuracy"] == (chosen > rejected).mean()


def test_at_its_start_an_adapter_is_the_reference(model: str) -> None:
    run, task = config(model), TASK
    adapted, _ = prepare(TASK, run)
    batch = task.collate(encoded(load_data(run).test, run), adapted, "cpu")
    assert float(task.loss(adapted, batch).detach()) == pytest.approx(math.log(2), abs=1e-6)
    found = task.evaluate(task.predict(adapted.eval(), batch).detach().numpy(), None)
    assert found == {"reward_accuracy": 0.5, "reward_margin": 0, "loss": pytest.approx(math.log(2)), "kl_per_token": 0}
    at_chance = [task.metric.at_chance(share, 0.5, range(100)) for share in (0.5, 0.6, 0.61)]
    assert at_chance == [True, True, False]


@pytest.mark.thorough
def test_a_reference_is_computed_once_and_depends_on_no_batch(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    adapted, some, task = trained(model)
    preference._kept.cache_clear()
    alone = [preference.reference(adapted, task.collate([pair], adapted, "cpu")) for pair in some]
    preference._kept.cache_clear()
    together = preference.reference(adapted, task.collate(some, adapted, "cpu"))
    assert torch.equal(torch.stack(alone).T.flatten(), together)
    adapted.train()
    monkeypatch.setattr(chat, "log_likelihood", lambda *_: pytest.fail("computed again"))
    assert torch.equal(
        preference.reference(adapted, task.collate(some[::-1], adapted, "cpu"))[:5], together[:5].flip(0)
    )
    assert adapted.training
    monkeypatch.undo()
    with torch.autocast("cpu", torch.bfloat16):  # another precision has numbers of its own
        low = preference.reference(adapted, task.collate(some, adapted, "cpu"))
    assert not torch.equal(low, together) and torch.allclose(low, together, rtol=0.05)


@pytest.mark.thorough
def test_pairs_are_learned_and_a_run_after_another_is_the_same_to_the_bit(model: str) -> None:
    preference._kept.cache_clear()
    first, again = (execute(config(model), "cpu") for _ in range(2))
    test = first["result"]["test"]
    assert first["result"]["status"] == "finished" and test["reward_accuracy"] > 0.9 and test["kl_per_token"] > 0
    assert first["arrays"]["losses"][0] == pytest.approx(math.log(2), abs=1e-6)
    assert first["arrays"]["predictions"].shape == (40, 4) and first["result"]["metric"]["chance"] == 0.5
    assert np.array_equal(first["arrays"]["losses"], again["arrays"]["losses"])
    assert np.array_equal(first["arrays"]["predictions"], again["arrays"]["predictions"])


@pytest.mark.parametrize("kind", ["head", "full"])
def test_without_an_adapter_there_is_no_reference(model: str, kind: str) -> None:
    run = config(model, kind=kind)
    base, _ = prepare(TASK, run)
    batch = next(batches(TASK, base, encoded(load_data(run).train, run), run.data.batch, run.seed, "cpu"))
    with pytest.raises(TensorAdaptError, match="a model without an adapter; expected an adapter beside a frozen base"):
        TASK.loss(base, batch)
