"""Frozen and shared factors: what the two fields of a plan change, and what they refuse before anything is made."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from support.exports import assert_same, products, updates
from support.families import PLANNED, planned
from support.models import make, perturb

import tensoradapt as ta
from tensoradapt.networks.layout import Layout
from tensoradapt.networks.varied import varied
from tensoradapt.planning.spec import AdapterSpec

LAYERS = "layer : out : in"
MATRIX = "layer proj : out : in"
BOTH = ("layer proj : head dim : model", "layer proj : ff : model")


def equations(**given: Any) -> list[str]:
    planned = ta.plan(make("bert").config, **{"rank": 2, **given})
    return list(dict.fromkeys(group.network.equation for group in planned.groups))


@pytest.mark.parametrize(
    ("given", "equation"),
    [
        ({"shared": {"A": "layer"}}, "A[r in] B[layer out r] -> layer out in"),
        ({"shared": {"B": ["layer"]}}, "A[layer r in] B[out r] -> layer out in"),
        (
            {"layout": MATRIX, "shared": {"A": ["layer", "proj"], "B": "proj"}},
            None,
        ),
        (
            {"layout": MATRIX, "shared": {"A": ["layer", "proj"]}},
            "A[r in] B[layer proj out r] -> layer proj out in",
        ),
        (
            {"layout": MATRIX, "shared": {"A": "layer", "B": "proj"}},
            "A[proj r in] B[layer out r] -> layer proj out in",
        ),
        (
            {"layout": "(layer proj) : out : in", "shared": {"A": "layer_proj"}},
            "A[r in] B[layer_proj out r] -> layer_proj out in",
        ),
    ],
)
def test_a_shared_factor_leaves_out_index_modes(given: dict[str, Any], equation: str | None) -> None:
    call = {"method": "lora", "layout": LAYERS, **given}
    if equation is None:
        with pytest.raises(ta.TensorAdaptError, match="leaves 'proj' out of A, B, all that have it"):
            equations(**call)
    else:
        assert equations(**call) == [equation]


def test_a_factor_that_some_tensors_lack_is_frozen_in_the_others() -> None:
    plan = ta.plan(make("bert"), "cp", BOTH, 2, projections="all", frozen=["head"], train=())
    attention, mlp = (group.network for group in plan.groups)
    assert [f.name for f in attention.factors if not f.trainable] == ["head"]
    assert [f.name for f in mlp.factors if not f.trainable] == []
    assert attention.n_params == 2 * (3 + 4 + 6 + 30)


def test_a_published_rows_own_changes_are_kept_beside_others() -> None:
    row = {"method": "sharelora-a", "paper": True}
    assert equations(**row) == ["A[r in] B[layer out r] -> layer out in"]
    plan = ta.plan(make("bert"), rank=2, frozen=["A"], **row)
    assert [(f.name, f.labels, f.trainable) for f in plan.groups[0].network.factors] == [
        ("A", ("r", "in"), False),
        ("B", ("layer", "out", "r"), True),
    ]
    assert "frozen: A (drawn)" in str(plan)
    assert "shared: A over layer" in str(ta.plan(make("bert"), "lora", LAYERS, 2, shared={"A": "layer"}))


def test_the_fields_have_one_form() -> None:
    given = [AdapterSpec("lora", frozen=how) for how in ("A", ["A"], {"A": "drawn"})]
    assert {spec.frozen for spec in given} == {("A",)}
    assert AdapterSpec("lora", shared={"A": "layer"}) == AdapterSpec("lora", shared={"A": ["layer"]})
    assert (AdapterSpec("lora").frozen, AdapterSpec("lora").shared) == (None, None)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"frozen": "a"}, "frozen names 'a', no factor; did you mean \"A\"? Valid: A, B"),
        (
            {"frozen": {"A": "one"}},
            "frozen of 'A' is 'one'; did you mean \"ones\"? Valid: drawn, ones, identity, shift",
        ),
        (
            {"frozen": "B"},
            "frozen names 'B', the factor that starts at zero, so that the update would stay zero; freeze 'A'",
        ),
        ({"frozen": ["A", "B"]}, "frozen names every trained factor of A[layer r in] B[layer out r] -> layer out in"),
        ({"frozen": {"A": "shift"}, "layout": ": out : in"}, "factor 'A' with source='set' has trainable=False"),
        ({"shared": {"A": "layr"}}, "shared names 'layr' for factor 'A', no index mode of it; did you mean \"layer\"?"),
        (
            {"shared": {"A": "in"}},
            "shared names 'in' for factor 'A', which is no index mode of layout 'layer : out : in'",
        ),
        ({"shared": {"A": "layer", "B": "layer"}}, "shared leaves 'layer' out of A, B, all that have it"),
        (
            {"shared": {"A": "layer"}, "layout": ": out : in"},
            "it has none over these layouts: the matrices that share it",
        ),
        (
            {"shared": {"A": "layer"}, "method": "vera"},
            "shared names 'layer' for factor 'A', no index mode of it; it has",
        ),
        (
            {"shared": {"A": "layer"}, "start": "gradient"},
            "factor 'A' is shared over layer and would start from the gradient",
        ),
        (
            {"shared": {"A": "layer"}, "method": "pissa"},
            "factor 'A' is shared over layer and would start from the base",
        ),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ta.TensorAdaptError, match=re.escape(says)):
        ta.plan(make("bert"), **{"method": "lora", "layout": LAYERS, "rank": 2, **given})


@pytest.mark.parametrize(("method", "kind"), [("lora-fa", "frozen"), ("sharelora-a", "shared")])
def test_compress_refuses_both_in_a_line(method: str, kind: str) -> None:
    model = make("bert")
    sites = ta.find_sites(model, ("q", "v"))
    given = {site.name: torch.ones(site.out, site.in_).numpy() for site in sites}
    with pytest.raises(ta.TensorAdaptError, match=f"method '{method}' has the {kind} factor 'A'.*cannot take on"):
        ta.compress(given, sites, method=method, rank=2)


def test_networks_are_not_changed_in_place() -> None:
    plain = ta.parameterizations.get("cp").build(Layout.parse("layer : out : in", {"layer": 2, "out": 3, "in": 4}), 2)
    before = repr(plain)
    assert varied(plain) == plain and varied(plain, ["layer"]) != plain
    assert repr(plain) == before


def variation(plan: ta.Plan) -> dict[str, Any]:
    """The first drawn factor frozen, and the first index mode that two factors have left out of one of them."""
    network = plan.groups[0].network
    free = [f for f in network.factors if f.trainable and f.init != "zero"]
    given: dict[str, Any] = {"frozen": [f.name for f in free[:1]]}
    for mode in (mode.name for mode in network.layout.index):
        holders = [f.name for f in network.factors if mode in f.labels and f.source == "draw"]
        if len(holders) > 1:
            given["shared"] = {holders[-1]: mode}
    return given


VARIED = [name for name in PLANNED if name not in ("block_circulant", "lora_xs", "shared_block", "tinylora")]


@pytest.mark.parametrize("name", VARIED)
def test_an_export_and_a_loaded_adapter_have_the_updates(name: str, tmp_path: Path) -> None:
    base, model = make("bert"), make("bert")
    layouts = ta.parameterizations.layouts_of(name)
    tied = {"layout": tuple(t if t.split(":")[0].strip() else f"layer proj {t}" for t in layouts)}
    sites = ta.find_sites(model, ("q", "v"))
    given = variation(planned(sites, name, rank=2, **tied))
    assert given["frozen"]
    adapter = ta.attach(model, planned(sites, name, rank=2, train=(), **tied, **given), seed=3)
    perturb(adapter)
    adapter.save(tmp_path / "own")
    loaded = ta.load(make("bert"), tmp_path / "own")
    assert all(torch.equal(loaded.delta(site), adapter.delta(site)) for site in adapter.plan.sites)
    ta.export_lora(model, tmp_path / "lora")
    assert_same(products(tmp_path / "lora"), updates(adapter, base), 1e-6)  # in float32
