"""Plans: which tensors exist, who reads which slice, and at what cost, from shapes alone."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from support.families import PLANNED, RANKLESS, planned, taken
from support.models import CONFIGURED, FAMILIES, TIED, llama, make

import tensoradapt as ta
from tensoradapt.networks.layout import Layout
from tensoradapt.parameterizations import cp
from tensoradapt.planning.plan import Group, Plan
from tensoradapt.planning.ranks import Builder, networks, total

every_parameterization = pytest.mark.parametrize("parameterization", PLANNED)


def llama_for(parameterization: str) -> SimpleNamespace:
    """One with square q and o for the parameterizations that take no others."""
    return llama(head_dim=4) if getattr(ta.parameterizations.get(parameterization), "square", False) else llama()


LEAST = {"randlora": 10**6}  # the rank with the fewest parameters where it is not 1: more, smaller terms cost more
ROBERTA_BASE = SimpleNamespace(
    model_type="roberta", hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072
)
LLAMA2_7B = SimpleNamespace(
    model_type="llama", hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, intermediate_size=11008
)
LLAMA2_70B = llama(
    hidden_size=8192,
    num_hidden_layers=80,
    num_attention_heads=64,
    num_key_value_heads=8,
    head_dim=128,
    intermediate_size=28672,
)


def test_published_adapters_have_the_numbers_their_papers_print() -> None:
    assert ta.plan(ROBERTA_BASE, method="lorta", paper=True, rank=8).n_params == 6_880
    assert ta.plan(LLAMA2_7B, method="lorta", paper=True, rank=8).n_params == 34_336
    assert ta.plan(ROBERTA_BASE, method="lora", paper=True, rank=8).n_params == 294_912
    assert ta.plan(LLAMA2_7B, method="vera", paper=True, rank=256).n_params == 2 * 32 * (4096 + 256)


@given(st.integers(2, 40), st.integers(2, 16), st.integers(2, 64), st.integers(1, 300))
def test_lorta_has_r_times_the_sum_of_its_mode_sizes(n_layers: int, heads: int, dim: int, rank: int) -> None:
    d = heads * dim
    config = SimpleNamespace(
        model_type="bert", hidden_size=d, num_hidden_layers=n_layers, num_attention_heads=heads, intermediate_size=d + 1
    )
    expected = rank * (d + d // heads + heads + n_layers + 4)
    assume(expected < 4 * n_layers * d * d)
    assert ta.plan(config, method="lorta", paper=True, rank=rank).n_params == expected


@pytest.mark.parametrize("name", CONFIGURED)
def test_a_config_gives_the_plan_of_its_model(name: str) -> None:
    from_model, from_config = (
        ta.plan(ta.find_sites(given, scope=FAMILIES[name].scope), method="cp", rank=2)
        for given in (make(name), FAMILIES[name].config())
    )
    assert [group.network for group in from_model.groups] == [group.network for group in from_config.groups]
    assert [m.at for g in from_model.groups for m in g.members] == [m.at for g in from_config.groups for m in g.members]


@every_parameterization
@pytest.mark.parametrize("mismatch", ["split", "crop"])
def test_every_site_has_a_place_of_its_own_and_no_place_is_empty(parameterization: str, mismatch: str) -> None:
    sites = taken(ta.find_sites(llama_for(parameterization), "all"), parameterization)
    plan = planned(sites, parameterization, rank=2, on_mismatch=mismatch)
    assert sorted(site.name for site in plan.sites) == sorted(site.name for site in sites)
    for group in plan.groups:
        index = group.network.layout.index
        places = [tuple(member.at[mode.name] for mode in index) for member in group.members]
        assert sorted(places) == list(itertools.product(*(range(mode.size) for mode in index)))


def test_coordinates_a_layout_does_not_name_get_tensors_of_their_own() -> None:
    sites = ta.find_sites(llama(), ("q", "o"))
    expected = {": head dim : model": 6, "layer : head dim : model": 2, "proj : head dim : model": 3, TIED: 1}
    for layout, n_tensors in expected.items():
        assert len(ta.plan(sites, layout, "cp", rank=2).groups) == n_tensors


def test_fewer_key_heads_split_into_a_tensor_of_their_own() -> None:
    wide, narrow = ta.plan(llama(), TIED, "cp", rank=2).groups
    assert wide.network.layout.shape == (3, 2, 6, 8, 24)
    assert narrow.network.layout.shape == (3, 2, 2, 8, 24)
    assert projections(wide) == {"q": 0, "o": 1}
    assert projections(narrow) == {"k": 0, "v": 1}


def test_fewer_key_heads_crop_to_the_first_of_one_tensor() -> None:
    (group,) = ta.plan(llama(), TIED, "cp", rank=2, on_mismatch="crop").groups
    assert group.network.layout.shape == (3, 4, 6, 8, 24)
    heads = {member.site.coord["proj"]: member.at.get("head") for member in group.members}
    assert heads == {"q": None, "k": range(2), "v": range(2), "o": None}


def test_the_residual_orientation_transposes_what_writes_to_the_stream_and_no_other_does() -> None:
    sites = ta.find_sites(llama(), "all")
    residual = ta.plan(sites, [TIED, "layer proj : ff : model"], "cp", rank=2)
    assert {m.site.coord["proj"] for g in residual.groups for m in g.members if m.transposed} == {"o", "down"}
    stored = ta.plan(sites, "layer proj : out : in", "cp", rank=2)
    assert not any(member.transposed for group in stored.groups for member in group.members)
    shapes = {group.network.layout.shape[1:] for group in stored.groups}
    assert shapes == {(1, 48, 24), (2, 16, 24), (1, 24, 48), (2, 34, 24), (1, 24, 34)}


def test_a_site_takes_the_first_layout_whose_modes_it_has() -> None:
    plan = ta.plan(ta.find_sites(llama(), ("q", "up")), ["layer : ff : model", ": out : in"], "lora", rank=2)
    layouts = {
        member.site.coord["proj"]: str(group.network.layout) for group in plan.groups for member in group.members
    }
    assert layouts == {"q": ": out : in", "up": "layer : ff : model"}


def test_a_split_mode_stands_where_it_stood_with_the_parts_given() -> None:
    sites = ta.find_sites(llama(), ("q",))
    plan = ta.plan(sites, ": out1 out2 : in1 in2", "tensor_train", rank=2, split={"out": (6, 8), "in": (4, 6)})
    assert {group.network.layout.shape for group in plan.groups} == {(6, 8, 4, 6)}


def test_merged_modes_allow_sites_that_are_not_a_grid() -> None:
    sites = ta.find_sites(llama(), ("q", "o"), exclude=["*.1.self_attn.o_proj"])
    (group,) = ta.plan(sites, "(layer proj) : head dim : model", "cp", rank=2).groups
    assert group.network.layout.shape == (5, 6, 8, 24)
    assert [member.at["layer_proj"] for member in group.members] == [0, 1, 2, 3, 4]


@every_parameterization
def test_a_whole_rank_is_clipped_to_what_modes_and_bonds_can_carry(parameterization: str) -> None:
    plan = planned(ta.find_sites(llama_for(parameterization), ("q", "o")), parameterization, rank=7)
    for group in plan.groups:
        assert dict(group.network.clipped().bonds) == dict(group.network.bonds)
    small = ta.plan(ta.find_sites(llama(), ("q", "o")), TIED, "tucker", rank=7)
    assert small.groups[0].rank == {"layer": 3, "proj": 2, "head": 6, "dim": 7, "model": 7}


def test_ranks_given_by_mode_are_used_as_they_are() -> None:
    ranks = {"layer": 1, "proj": 2, "head": 3, "dim": 4, "model": 5}
    plan = ta.plan(ta.find_sites(llama(), ("q", "o")), TIED, "tucker", rank=ranks)
    assert plan.groups[0].rank == ranks


@given(st.sampled_from(PLANNED), st.integers(1, 3000), st.booleans())
def test_a_budget_is_kept_and_nothing_more_fits_in_it(parameterization: str, spare: int, crop: bool) -> None:
    sites = ta.find_sites(llama_for(parameterization), "all")
    options: Any = {"parameterization": parameterization, "on_mismatch": "crop" if crop else "split"}
    least = planned(sites, rank=LEAST.get(parameterization, 1), **options).n_params
    assume(least + spare < 15_000)
    plan = planned(sites, budget=least + spare, **options)
    assert least <= plan.n_params <= plan.spec.budget == least + spare
    larger = [n for n in wider(plan) if n > plan.n_params]
    assert not [n for n in larger if n <= plan.spec.budget], (
        f"{plan.spec.budget}: {plan.n_params} was reached, {larger} are open"
    )


@every_parameterization
def test_the_count_is_the_sum_of_the_closed_formula(parameterization: str) -> None:
    plan = planned(ta.find_sites(llama_for(parameterization), "all"), parameterization, rank=3)
    family = ta.parameterizations.get(parameterization)
    assert plan.n_params == sum(family.count(group.network.layout, group.rank) for group in plan.groups)


@pytest.mark.thorough
def test_a_70_billion_parameter_model_is_planned_without_torch() -> None:
    code = f"""
