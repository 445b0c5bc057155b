"""Claims 10 to 12 and 19 to 22 on tiny models of real families: starts, heads, memory, and what is in a count."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file
from support.claims import ATTENTION, DIM, ZERO, D, H, L, adapter_of, delta, khatri_rao, put, raw, started
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


@pytest.mark.parametrize("name", ZERO)
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


def test_claim_12_five_rows_do_not_start_at_zero_and_three_subtract_where_they_do() -> None:
    """LoRETTA, TT-LoRA, StelLA and, at 1e-5, LoRA-XS; QuanTA, DoTA, PiSSA are zero by subtraction, which any may be."""
    later = ("milora", "olora", "corda-ipm", "corda-kpm")
    away = {"loretta-rep", "tt-lora", "lora-xs", "stella", "stella-diagonal", "quanta", "dota", "pissa", *later}
    assert set(published.names()) - set(ZERO) == {*away, "lora-sb", "unilora"}
    for name in ("stella", "stella-diagonal", "loretta-rep", "tt-lora", "lora-xs"):
        adapter, _ = started(name)
        assert all(adapter.delta(site).count_nonzero() for site in adapter.plan.sites)
        model = tiny()
        with float64():
            subtracted = attached(name, model, start="subtract")
        assert not any(subtracted.delta(site).count_nonzero() for site in adapter.plan.sites)
    middles = torch.cat([part.factors["R"].detach().flatten() for part in adapter.factored])  # LoRA-XS's R
    assert 0.5e-5 < float(middles.square().mean().sqrt()) < 1.6e-5
    for name in ("quanta", "dota", "pissa", *later):
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


def test_claim_19_the_two_released_codes_put_heads_on_one_side_of_every_matrix() -> None:
    """Heads on the output, of o too, in the lit-gpt code; on the input, of q, k, v too, in the fork of PEFT."""
    for name, side in (("lorta-litgpt", 0), ("lorta-peft", 1)):
        for places in heads_changed(name, "bert").values():
            assert all(place[side] == {1} and place[1 - side] == set(range(H)) for place in places)
    one, other = (adapter_of(ATTENTION, method=name, paper=True, rank=2) for name in ("lorta-litgpt", "lorta-peft"))
    values = raw(one)
    put(other, {**{mode: values[mode] for mode in ("layer", "proj", "head", "dim")}, "out": values["in"]})
    for site in one.plan.sites:  # the same numbers are the transposed updates, which their shapes do not show
        np.testing.assert_allclose(delta(other, site) / 8, delta(one, site).T / 16, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", GROUPED)
def test_claim_20_fewer_key_and_value_heads_have_a_tensor_of_their_own_or_the_first_rows(name: str) -> None:
    """No source defines it, and the released LoRTA fails with a shape error, so a row refuses. With on_mismatch="split"
    q and o, k and v are a tensor each; with "crop" k and v read the first heads of one.
    """
    model = make(name)
    with pytest.raises(
        ta.TensorAdaptError, match=r"lorta with paper=True is not defined on these matrices.*cannot share modes of one"
    ):
        ta.plan(model, method="lorta", paper=True, rank=2)
    split = ta.plan(model, method="lorta", paper=True, rank=2, on_mismatch="split")
    groups = [
        ([m.site.coord["proj"] for m in group.members[:2]], group.network.layout.size_of) for group in split.groups
    ]
    assert [(projections, sizes["head"]) for projections, sizes in groups] == [(["q", "o"], 6), (["k", "v"], 2)]
    width, dim = model.config.hidden_size, split.sites[0].inner[1][1]
    assert split.n_params == 2 * (2 * (width + dim + L + 2) + 6 + 2)
    with float64():
        crop = ta.Adapter(ta.plan(model, method="lorta", paper=True, rank=2, on_mismatch="crop"))
    perturb(crop)
    assert crop.n_params == 2 * (width + dim + 6 + L + 4)
    f = raw(crop)
    for site in crop.plan.sites:
        layer, proj = site.coord["layer"], "qkvo".index(site.coord["proj"])
        u = khatri_rao(f["head"][: 2 if proj in (1, 2) else 6], f["dim"])
        update = 8 * (u * f["layer"][layer] * f["proj"][proj]) @ f["model"].T
        np.testing.assert_allclose(delta(crop, site), update.T if proj == 3 else update, rtol=0, atol=1e-13)


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


def stored(adapter: ta.Adapter, folder: Path) -> int:
    adapter.save(folder)
    return sum(value.size for file in folder.glob("*.safetensors") for value in load_file(file).values())


def test_claim_22_a_plan_says_what_is_in_its_count(tmp_path: Path) -> None:
    """Heads and LoRETTA's norms are counted apart, CaRA's biases are in the count and named, random bases are made from
    the seed and not stored, bases from the weights and a subtracted start are stored and counted apart.
    """
    model = tiny()
    plan = ta.plan(model, method="lora", paper=True, rank=2, train=("classifier",))
    assert (plan.n_params, plan.n_trained_base) == (2 * 2 * D * 2 * L, 7 * D + 7)
    assert "trained in place: classifier (217 parameters, not in the figure above)" in str(plan)

    def of(name: str) -> tuple[ta.Adapter, str]:
        adapter, _ = started(name)
        return adapter, str(adapter.plan)

    adapter, said = of("loretta-rep")
    norms = (2 * L + 1) * 2 * D
    assert (adapter.n_params, adapter.plan.n_trained_base) == (2 * L * 2 * (10 + 24 + 8), norms)
    assert f"({norms} parameters, not in the figure above)" in said
    adapter, said = of("cara")
    assert (adapter.plan.n_params, adapter.plan.n_biases) == (2 * (9 + H + DIM + D + 1 + 15 + 2 * D + 1) + 4 * D, 4 * D)
    assert "of these, 120 in biases of o, up, down" in said
    adapter, said = of("vera")
    assert (adapter.n_params, adapter.plan.n_base) == (2 * L * (2 + D), 0)
    assert stored(adapter, tmp_path / "vera") == adapter.n_params
    assert not adapter.plan.needs_weights
    adapter, said = of("lora-xs")
    assert (adapter.n_params, adapter.plan.n_base) == (2 * L * 4, 2 * L * 2 * 2 * D)
    assert f"frozen bases from the weights: {adapter.plan.n_base} numbers, stored and not trained" in said
    assert stored(adapter, tmp_path / "xs") == adapter.n_params + adapter.plan.n_base
    adapter, said = of("pissa")
    assert f"the start is subtracted: {adapter.n_params} numbers besides, stored and not trained" in said
    assert stored(adapter, tmp_path / "pissa") == 2 * adapter.n_params
