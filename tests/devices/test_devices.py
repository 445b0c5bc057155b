"""Devices are never mixed, on a stand-in for a GPU: models there, batches on the CPU, adapters that are moved later."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import torch
from support.device_standin import CUDA, Device, standin
from support.families import PLANNED, planned
from support.models import inputs, make, perturb
from torch import Tensor, nn

import tensoradapt as ta
from tensoradapt.networks import starts


@pytest.fixture
def gpu() -> Iterator[Device]:
    with standin() as device:
        yield device


@pytest.fixture(params=["stand-in", pytest.param("card", marks=pytest.mark.gpu)])
def card(request: pytest.FixtureRequest) -> Iterator[None]:
    """The stand-in, and with ``-m gpu`` a real device."""
    if request.param == "card":
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
        yield
    else:
        with standin():
            yield


def labelled() -> dict[str, Tensor]:
    return {**inputs("bert"), "labels": torch.tensor([2, 5])}


def adapted(name: str, first: bool, **settings: Any) -> tuple[nn.Module, ta.Adapter]:
    """A model on the device with an adapter, attached there or moved with it."""
    model = make("bert", torch.float32)
    model = model.to("cuda") if first else model
    adapter = ta.attach(model, planned(ta.find_sites(model, ("q", "v")), name, rank=2, **settings), seed=0)
    return model.to("cuda"), adapter


def test_mixed_devices_and_reads_are_found(gpu: Device) -> None:
    here = torch.ones(3).to("cuda")
    assert here.device == CUDA and nn.Linear(3, 3).to("cuda").weight.is_cuda
    with pytest.raises(RuntimeError, match=r"cuda:0 and cpu! \(add of \(3,\) at devices.test_devices\.py:"):
        here + torch.ones(3)
    with pytest.raises(TypeError, match=r"Use Tensor\.cpu"):
        here.numpy()
    with gpu.counting() as counts:
        assert float((here * 2).sum()) == 6 and here[[0, 1]].tolist() == [1, 1]
    assert (counts.launches.total(), counts.waits.total(), counts.copies.total()) == (3, 2, 1)


@pytest.mark.thorough
@pytest.mark.parametrize("first", [True, False], ids=["attached there", "moved after"])
@pytest.mark.parametrize("name", [name for name in PLANNED if name != "randlora"])  # more numbers than these matrices
def test_every_parameterization_trains_on_the_device(name: str, first: bool, card: None) -> None:
    model, adapter = adapted(name, first)
    assert losses(model) == pytest.approx(losses_on_the_cpu(name), rel=1e-4)
    assert all(p.device == CUDA for p in adapter.parameters())
    ta.merge(model)
    ta.unmerge(model)


@cache
def losses_on_the_cpu(name: str) -> tuple[float, ...]:
    alone = make("bert", torch.float32)
    ta.attach(alone, planned(ta.find_sites(alone, ("q", "v")), name, rank=2), seed=0)
    return losses(alone)


def losses(model: nn.Module) -> tuple[float, ...]:
    torch.manual_seed(1)  # of dropout
    return ta.fit(model, [labelled()] * 3, lr=1e-2, steps=3, optimizer="equal_steps").losses


def test_batches_on_the_cpu_are_moved_without_a_wait_and_prepared_ahead(gpu: Device) -> None:
    model, _ = adapted("lora", True)
    with gpu.counting() as counts:
        assert ta.fit(model, (labelled() for _ in range(3)), lr=1e-2, steps=3).status == "finished"
    assert not {line: n for line, n in counts.copies.items() if "feed" in line and n}


def test_what_batches_raise_is_raised_once_the_step_before_is_done(card: None) -> None:
    def batches() -> Iterator[dict[str, Tensor]]:
        yield labelled()
        raise KeyError("of the data")

    model, steps = adapted("lora", True)[0], []
    with pytest.raises(KeyError, match="of the data"):
        ta.fit(model, batches(), lr=1e-2, steps=3, on_step=lambda step, _: steps.append(step))
    assert steps == [1]


@pytest.mark.parametrize("name", ["cp", "vera", "lora_xs"])
def test_equal_steps_go_on_after_a_move(name: str, card: None) -> None:
    model = make("bert", torch.float32)
    adapter = ta.attach(model, planned(ta.find_sites(model, ("q", "v")), name, rank=2), seed=0)
    optimizer = ta.equal_steps(torch.optim.SGD(adapter.parameters(), lr=1e-3), model)
    perturb(adapter)
    for device in ("cpu", "cuda"):
        model.to(device)
        for parameter in adapter.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    assert optimizer.equal_steps.unchanged == 0


def test_frozen_matrices_are_shared_again_after_a_move(card: None) -> None:
    model = make("bert", torch.float32)
    for name in ("one", "two", "three"):
        ta.attach(model, ta.plan(model, ": out : in", "vera", 4), seed=0, name=name)
    for _ in range(2):
        model.to("cuda")
        held = {id(buffer) for adapter in ta.adapters(model).values() for buffer in adapter.bases.buffers()}
        assert len(held) == 2
    model.to("cpu")
    assert len({id(b) for adapter in ta.adapters(model).values() for b in adapter.bases.buffers()}) == 2
    ta.adapters(model)["one"].to("cuda")
    assert {b.device.type for b in ta.adapters(model)["two"].bases.buffers()} == {"cpu"}


@pytest.mark.parametrize("ways", [("cpu", "cuda"), ("cuda", "cpu")], ids=["to the card", "to the CPU"])
def test_an_adapter_that_is_moved_while_merged_is_unmerged_to_the_bit(ways: tuple[str, str], card: None) -> None:
    model, adapter = adapted("cp", False)
    model.to(ways[0])
    perturb(adapter)
    before = {name: value.cpu().clone() for name, value in model.state_dict().items()}
    ta.merge(model)
    model.to(ways[1])
    ta.unmerge(model)
    assert {p.device.type for p in model.parameters()} == {ways[1]}
    assert all(torch.equal(value.cpu(), before[name]) for name, value in model.state_dict().items())


class Chain(nn.Module):
    """Two layers, each on its own device."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(32, 32)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x.to(layer[0].weight.device))
        return x


