"""Claims 10 to 12, 19 and 21 on tiny models of real families: starts, heads and memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from support.claims import ZERO, delta, started
from support.models import GROUPED, inputs, make, perturb
from support.published_rows import attached, tiny
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import tensoradapt as ta
from tensoradapt import published
from tensoradapt.networks import mapped
from tensoradapt.testing.laws import float64


def slopes(adapter: ta.Adapter, model: torch.nn.Module) -> list[dict[str, bool]]:
    """Return which factors of each tensor have a gradient that is not exactly zero."""
    adapter.zero_grad()
    model(**inputs("bert"), labels=torch.tensor([2, 5])).loss.backward()
    trained = [dict(part.trained.items()) for part in adapter.factored]
    if adapter.mapped:  # the numbers of each factor
        names = [mapped.entries(part.network) for part in adapter.factored]
        trained = [{x: adapter.mapped.numbers[f"{i}_{x}"] for x in of} for i, of in enumerate(names)]
    return [
        {name: bool(value.grad is not None and value.grad.count_nonzero()) for name, value in named.items()}
        for named in trained
    ]


@pytest.mark.parametrize("name", [name for name in ZERO if name in published.names()])
def test_claim_10_one_zero_factor_is_an_update_of_zero_and_alone_has_a_gradient(name: str) -> None:
    adapter, model = started(name)
    assert not any(adapter.delta(site).count_nonzero() for site in adapter.plan.sites)
    for live in slopes(adapter, model):
        assert {factor for factor, moves in live.items() if moves} == {ZERO[name]}


@pytest.mark.parametrize("name", ["lorta", "tenslora-att_qkv_depth", "fact-tk", "metatt-5d", "lora", "vera", "loha"])
def test_claim_11_two_zero_factors_never_move(name: str) -> None:
    """Every gradient is exactly zero, whatever the second factor; so a network that asks for two is refused."""
    for second in started(name)[0].factored[0].trained:
        if second == ZERO[name]:
            continue
        adapter, model = started(name)
        for part in adapter.factored:
            part.trained[second].data.zero_()
        assert not any(any(live.values()) for live in slopes(adapter, model)), second
    network = adapter.factored[0].network
    with pytest.raises(ta.TensorAdaptError, match=r"expected exactly one .two never train"):
        replace(network, factors=tuple(replace(f, init="zero") for f in network.factors))


def test_claim_11_nola_without_its_frozen_base_would_be_dead() -> None:
    """A = A0 + sum_i a_i A_i and B = sum_i b_i B_i, with a = b = 0: only A0 makes it move. In plain torch."""
    generator = torch.Generator().manual_seed(0)
    bases = [torch.randn(3, *shape, generator=generator) for shape in ((2, 5), (4, 2))]
    start, slope = torch.randn(2, 5, generator=generator), torch.randn(4, 5, generator=generator)
    for offset in (torch.zeros(2, 5), start):
        a, b = (torch.zeros(3, requires_grad=True) for _ in range(2))
        update = torch.tensordot(b, bases[1], 1) @ (offset + torch.tensordot(a, bases[0], 1))
        (update * slope).sum().backward()
        assert (bool(a.grad.count_nonzero()), bool(b.grad.count_nonzero())) == (False, bool(offset.count_nonzero()))


def there(*names: str) -> list[str]:
    """The rows of these names that are there, as those of extras may be deleted."""
    return [name for name in names if name in published.names()]


def test_claim_12_five_rows_do_not_start_at_zero_and_three_subtract_where_they_do() -> None:
    """LoRETTA, TT-LoRA, StelLA and, at 1e-5, LoRA-XS; QuanTA, DoTA, PiSSA are zero by subtraction, which any may be."""
    later = ("milora", "olora", "corda-ipm", "corda-kpm")
    away = {"loretta-rep", "tt-lora", "lora-xs", "stella", "stella-diagonal", "quanta", "dota", "pissa", *later}
    assert set(published.names()) - set(ZERO) == {*away, "lora-sb", "unilora"} & set(published.names())
    for name in there("stella", "stella-diagonal", "loretta-rep", "tt-lora", "lora-xs"):
        adapter, _ = started(name)
        assert all(adapter.delta(site).count_nonzero() for site in adapter.plan.sites)
        model = tiny()
        with float64():
            subtracted = attached(name, model, start="subtract")
        assert not any(subtracted.delta(site).count_nonzero() for site in adapter.plan.sites)
    middles = torch.cat([part.factors["R"].detach().flatten() for part in adapter.factored])  # LoRA-XS's R
    assert 0.5e-5 < float(middles.square().mean().sqrt()) < 1.6e-5
    for name in there("quanta", "dota", "pissa", *later):
        adapter, model = started(name)
        assert all(value.count_nonzero() for part in adapter.factored for value in part.trained.values())
        assert not any(adapter.delta(site).count_nonzero() for site in adapter.plan.sites)
        assert all(all(live.values()) for live in slopes(adapter, model))  # unlike a zero factor, all move at once


def heads_changed(name: str, model: str, head: int = 1) -> dict[str, list[tuple[set[int], set[int]]]]:
    """Which heads of rows, and of columns, change in each matrix where one row of the head factor is set to zero."""
    base = make(model)
    with float64():
        adapter = ta.Adapter(ta.plan(base, method=name, paper=True, rank=2, on_mismatch="split"))
    perturb(adapter)
    before = {site.name: delta(adapter, site).copy() for site in adapter.plan.sites}
    for part in adapter.factored:
        part.trained["head"].data[head] = 0
    found: dict[str, Any] = {}
    for site in adapter.plan.sites:
        changed = delta(adapter, site) != before[site.name]
        dim = dict(site.inner)["dim"]
        rows, cols = ({n // dim for n in np.flatnonzero(changed.any(axis))} for axis in (1, 0))
        found.setdefault(site.coord["proj"], []).append((rows, cols))
    return found


@pytest.mark.parametrize("model", ["bert", "gpt2", *GROUPED])
def test_claim_19_a_row_of_the_head_factor_is_one_head_of_q_k_v_and_of_what_o_reads(model: str) -> None:
    for proj, places in heads_changed("lorta", model).items():
        assert len(places) == 3
        for rows, cols in places:
            mine, others = (cols, rows) if proj == "o" else (rows, cols)
            assert mine == {1}
            assert len(others) > 1


class Largest(TorchDispatchMode):
    """The most numbers that one operation makes, views of a given tensor aside."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.known, self.n = weight.untyped_storage().data_ptr(), 0

    def is_new(self, value: Any) -> bool:
        return isinstance(value, Tensor) and value.untyped_storage().data_ptr() != self.known

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        parts = made if isinstance(made, tuple | list) else (made,)
        self.n = max([self.n, *(t.numel() for t in parts if self.is_new(t))])
        return made


