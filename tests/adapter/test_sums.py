"""Sums: an adapter whose update is that of several networks over their own layouts, added."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from support.families import PLANNED, RANKLESS, SPLIT, planned
from support.models import One, inputs, make, perturb
from torch import Tensor, nn

import tensoradapt as ta
from tensoradapt.planning.scale import first_step, multiplier
from tensoradapt.published.sums import named_sum
from tensoradapt.sites.site import Site
from tensoradapt.training.distance.adapter_distance import Distance

pytestmark = pytest.mark.usefixtures("double")
CP = {"method": "cp", "layout": "layer : out : in", "rank": 4}
LORA = {"method": "lora", "rank": 2}


def term(name: str, plan: ta.Plan) -> dict[str, Any]:
    """The term of a parameterization over its usual layouts, with the split that these need."""
    rank = {} if name in RANKLESS else {"rank": 2}
    return {"method": name, **rank, **({"split": plan.spec.split} if name in SPLIT else {})}


def square(sites: Any, name: str) -> Any:
    return [site for site in sites if site.out == site.in_] if name == "quanta" else sites


def attached(name: str, terms: list[dict[str, Any]], **changes: Any) -> tuple[nn.Module, ta.Adapter]:
    model = make(name)
    adapter = ta.attach(model, ta.plan(model, sum=terms, **changes), seed=3)
    perturb(adapter)
    return model, adapter


@pytest.mark.parametrize("name", PLANNED)
def test_a_sum_is_its_terms_added(name: str, tmp_path: Path) -> None:
    """With each parameterization: updates, pairs, counts, outputs, merge, and a checkpoint."""
    base = make("bert")
    sites = square(ta.find_sites(base), name)
    alone = planned(sites, name, **({} if name in RANKLESS else {"rank": 2}))
    both = ta.plan(sites, sum=[term(name, alone), LORA])
    lora = ta.plan(sites, method="lora", rank=2)
    assert both.n_params == alone.n_params + lora.n_params
    assert [len(groups) for groups in both.terms] == [len(alone.groups), len(lora.groups)]
    model = copy.deepcopy(base)
    adapter = ta.attach(model, both, seed=3)
    assert torch.equal(model(**inputs("bert")).logits, base(**inputs("bert")).logits)
    perturb(adapter)
    dense = summed(adapter)
    for site in both.sites:
        torch.testing.assert_close(adapter.delta(site), dense[site.name], rtol=0, atol=1e-11)
        a, b = adapter.pair(site)
        torch.testing.assert_close(b @ a, dense[site.name], rtol=0, atol=1e-11)
    assert_saved_and_merged(model, base, adapter, tmp_path)


TERMS = [name for name in PLANNED if name not in ("quanta", "randlora")]  # of square matrices alone; as large as these


@given(names=st.lists(st.sampled_from(TERMS), min_size=2, max_size=3), rank=st.integers(1, 2), seed=st.integers(0, 99))
def test_any_terms_have_the_laws_of_a_network(names: list[str], rank: int, seed: int) -> None:
    """Count, oracle, pair and distance of drawn parameterizations, ranks and values."""
    sites = ta.find_sites(make("bert"))[:4]
    alone = [planned(sites, name, **({} if name in RANKLESS else {"rank": rank})) for name in names]
    assume(sum(each.n_params for each in alone) <= alone[0].n_dense)  # more is refused
    terms = [
        {**term(n, plan), **({} if n in RANKLESS else {"rank": rank})} for n, plan in zip(names, alone, strict=True)
    ]
    plan = ta.plan(sites, sum=terms)
    assert plan.n_params == sum(each.n_params for each in alone)
    generator = torch.Generator().manual_seed(seed)
    based = [[f for f in group.network.factors if f.source == "base"] for group in plan.groups]
    values = [
        {f.name: torch.randn(group.network.shape(f), generator=generator) for f in factors}
        for group, factors in zip(plan.groups, based, strict=True)
    ]
    adapter = ta.Adapter(plan, seed=seed, values=values)
    perturb(adapter)
    dense = summed(adapter)
    for site in plan.sites:
        size = dense[site.name].abs().max().item()
        a, b = adapter.pair(site)
        torch.testing.assert_close(adapter.delta(site), dense[site.name], rtol=0, atol=1e-12 * size)
        torch.testing.assert_close(b @ a, dense[site.name], rtol=0, atol=1e-11 * size)
    assert_distance(adapter, generator)


def assert_distance(adapter: ta.Adapter, generator: torch.Generator) -> None:
    """The distance of a step is that of the dense updates."""
    before = [{k: v.detach().clone() for k, v in tensor.trained.items()} for tensor in adapter.factored]
    change = [{k: 0.1 * torch.randn(v.shape, generator=generator) for k, v in values.items()} for values in before]
    curve = Distance(adapter).along(before, change)
    old = [adapter.delta(site).detach() for site in adapter.plan.sites]
    for length in (0.3, 1.0):
        for tensor, values, step in zip(adapter.factored, before, change, strict=True):
            for k, v in values.items():
                tensor.trained[k].data.copy_(v + length * step[k])
        moved = sum((adapter.delta(s) - d).square().sum().item() for s, d in zip(adapter.plan.sites, old, strict=True))
        assert curve(length) == pytest.approx(moved, rel=1e-9)


def summed(adapter: ta.Adapter) -> dict[str, Tensor]:
    """The dense updates: slices of the dense tensors, added."""
    found: dict[str, Tensor] = {}
    for tensor, group in zip(adapter.factored, adapter.plan.groups, strict=True):
        whole, names = tensor.full(), group.network.layout.names
        for member in group.members:
            at = [slice(v.start, v.stop) if isinstance(v := member.at.get(n, slice(None)), range) else v for n in names]
            shape = (member.site.in_, member.site.out) if member.transposed else (member.site.out, member.site.in_)
            matrix = whole[tuple(at)].reshape(shape)
            factor = multiplier(adapter.plan.scale, group.network, member.site.in_)
            part = factor * (matrix.T if member.transposed else matrix)
            found[member.site.name] = found.get(member.site.name, 0) + part
    return found


def assert_saved_and_merged(model: nn.Module, base: nn.Module, adapter: ta.Adapter, folder: Path) -> None:
    given = inputs("bert")
    before = model(**given).logits
    with torch.no_grad():
        torch.testing.assert_close(model(**given).logits, before, rtol=0, atol=1e-10)
    adapter.save(folder)
    other = copy.deepcopy(base)
    assert torch.equal(ta.load(other, folder).pair(adapter.plan.sites[0])[0], adapter.pair(adapter.plan.sites[0])[0])
    torch.testing.assert_close(other(**given).logits, before, rtol=0, atol=1e-12)
    ta.merge(model)
    torch.testing.assert_close(model(**given).logits, before, rtol=0, atol=1e-8)
    ta.unmerge(model)


def test_equal_steps_move_a_sum_as_far_as_a_network() -> None:
    assert_equal_step(*attached("bert", [LORA, CP]))


def test_the_terms_together_make_the_matched_first_step() -> None:
    """Two LoRAs of rank 4 have the scale of one of rank 8: both are matched to LoRA r=8 with alpha=16."""
    sites = [Site("lin", "lin", (), 256, 256, (), False)]
    two = ta.Adapter(ta.plan(sites, sum=[{"method": "lora", "rank": 4}] * 2), seed=0)
    one = ta.Adapter(ta.plan(sites, method="lora", rank=8), seed=0)
    scales = [tensor.scale for tensor in (*two.factored, *one.factored)]
    assert scales == pytest.approx([scales[-1]] * 3, rel=0.05)
    assert ta.plan(sites, sum=[{"method": "lora", "rank": 4}] * 2, scale="paper").alpha is None


@pytest.mark.parametrize(("rank", "shared"), [(3, 1), (5, 2)])
def test_rasa_is_its_equation(rank: int, shared: int) -> None:
    """delta_l = B_l diag(d_l) A_l + sum over all layers' shared components with layer l's own diagonal; in loops."""
    model = make("bert")
    adapter = ta.attach(model, ta.plan(model, method="rasa", rank=rank, options={"shared": shared}), seed=1)
    perturb(adapter)
    plan = adapter.plan
    layers = len({site.coord["layer"] for site in plan.sites})
    own, tied = ([adapter.factored[plan.groups.index(g)] for g in groups] for groups in plan.terms)
    for site in plan.sites:
        (mine,) = [t for t, g in zip(own, plan.terms[0], strict=True) if g.members[0].site == site]
        ((all_, at),) = [
            (t, m.at["layer"]) for t, g in zip(tied, plan.terms[1], strict=True) for m in g.members if m.site == site
        ]
        expected = torch.zeros(site.out, site.in_)
        for k in range(rank - shared):
            f = mine.factors
            expected += mine.scale * f["weights"][k] * torch.outer(f["out"][:, k], f["in"][:, k])
        for k in range(shared * layers):
            f = all_.factors
            expected += all_.scale * f["layer"][at, k] * torch.outer(f["out"][:, k], f["in"][:, k])
        torch.testing.assert_close(adapter.delta(site), expected, rtol=0, atol=1e-12)
    each = [s.out + s.in_ for s in plan.sites]
    diagonals = len(plan.sites) * (rank - shared + shared * layers)
    assert plan.n_params == rank * sum(each) + diagonals


@pytest.mark.parametrize("shape", [(30, 30), (48, 18)])
def test_gralora_hybrid_is_pefts(shape: tuple[int, int]) -> None:
    out, in_ = shape
    split = {"out": {out: (2, out // 2)}, "in": {in_: (2, in_ // 2)}}
    base = One(out, in_)
    sites = [Site("lin", "lin", (), out, in_, (), True)]
    terms = [{"method": "gralora", "rank": 3, "split": split}, {"method": "lora", "rank": 2}]
    row = named_sum("gralora hybrid")
    assert [{**t, **({"split": split} if i == 0 else {})} for i, t in enumerate(row.terms(3, 1, hybrid=2))] == terms
    multiplier = row.alpha / row.divisor(3, hybrid=2)
    adapter = ta.Adapter(ta.plan(sites, sum=terms, scale=multiplier), seed=0)
    perturb(adapter)
    config = peft.GraloraConfig(r=6, gralora_k=2, hybrid_r=2, alpha=64, target_modules=["lin"])
    theirs = peft.get_peft_model(base, config).double()
    layer = theirs.base_model.model.lin
    blocks, lora = adapter.factored
    held = {"gralora_A": blocks.factors["A"], "gralora_B": blocks.factors["B"]}
    for name, value in held.items():
        getattr(layer, name)["default"].data = value.detach().reshape(getattr(layer, name)["default"].shape)
    layer.gralora_A_general["default"].weight.data = lora.factors["A"].detach().reshape(2, in_)
    layer.gralora_B_general["default"].weight.data = lora.factors["B"].detach().reshape(out, 2)
    assert sum(p.numel() for p in theirs.parameters() if p.requires_grad) == adapter.n_params
    torch.testing.assert_close(adapter.delta(sites[0]), layer.get_delta_weight("default"), rtol=0, atol=1e-12)


def assert_equal_step(model: nn.Module, adapter: ta.Adapter) -> None:
    optimizer = ta.equal_steps(torch.optim.SGD(adapter.parameters(), lr=1e-3), model)
    old = [adapter.delta(site).detach() for site in adapter.plan.sites]
    model(**inputs("bert")).logits.square().mean().backward()
    optimizer.step()
    moved = sum((adapter.delta(s) - d).square().sum().item() for s, d in zip(adapter.plan.sites, old, strict=True))
    asked = sum(s.out * s.in_ * first_step(s.in_) ** 2 for s in adapter.plan.sites)
    assert moved == pytest.approx(1e-6 * asked, rel=1e-6)


def test_a_plan_of_a_sum_is_read_again_and_says_its_terms() -> None:
    sites = ta.find_sites(make("bert"))
    for plan in (ta.plan(sites, sum=[LORA, CP]), ta.plan(sites, method="rasa", rank=3)):
        again = ta.plan(sites, plan.spec)
        assert again == plan
    text = str(ta.plan(sites, sum=[LORA, {**CP, "frozen": ["layer"]}]))
    assert "adds lora over ': out : in', rank 2" in text and "rank 4" in text and "frozen: layer (drawn)" in text
    assert ta.plan(sites, sum=[LORA, CP]).parameterization == "sum"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sum": [LORA]}, "expected two or more terms"),
        ({"sum": [LORA, {"rank": 3}]}, "term 2 of sum has no method"),
        ({"sum": [LORA, {**CP, "scale": 2.0}]}, "term 2 of sum has scale=2.0, which is of the whole adapter"),
        ({"sum": [LORA, CP], "method": "lora"}, "both sum= and method='lora' were given"),
        ({"sum": [LORA, CP], "rank": 3}, "rank=3 was given beside sum="),
        ({"sum": [{"method": "lora"}, CP], "budget": 10}, "below the smallest possible: rank 1 takes"),
        ({"sum": [LORA, {"method": "pissa", "rank": 2}]}, "pissa starts with 'subtract', and the sum with 'zero'"),
        ({"sum": [LORA, {"method": "hira", "rank": 2}]}, "hira has the rule 'hira', which is of the whole adapter"),
        ({"sum": [LORA, CP], "start": "subtract", "rank_dropout": 0.1}, "expected one of them"),
        ({"method": "sum"}, "was given without terms"),
        ({"method": "rasa"}, "rasa takes rank="),
        ({"method": "rasa", "rank": 2, "options": {"shared": 2}}, "expected shared below the rank"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ta.TensorAdaptError, match=None) as raised:
        ta.plan(ta.find_sites(make("bert")), **changes)
    assert said in str(raised.value)


def test_a_budget_gives_the_terms_without_ranks_the_largest_that_fits() -> None:
    free = [{"method": "lora"}, {"method": "cp", "layout": "layer : out : in"}]
    sites = ta.find_sites(make("bert"))
    for budget in (1500, 4000, 4321):
        plan = ta.plan(sites, sum=free, budget=budget)
        ranks = [groups[0].rank for groups in plan.terms]
        wider = [
            ta.plan(sites, sum=[{**t, "rank": r + (i == j)} for j, (t, r) in enumerate(zip(free, ranks, strict=True))])
            for i in range(2)
        ]
        assert plan.n_params <= budget and all(more.n_params > budget for more in wider)
    kept = ta.plan(sites, sum=[{**free[0], "rank": 1}, free[1]], budget=4000)
    assert next(groups[0].rank for groups in kept.terms) == 1 and 3500 < kept.n_params <= 4000
