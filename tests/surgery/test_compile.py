"""torch.compile takes an adapted model as one graph: no break, no recompilation over steps, equal numbers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from support.models import make
from torch import Tensor, nn

import tensoradapt as ta

pytestmark = pytest.mark.slow
TIED, FREE = "layer proj : head dim : model", ": out : in"
FAMILIES = {
    **dict.fromkeys(("cp", "tucker", "tensor_train", "tensor_ring", "block_term"), TIED),
    **dict.fromkeys(("lora", "loha", "vera", "randlora", "dense"), FREE),
}
OTHERS = ("tensor_ring", "block_term", "loha", "randlora")
FIRST = [name for name in FAMILIES if name not in OTHERS]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def adapted(family: str, rule: str = "add", **more: Any) -> nn.Module:
    """The model with every factor perturbed."""
    model, generator = make("llama", torch.float32), torch.Generator().manual_seed(0)
    adapter = ta.attach(model, ta.plan(model, FAMILIES[family], family, 2, rule=rule, **more), seed=0)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def gradients(model: nn.Module, call: nn.Module, ids: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    call(ids).logits.square().mean().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def check(family: str, rule: str = "add", backend: str = "aot_eager", **more: Any) -> None:
    model, ids = adapted(family, rule, **more), torch.arange(10)[None]
    expected = gradients(model, model, ids)
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    torch.testing.assert_close(compiled(ids).logits, model(ids).logits, rtol=1e-5, atol=1e-5)
    for _ in range(3):
        found = gradients(model, compiled, ids)
    assert set(found) == set(expected) != set()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-6)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert not torch._dynamo.utils.counters["graph_break"]


@pytest.mark.parametrize("family", [*FIRST, *(pytest.param(name, marks=pytest.mark.nightly) for name in OTHERS)])
def test_an_adapted_model_is_one_graph_whatever_the_parameterization(family: str) -> None:
    check(family)


def test_a_model_whose_rows_are_turned_is_one_graph() -> None:
    check("cp", "dora")


def test_a_model_whose_weights_are_multiplied_is_one_graph() -> None:
    check("cp", "hira")


@pytest.mark.parametrize("map", [{"unilora": 40}, {"nola": 10}])
def test_a_model_whose_factors_are_made_by_a_map_is_one_graph(map: dict[str, int]) -> None:
    check("cp", map=map)


@pytest.mark.skipif(shutil.which("g++") is None, reason="for a CPU torch's default backend writes C++")
def test_the_default_backend_computes_the_same() -> None:
    check("cp", backend="inductor")


def test_merging_and_disabling_compile_anew_and_are_seen() -> None:
    model, ids = adapted("cp"), torch.arange(10)[None]
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        on = compiled(ids).logits
        with ta.disabled(model):
            off = compiled(ids).logits
            torch.testing.assert_close(off, model(ids).logits, rtol=1e-6, atol=1e-6)
        assert not torch.allclose(on, off)
        ta.merge(model)
        torch.testing.assert_close(compiled(ids).logits, on, rtol=1e-4, atol=1e-4)


NAMES = ("a", "b", "c", "d", "e")


def resident() -> nn.Module:
    """A model with five adapters of different families and ranks."""
    model, generator = make("llama", torch.float32), torch.Generator().manual_seed(0)
    sites = ta.find_sites(model, ("q", "o"), layers=[1])
    for i, (name, family) in enumerate(zip(NAMES, FAMILIES, strict=False)):
        adapter = ta.attach(model, ta.plan(sites, FAMILIES[family], family, 2 + i), name=name)
        with torch.no_grad():
            for parameter in adapter.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


@torch.no_grad()
def same_in_one_graph(model: nn.Module, ids: Tensor, choices: list[dict[str, object]]) -> None:
    """The compiled model's logits of each choice are those of the model as it is, and one graph computes them all."""
    expected = []
    for choice in choices:
        ta.use(model, **choice)
        expected.append(model(ids).logits)
    assert len({float(one.sum()) for one in expected}) == len(choices)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    for choice, one in [*zip(choices, expected, strict=True)] * 2:
        ta.use(model, **choice, every=True)
        torch.testing.assert_close(compiled(ids).logits, one, rtol=1e-5, atol=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert not torch._dynamo.utils.counters["graph_break"]


def test_switching_over_five_adapters_compiles_nothing_anew() -> None:
    choices = [{"names": name} for name in NAMES]
    choices += [{"names": {"a": 0.5, "c": -1.5}}, {"names": ("b", "e")}]
    same_in_one_graph(resident(), torch.arange(10)[None], choices)


def test_adapters_for_each_sample_are_one_graph() -> None:
    choices = [{"samples": list(one)} for one in (("a", None, "b"), ("e", "d", "a"), ("c", "c", "c"))]
    same_in_one_graph(resident(), torch.arange(30).view(3, 10), choices)


def test_each_choice_is_compiled_once_where_only_what_is_used_is_computed() -> None:
    model, ids = resident(), torch.arange(10)[None]
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        for name in (*NAMES, *NAMES):
            ta.use(model, name)
            torch.testing.assert_close(compiled(ids).logits, model(ids).logits, rtol=1e-5, atol=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == len(NAMES)
