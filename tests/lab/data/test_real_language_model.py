"""A real chat model, SmolLM2-135M: a CP adapter trained, exported and read by PEFT, merged, and taken out again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from support.chat_models import SMOLLM2, needs_smollm2
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

import tensoradapt as ta
from tensoradapt.lab.data.models import load_causal
from tensoradapt.lab.sweeps.frontier import rate

pytestmark = [pytest.mark.slow, needs_smollm2]
STEPS, LENGTH = 8, 48


@pytest.fixture(scope="module")
def real() -> tuple[nn.Module, Any]:
    return load_causal(SMOLLM2)


@pytest.fixture
def model(real: tuple[nn.Module, Any]) -> Iterator[nn.Module]:
    """The model, left as it was."""
    yield real[0]
    if hasattr(real[0], "tensoradapt"):
        ta.detach(real[0])


@pytest.fixture(scope="module")
def batches(real: tuple[nn.Module, Any]) -> list[dict[str, Tensor]]:
    """Rated review sentences as the assistant's words."""
    tokenizer = real[1]
    texts = [one[0] for one in ta.load_task("snippets", n_train=4 * STEPS).train.texts]
    made = []
    for i in range(STEPS):
        chats = [
            [{"role": "user", "content": "Write a sentence of a film review."}, {"role": "assistant", "content": text}]
            for text in texts[4 * i : 4 * i + 4]
        ]
        plain = [tokenizer.apply_chat_template(chat, tokenize=False) for chat in chats]
        batch = tokenizer(plain, truncation=True, max_length=LENGTH, padding="max_length", return_tensors="pt")
        made.append({**batch, "labels": batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)})
    return made


def trained(model: nn.Module, batches: list[dict[str, Tensor]]) -> ta.Adapter:
    adapter = ta.attach(model, ta.plan(model, "layer proj : head dim : model", "cp", 8), seed=0)
    fitted = ta.fit(model, batches, lr=rate("cp"), steps=STEPS)
    assert fitted.losses[-1] < fitted.losses[0]
    return adapter


@torch.no_grad()
def logits(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits


def away(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_it_speaks(real: tuple[nn.Module, Any]) -> None:
    model, tokenizer = real
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    asked = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    said = model.generate(**asked, max_new_tokens=16, do_sample=False)[0, asked["input_ids"].shape[1] :]
    assert tokenizer.decode(said, skip_special_tokens=True).startswith("The capital of France is Paris.")


# PEFT asks transformers by an old name
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_peft_computes_what_the_exported_adapter_does(
    model: nn.Module, batches: list[dict[str, Tensor]], tmp_path: Path
) -> None:
    base = logits(model, batches[0])
    trained(model, batches)
    expected = logits(model, batches[0])
    report = ta.export_lora(model, tmp_path / "lora")
    ta.detach(model)
    assert report.exact and len(report.modules) == 4 * 30
    assert torch.equal(logits(model, batches[0]), base)
    assert away(base, expected) > 1e-2  # it has learnt something to lose
    wrapped = peft.PeftModel.from_pretrained(model, tmp_path / "lora")
    assert away(logits(wrapped, batches[0]), expected) < 1e-5
    wrapped.unload()


def test_a_merged_model_is_saved_and_computes_the_same(batches: list[dict[str, Tensor]], tmp_path: Path) -> None:
    model = load_causal(SMOLLM2)[0]
    trained(model, batches)
    expected = logits(model, batches[0])
    ta.merge(model, keep=False)
    ta.detach(model)
    model.save_pretrained(tmp_path / "merged")
    assert away(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval(), batches[0]), expected) < 1e-4


def test_ten_merges_on_bf16_weights_give_back_every_bit() -> None:
    model = load_causal(SMOLLM2)[0].bfloat16()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    adapter = ta.attach(model, ta.plan(model, "layer proj : head dim : model", "cp", 8), seed=0)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_(std=0.1)
    for _ in range(10):
        ta.merge(model)
        ta.unmerge(model)
    ta.detach(model)
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