import sys
sys.modules["torch"] = None
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from types import SimpleNamespace as namespace
import tensoradapt as ta
from support.families import PLANNED, planned
sites = ta.find_sites({LLAMA2_70B!r}, "all")
for name in PLANNED:
    print(name, planned(sites, name, rank=8).n_params)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    counts = dict(line.split() for line in done.stdout.splitlines())
    assert set(counts) == set(PLANNED)
    assert counts["lora"] == str(8 * 80 * (2 * 16384 + 2 * 9216 + 3 * 36864))
    assert counts["cp"] == str(
        8 * (80 + 2 + 64 + 128 + 8192) + 8 * (80 + 2 + 8 + 128 + 8192) + 8 * (80 + 3 + 28672 + 8192)
    )


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_modules_trained_in_place_are_counted_apart(name: str) -> None:
    model, head = make(name), FAMILIES[name].head
    plan = ta.plan(model, method="cp", rank=2, train=(head,))
    assert plan.n_trained_base == sum(p.numel() for p in model.get_submodule(head).parameters())
    assert plan.n_params == ta.plan(model, method="cp", rank=2).n_params
    assert ta.plan(model.config, method="cp", rank=2, train=(head,)).n_trained_base is None


def test_a_parameterization_without_a_rank_needs_none() -> None:
    split = {"out": (5, 6), "in": (5, 6)}
    for family in RANKLESS:
        changes = {} if family == "dense" else {"split": split}
        sites = ta.find_sites(make("bert"), ("q",))
        free = ta.plan(sites, method=family, **changes)
        assert free.groups == ta.plan(sites, method=family, rank=1, **changes).groups
        assert not any(group.rank for group in free.groups)
    rated = ta.plan(sites, method="dense", rates={"W": 2.0})
    assert rated.n_params == 3 * 900
    assert ta.plan(sites, method="quanta", paper=True, split=split).n_params == 3 * 900