@pytest.mark.parametrize("name", ["lorta", "lora", "metatt-5d", "tenslora-att_qkv_depth", "vera", "cara"])
def test_claim_21_neither_pass_makes_or_keeps_a_matrix_of_the_models_width(name: str) -> None:
    """The released LoRTA forms the dense updates of all 4 L matrices; here only rows of the rank are made besides x."""
    d, tokens, rank = 256, 5, 4
    config = transformers.BertConfig(
        hidden_size=d, num_attention_heads=8, num_hidden_layers=2, intermediate_size=2 * d, vocab_size=20
    )
    torch.manual_seed(0)
    model = transformers.BertModel(config)
    adapter = ta.attach(model, ta.plan(model, method=name, paper=True, rank=rank))
    perturb(adapter)
    site = next(site for site in adapter.plan.sites if site.coord["proj"] == "v")
    layer, kept = model.get_submodule(site.module), []
    x = torch.randn(1, tokens, d)
    whole = Largest(layer.weight)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t), whole:
        layer(x).sum().backward()
    own = [t.numel() for t in kept if whole.is_new(t)]
    assert d * rank in own
    assert max(own) <= d * max(rank, tokens)
    assert whole.n <= 2 * d * max(rank, tokens) < d * d
    with Largest(layer.weight) as dense:
        adapter.delta(site)
    assert dense.n >= d * d
