"""A pass and a step can be captured as a CUDA graph, and a replay computes with the numbers there are then."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
from support.capture_standin import capturing, graphs
from support.device_standin import Device, standin
from support.families import PLANNED, planned
from support.models import make
from torch import Tensor, nn

import tensoradapt as ta

RULES: Mapping[str, Mapping[str, Any]] = {
    "dora": {"parameterization": "lora", "rule": "dora"},
    "subtract": {"parameterization": "lora", "start": "subtract"},
    "subtract, tied": {"parameterization": "cp", "start": "subtract"},
}
CASES = {**{name: {"parameterization": name} for name in PLANNED if name != "randlora"}, **RULES}


@pytest.fixture
def gpu() -> Iterator[Device]:
    with standin() as device:
        yield device


class Whole(nn.Module):
    """A model inside one more module: hidden states from embeddings."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, embeddings: Tensor) -> Tensor:
        return self.model(inputs_embeds=embeddings).logits


def adapted(**settings: Any) -> tuple[Whole, ta.Adapter]:
    """A model on the device whose adapter changes its output."""
    model = make("bert", torch.float32).eval()
    adapter = ta.attach(
        model, planned(ta.find_sites(model, ("q", "v")), **{"rank": 2, "train": (), **settings}), seed=0
    )
    model.to("cuda")
    shift(adapter)
    return Whole(model), adapter


@torch.no_grad()
def shift(adapter: nn.Module) -> None:
    """Change every number in its place."""
    torch.manual_seed(3)
    for parameter in adapter.parameters():
        parameter.add_(torch.randn(parameter.shape).to("cuda"), alpha=0.2)


def batch() -> Tensor:
    return torch.randn(2, 5, 30).to("cuda")


def same(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_a_captured_step_follows_the_factors_and_the_batch(case: str, gpu: Device) -> None:
    model, adapter = adapted(**CASES[case])
    given = batch()

    def step() -> list[Tensor]:
        adapter.zero_grad()
        output = model(given)
        output.square().mean().backward()
        return [output.detach(), *(p.grad for p in adapter.parameters())]

    step()  # what is made once is made before a capture
    with capturing(gpu) as graph:
        found = step()
    with torch.no_grad():
        given.copy_(batch())
    shift(adapter)
    graph.replay()
    found = [value.clone() for value in found]
    same(found, step())


@pytest.mark.parametrize("case", CASES)
def test_a_captured_pass_without_gradients_contracts_in_the_graph(case: str, gpu: Device) -> None:
    model, adapter = adapted(**CASES[case])
    given = batch()
    with torch.no_grad():
        model(given), model(given)  # the next pass could take these pairs
        with capturing(gpu) as graph:
            found = model(given)
        before = model(given).clone()
        same(found, before)
        shift(adapter)
        graph.replay()
        same(found, model(given))
        assert (found - before).abs().max() > 1e-4


@pytest.mark.parametrize("case", ["lora", "cp", "dora"])
def test_replays_of_a_step_with_adamw_are_its_steps(case: str, gpu: Device) -> None:
    def trained(steps: Callable[[Callable[[], None]], None]) -> list[Tensor]:
        model, adapter = adapted(**CASES[case])
        given = batch()
        optimizer = torch.optim.AdamW(adapter.parameters(), lr=1e-2, capturable=True)

        def step() -> None:
            optimizer.zero_grad()
            model(given).square().mean().backward()
            optimizer.step()

        step()
        steps(step)
        return [p.detach().clone() for p in adapter.parameters()]

    def replayed(step: Callable[[], None]) -> None:
        with capturing(gpu) as graph:
            step()  # the stand-in computes what it captures, which is a step too
        graph.replay(), graph.replay()

    same(trained(replayed), trained(lambda step: [step() for _ in range(3)]))


@pytest.mark.parametrize("case", ["lora", "cp", "dora", "subtract, tied"])
def test_torch_graphs_an_adapted_model_inside_one_more_module(case: str, gpu: Device) -> None:
    model, adapter = adapted(**CASES[case])
    with graphs(gpu):
        with pytest.raises(AssertionError, match="must not have hooks"):
            torch.cuda.make_graphed_callables(model.model, (batch(),))
        expected = step_of(model, adapter, given := batch())
        graphed = torch.cuda.make_graphed_callables(model, (batch(),))
    same(step_of(graphed, adapter, given), expected)
    shift(adapter)
    found = step_of(graphed, adapter, given)
    model.train()  # torch then calls the module's own forward
    same(found, step_of(model, adapter, given))


def step_of(model: nn.Module, adapter: ta.Adapter, given: Tensor) -> list[Tensor]:
    adapter.zero_grad()
    output = model(given)
    output.square().mean().backward()
    return [output.detach().clone(), *(p.grad.clone() for p in adapter.parameters())]


def test_what_waits_or_copies_is_refused_in_a_capture(gpu: Device) -> None:
    here, pinned = torch.ones(2).to("cuda"), torch.ones(2).pin_memory()
    for refused in (
        lambda: here.sum().item(),
        lambda: here[[0, 1]],
        lambda: here.cpu(),
        lambda: here.copy_(here.cpu()),
    ):
        with pytest.raises(RuntimeError, match="not permitted when stream is capturing"), capturing(gpu):
            refused()
    with capturing(gpu) as graph:
        moved = pinned.to("cuda", non_blocking=True)
        doubled = moved * 2
    moved.add_(1)
    graph.replay()
    assert doubled.tolist() == [4, 4]
