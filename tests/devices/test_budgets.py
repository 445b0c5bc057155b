"""What a step may cost a GPU: waits, copies and launches on a stand-in, named by line where there are more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from support.device_standin import Counts, Device, standin
from torch import Tensor, nn
from transformers import BertConfig, BertModel

import tensoradapt as ta

METHODS: Mapping[str, int] = {"lora": 8, "cp": 8, "tensor_train": 8, "tucker": 8, "vera": 16, "lora_xs": 4}


@pytest.fixture
def gpu() -> Iterator[Device]:
    with standin() as device:
        yield device


class Mean(nn.Module):
    """A model whose own forward pass waits for nothing."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        config = BertConfig(
            hidden_size=48, num_hidden_layers=layers, num_attention_heads=4, intermediate_size=96, vocab_size=20,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )  # fmt: skip
        self.inner = BertModel(config)

    def forward(self, **batch: Tensor) -> Any:
        return type("Out", (), {"loss": self.inner(**batch).last_hidden_state[..., 0].square().mean()})


def step(
    gpu: Device, method: str, optimizer: str, layers: int = 2, plan: Mapping[str, Any] | None = None, **settings: Any
) -> Counts:
    """The counts of the third step of a training, batches moved from the CPU."""
    torch.manual_seed(0)
    model = Mean(layers)
    ta.attach(model, ta.plan(ta.find_sites(model, "attention"), method, rank=METHODS[method], **plan or {}), seed=0)
    model.to("cuda")
    counted: list[Counts] = []

    def note(step: int, loss: float) -> None:
        counted.append(gpu.counts)
        gpu.counts = Counts()

    batch = {"inputs_embeds": torch.randn(2, 5, 48)}
    with gpu.counting():
        ta.fit(model, [batch] * 4, lr=1e-3, steps=4, optimizer=optimizer, on_step=note, **settings)
    return counted[2]


@pytest.mark.thorough
@pytest.mark.parametrize("optimizer", ["adamw", "equal_steps"])
@pytest.mark.parametrize("method", METHODS)
def test_a_step_waits_once_and_equal_steps_once_more(method: str, optimizer: str, gpu: Device) -> None:
    counts = step(gpu, method, optimizer)
    assert counts.waits.total() == {"adamw": 1, "equal_steps": 2}[optimizer], +counts.waits
    assert counts.copies.total() == 0, +counts.copies


def test_preconditioned_gradients_are_not_waited_for(gpu: Device) -> None:
    counts = step(gpu, "cp", "adamw", precondition=1e-6)
    assert counts.waits.total() == 1, +counts.waits


@pytest.mark.thorough
@pytest.mark.parametrize("method", METHODS)
def test_what_equal_steps_launch_does_not_grow_with_the_layers(method: str, gpu: Device) -> None:
    extra = {}
    for layers in (2, 5):
        plain, equal = (step(gpu, method, optimizer, layers).launches for optimizer in ("adamw", "equal_steps"))
        extra[layers] = equal - plain
    matrices = 4 * (5 - 2)
    assert extra[5].total() - extra[2].total() < matrices / 2, extra[5] - extra[2]
    assert extra[5].total() <= 120, extra[5]


@pytest.mark.thorough
@pytest.mark.parametrize("method", ["cp", "tucker", "tensor_train"])
def test_a_tied_tensor_is_contracted_once_for_all_layers(method: str, gpu: Device) -> None:
    """What one more layer launches is less than with LoRA, which contracts in each."""
    more = {}
    for name in ("lora", method):
        more[name] = (step(gpu, name, "adamw", 4).launches.total() - step(gpu, name, "adamw", 2).launches.total()) / 2
    assert more[method] <= more["lora"], more


@pytest.mark.parametrize("settings", [{}, {"start": "subtract"}], ids=["plain", "subtract"])
@pytest.mark.parametrize("method", METHODS)
def test_a_pass_without_gradients_waits_once_for_all_factors(
    method: str, settings: dict[str, str], gpu: Device
) -> None:
    model = Mean(2)
    ta.attach(model, ta.plan(ta.find_sites(model, "attention"), method, rank=METHODS[method], **settings), seed=0)
    model.to("cuda")
    batch = {"inputs_embeds": torch.randn(2, 5, 48).to("cuda")}
    with torch.no_grad():
        model(**batch)
        with gpu.counting() as counts:
            model(**batch)
    assert counts.waits.total() <= 1, +counts.waits
    assert counts.copies.total() == 0, +counts.copies


@pytest.mark.parametrize("names", [["a", None, "b", "c"], ["c", "b", "c", "a"]], ids=["one size", "two sizes"])
def test_a_mixed_batch_copies_no_index_once_its_choice_was_used(names: list[str | None], gpu: Device) -> None:
    model = Mean(2)
    sites = ta.find_sites(model, "attention")
    for name in "abc":
        ta.attach(model, ta.plan(sites, "lora", rank=4), name=name)
    ta.use(model, samples=names)
    model.to("cuda")
    batch = {"inputs_embeds": torch.randn(4, 5, 48).to("cuda")}
    with torch.no_grad():
        model(**batch)
        with gpu.counting() as counts:
            model(**batch)
    assert (counts.copies.total(), counts.waits.total()) == (0, 0), (+counts.copies, +counts.waits)
