"""Our DPO loss and TRL's on the same tokens: values and gradients; what each way into DPOTrainer has as reference."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from support.chat_models import SMOLLM2, needs_smollm2, saved_chat_model
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

import tensoradapt as ta
from tensoradapt.extras.answers import chat, preference
from tensoradapt.lab.data.models import load_causal
from tensoradapt.lab.tasks.registry import resolve
from tensoradapt.lab.tasks.splits import DataSpec

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # TRL and transformers warn about each other
TASK = preference.Preferences("pairs", lambda: pytest.fail("loaded"))
PAIRS = (
    ("How are you?", "Very well, thank you.", "Bad."),
    ("Say a number", "Seven", "No, I will not do that"),
    ("Tell me more", "It is so", "It was"),
    ("Hi", "Hello there", "Go"),
)


def trainer(name: str, folder: Path, model: nn.Module, given: Any = PAIRS, **more: Any) -> Any:
    """TRL's trainer of a model on pairs, in their order."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    sides = ({"prompt": ("user", p), "chosen": ("assistant", c), "rejected": ("assistant", r)} for p, c, r in given)
    rows = [{side: [{"role": role, "content": text}] for side, (role, text) in row.items()} for row in sides]
    steps = {"max_steps": 4, "per_device_train_batch_size": len(rows), "learning_rate": 1e-2, "max_length": 256}
    quiet = {"report_to": "none", "save_strategy": "no", "use_cpu": True, "bf16": False, "disable_tqdm": True}
    settings = DPOConfig(str(folder / "run"), beta=0.1, activation_checkpointing=False, **steps, **quiet)
    tokenizer = load_causal(name)[1]
    data = Dataset.from_list(rows)
    return DPOTrainer(model, args=settings, train_dataset=data, processing_class=tokenizer, **more)


def batch_of(found: Any) -> dict[str, Tensor]:
    batch: dict[str, Tensor] = next(iter(found.get_train_dataloader()))
    return batch


def attached(name: str, rank: int = 4, **how: Any) -> nn.Module:
    """A model with an adapter that is not at its start."""
    model: nn.Module = load_causal(name)[0]
    ta.attach(model, ta.plan(ta.find_sites(model), rank=rank, **how))
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=noise) if p.requires_grad else 0)
    return model


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def words_of(batch: Mapping[str, Tensor]) -> list[list[int]]:
    """The tokens of each row without padding."""
    rows = zip(batch["input_ids"], batch["attention_mask"], strict=True)
    return [ids[mask == 1].tolist() for ids, mask in rows]


def compare(found: Any, model: nn.Module, batch: Mapping[str, Tensor], rounding: float = 1e-5) -> None:
    """TRL's loss and ours are equal to 1e-5, and the gradients of the adapter to rounding."""
    theirs = batch_of(found)
    rows = [sorted(map(tuple, words_of(given))) for given in (theirs, batch)]
    words = [sum(map(int, mask.sum(1))) for mask in (theirs["completion_mask"], batch["labels"] != chat.IGNORED)]
    assert rows[0] == rows[1] and words[0] == words[1]  # the same tokens, as many of them answers
    losses = found.compute_loss(model, theirs), TASK.loss(model, batch)
    assert float(losses[0].detach()) == pytest.approx(float(losses[1].detach()), rel=1e-5)
    assert abs(float(losses[1].detach()) - math.log(2)) > 1e-3
    expected, computed = (gradients(model, loss) for loss in losses)
    assert expected.keys() == computed.keys() and len(computed) > 1
    for name, gradient in computed.items():
        assert (gradient - expected[name]).norm() <= rounding * gradient.norm(), name


@pytest.mark.parametrize(
    "how",
    [
        {"method": "lora"},
        {"method": "cp", "layout": "layer proj : head dim : model"},
        {"method": "vera", "paper": True},
    ],
    ids=["lora", "cp", "vera"],
)
def test_loss_and_gradients_are_those_of_trl(how: dict[str, Any], tmp_path: Path) -> None:
    name = saved_chat_model(tmp_path / "model")
    model = attached(name, **how, **({"on_mismatch": "split"} if how.get("paper") else {}))
    batch = TASK.collate([TASK.example(texts, 0, name) for texts in PAIRS], model, "cpu")
    compare(trainer(name, tmp_path, model, ref_model=load_causal(name)[0]), model, batch)
    compare(trainer(name, tmp_path, model), model, batch)  # TRL loads the base again from where the model is from


@needs_smollm2
def test_real_pairs_and_a_real_model_have_the_loss_of_trl(tmp_path: Path) -> None:
    assert "TENSORADAPT_DATA" in os.environ
    task = resolve("ultrafeedback")[0]
    rows = task.load(SMOLLM2, DataSpec(n_test=8, max_length=128)).test.texts or ()
    texts = [text for text in rows if len(text) == 3][:2]
    model = attached(SMOLLM2, method="lora")
    found = trainer(SMOLLM2, tmp_path, model, texts, ref_model=load_causal(SMOLLM2)[0])
    batch = task.collate([task.example(text, 0, SMOLLM2) for text in texts], model, "cpu")
    compare(found, model, batch, rounding=1e-4)  # the rounding of 30 layers in fp32


def test_a_peft_model_has_the_adapter_that_it_was_given_with_as_reference(tmp_path: Path) -> None:
    from peft import PeftModel, get_peft_model

    from tensoradapt.integrations.peft import TensorConfig

    name = saved_chat_model(tmp_path / "model")
    config = TensorConfig(task_type="CAUSAL_LM", method="pissa", paper=True, rank=4)
    by_config = trainer(name, tmp_path, load_causal(name)[0], peft_config=config)
    assert list(by_config.model.peft_config) == ["default"]
    wrapped = trainer(name, tmp_path, get_peft_model(load_causal(name)[0], config))
    assert list(wrapped.model.peft_config) == ["default", "ref"]  # a copy, at its start equal to the base
    for found in (by_config, wrapped):
        found.train()
        assert against_the_base(found) == pytest.approx(trl_loss(found), abs=1e-6)
        assert trl_loss(found) < 0.6
    by_config.model.save_pretrained(tmp_path / "adapter")
    again = PeftModel.from_pretrained(load_causal(name)[0], tmp_path / "adapter", is_trainable=True)
    more = trainer(name, tmp_path, again)
    assert trl_loss(more) == pytest.approx(math.log(2), abs=1e-6)  # the trained adapter is the reference, not the base
    assert against_the_base(more) < 0.6


@torch.no_grad()
def trl_loss(found: Any) -> float:
    return float(found.compute_loss(found.model, batch_of(found)))


@torch.no_grad()
def against_the_base(found: Any) -> float:
    """Our loss with the disabled adapter as the reference."""
    given = batch_of(found)
    labels = given["input_ids"].masked_fill(given["completion_mask"] == 0, chat.IGNORED)
    batch = {"input_ids": given["input_ids"], "attention_mask": given["attention_mask"], "labels": labels}
    now = chat.log_likelihood(found.model, batch)[0]
    with found.model.disable_adapter():
        chosen, rejected = (now - chat.log_likelihood(found.model, batch)[0]).chunk(2)
    return float(-logsigmoid(0.1 * (chosen - rejected)).mean())