@every_parameterization
def test_a_parameterization_with_a_rank_says_that_it_needs_one(parameterization: str) -> None:
    if parameterization in RANKLESS:
        return
    says = "rank=None and budget=None were given; expected exactly one of them"
    with pytest.raises(ta.TensorAdaptError, match=says):
        planned(ta.find_sites(llama_for(parameterization)), parameterization)


def test_a_plan_prints_what_it_will_do() -> None:
    sites = ta.find_sites(llama(), ("q", "k", "o", "up"), layers=[0, 2])
    plan = ta.plan(sites, [TIED, ": out : in"], "cp", budget=400, on_mismatch="crop", train=("lm_head",))
    assert str(plan) == GOLDEN.strip()


GOLDEN = """
cp over 8 matrices (llama by recipe llama): 318 parameters, 4.54 % of their 7,008
scale matched, start zero, rule add, needs no base weights
budget 400: reached 318, 82 unused
trained in place: lm_head (counted when attached, not in the figure above)

tensors  layout                         sizes               rank  R  parameters each
1        layer proj : head dim : model  2 x 3 x 6 x 8 x 24  2     2  86
2        : out : in                     34 x 24             2     2  116

site                             out x in  slice            orientation  R  layers  tensor
model.layers.*.self_attn.q_proj  48 x 24   proj=0           as stored    2  0, 2    0
model.layers.*.self_attn.k_proj  16 x 24   proj=1 head=0:2  as stored    2  0, 2    0
model.layers.*.self_attn.o_proj  24 x 48   proj=2           transposed   2  0, 2    0
model.layers.*.mlp.up_proj       34 x 24                    as stored    2  0, 2    each its own

How a layer is computed in training (fp32), by tokens in the batch (R: rank of A and B):
out x in  R  tokens       products
16 x 24   2  1 to 96      activations through (A, B), gradient through (A, B)
16 x 24   2  97 or more   W + delta formed once, gradient through (A, B)
24 x 48   2  1 to 160     activations through (A, B), gradient through (A, B)
24 x 48   2  161 or more  W + delta formed once, gradient through (A, B)
34 x 24   2  1 to 140     activations through (A, B), gradient through (A, B)
34 x 24   2  141 or more  W + delta formed once, gradient through (A, B)
48 x 24   2  1 to 160     activations through (A, B), gradient through (A, B)
48 x 24   2  161 or more  W + delta formed once, gradient through (A, B)

skipped:
  model.layers.*.self_attn.v_proj (3)  v is not among the projections asked for
  model.layers.*.mlp.gate_proj (3)     gate is not among the projections asked for
  model.layers.*.mlp.down_proj (3)     down is not among the projections asked for
  model.layers.*.self_attn.q_proj      layer not asked for
  model.layers.*.self_attn.k_proj      layer not asked for
  model.layers.*.self_attn.o_proj      layer not asked for
  model.layers.*.mlp.up_proj           layer not asked for
"""