@pytest.mark.parametrize("settings", [{}, {"rule": "dora"}, {"start": "subtract"}], ids=["plain", "dora", "subtract"])
@pytest.mark.parametrize(("method", "layout"), [("lora", ": out : in"), ("cp", "layer : out : in")])
def test_a_model_over_two_devices_computes_what_it_does_on_one(
    method: str, layout: str, settings: dict[str, str], card: None
) -> None:
    """Factors are on the device of the first layer; other layers move their pair."""
    outputs, gradients = [], []
    for second in ("cpu", "cuda"):
        torch.manual_seed(0)
        model = Chain()
        model.layers[1].to(second)
        adapter = ta.attach(model, ta.plan(ta.find_sites(model, "all"), layout, method, 2, **settings), seed=0)
        torch.manual_seed(1)
        perturb(adapter)
        output = model(torch.linspace(-1, 1, 96).view(3, 32))
        output.square().sum().backward()
        outputs.append(output.detach().cpu())
        gradients.append([p.grad.cpu() for p in adapter.parameters()])
        ta.merge(model)
        torch.testing.assert_close(
            model(torch.linspace(-1, 1, 96).view(3, 32)).cpu(), outputs[-1], rtol=1e-4, atol=1e-4
        )
    torch.testing.assert_close(outputs[0], outputs[1])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-4)


class Seen(Exception):
    """Where a batch was when its loss was asked for."""


def see(_: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    raise Seen(batch["labels"].device)


@pytest.mark.parametrize("start", ["gradient", *(name for name in ("eva",) if name in starts.names())])
def test_the_batches_of_a_start_come_to_the_models_device(start: str, card: None) -> None:
    model = make("bert", torch.float32).to("cuda")
    plan = ta.plan(ta.find_sites(model, ("q", "v")), method="lora", rank=2, start=start)
    with pytest.raises(Seen, match="cuda:0"):
        ta.attach(model, plan, batches=[labelled()], loss=see)