def projections(group: Group) -> dict[Any, Any]:
    return {member.site.coord["proj"]: member.at["proj"] for member in group.members}


def wider(plan: Plan) -> list[int]:
    """Counts of the plans with one bond more (of all tensors where there is one bond for all)."""
    family, nets = ta.parameterizations.get(plan.parameterization), {g.network.layout: g.network for g in plan.groups}
    kinds = Counter(group.network.layout for group in plan.groups)
    counts = []
    if all(set(net.bonds) - set(net.derived) == {"r"} for net in nets.values()):
        rank = max(net.bonds["r"] for net in nets.values()) + 1
        counts.append(total(networks(Builder(family), kinds, rank), kinds))
    for layout, net in nets.items():
        for bond in set(net.bonds) - {"r", *net.derived}:
            own = {name: n for name, n in net.bonds.items() if name not in net.derived}
            raised = {name.removeprefix("r_"): n + (name == bond) for name, n in own.items()}
            larger = family.build(layout, raised)
            if dict(larger.clipped().bonds) == dict(larger.bonds):
                counts.append(total({**nets, layout: larger}, kinds))
    return counts


@pytest.mark.parametrize("projections", ["all", ("q", "v"), "mlp"])
def test_a_model_is_planned_on_the_projections_that_are_named(projections: Any) -> None:
    named = ta.plan(llama(), TIED if projections == ("q", "v") else ": out : in", "lora", 2, projections=projections)
    assert set(named.sites) == set(ta.find_sites(llama(), projections))


MODEL = "tiny-random-bert"  # 24 wide


@pytest.mark.parametrize(
    ("split", "says"),
    [
        (3, "split is 3; expected a mapping of modes to the sizes of their parts"),
        ({"left": (4, 6)}, "split names 'left', no row or column mode"),
        ({"out": 3}, "split out=3; expected the sizes of its parts"),
        ({"out": (0, 24)}, "has a part that is not a whole number of 1 or more"),
        ({"out": {99: (9, 11)}}, "split of out has no parts for the width 24 of site"),
        ({"out": (5, 5)}, "has the product 25, but out of site"),
    ],
)
def test_a_split_that_fits_no_matrix_is_refused(split: Any, says: str) -> None:
    with pytest.raises(ta.TensorAdaptError, match=says):
        ta.plan(MODEL, "cp", rank=2, layout=": out1 out2 : in", split=split)


def other_layout(layout: Layout, rank: Any) -> Any:
    return cp.build(Layout.parse(": out : in", {"out": 3, "in": 2}), 2)


def half_a_bond(layout: Layout, rank: Any) -> Any:
    return replace(cp.build(layout, 2), bonds={"r": 2.5})


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda layout, rank: 1 / 0, "rank 1 does not fit parameterization 'mine'.*ZeroDivisionError"),
        (lambda layout, rank: None, "build of parameterization 'mine' returned NoneType None; expected a Network"),
        (other_layout, r"returned a network over ': out : in' \(3, 2\); expected a Network over"),
        (half_a_bond, "in which bond 'r' would be 2.5; expected one whole number"),
    ],
)
def test_a_build_that_gives_no_network_is_refused(build: Any, says: str) -> None:
    mine = SimpleNamespace(__name__="x.mine", build=build, count=cp.count, oracle=cp.oracle)
    with pytest.raises(ta.TensorAdaptError, match=says):
        ta.plan(MODEL, mine, rank=1, layout=": out : in")
