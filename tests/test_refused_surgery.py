"""Surgery that is refused leaves the model as it was, and says why."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from models import assert_identical, make, perturb
from torch import nn

import tensoradapt as ta

Change = Callable[[nn.Module], dict[str, Any]]


def planned(model: nn.Module, **changes: Any) -> ta.Plan:
    return ta.plan(model, "layer proj : head dim : model", "cp", rank=2, **changes)


def of_another(name: str, **changes: Any) -> Callable[[nn.Module], ta.Plan]:
    return lambda _: planned(make(name), **changes)


def shape_of_q(model: nn.Module) -> ta.Plan:
    model.bert.encoder.layer[1].attention.self.query = nn.Linear(30, 35)
    return planned(make("bert"))


def kind_of_q(model: nn.Module) -> ta.Plan:
    model.bert.encoder.layer[1].attention.self.query = nn.Bilinear(30, 5, 30)
    return planned(make("bert"))


def dtype_of_q(model: nn.Module) -> ta.Plan:
    query = model.bert.encoder.layer[1].attention.self.query
    query.weight = nn.Parameter(torch.zeros(30, 30, dtype=torch.int8), requires_grad=False)
    return planned(make("bert"))


def trained_and_adapted(model: nn.Module) -> ta.Plan:
    return planned(model, train=("bert.encoder",))


def trained_unknown(model: nn.Module) -> ta.Plan:
    return dataclasses.replace(planned(model), train=("clasifier",))


REFUSED: dict[str, tuple[Callable[[nn.Module], ta.Plan], dict[str, Any], list[str]]] = {
    "dropout 1": (planned, {"dropout": 1.0}, ["dropout is 1.0", "from 0 up to, not including, 1"]),
    "dropout below 0": (planned, {"dropout": -0.1}, ["dropout is -0.1", "from 0 up to"]),
    "dropout NaN": (planned, {"dropout": math.nan}, ["dropout is nan", "from 0 up to"]),
    "dropout True": (planned, {"dropout": True}, ["dropout is True", "from 0 up to"]),
    "seed below 0": (planned, {"seed": -1}, ["seed is -1", "whole number from 0"]),
    "seed too large": (planned, {"seed": 2**63}, ["seed is 9223372036854775808", "up to 2**63 - 1"]),
    "seed not whole": (planned, {"seed": 1.0}, ["seed is 1.0", "whole number from 0"]),
    "the plan of another model": (
        of_another("llama"),
        {},
        [
            "site model.layers.0.self_attn.q_proj",
            "BertForSequenceClassification has no module",
            "make it from this one",
        ],
    ),
    "a module of another shape": (
        shape_of_q,
        {},
        ["layer.1.attention.self.query is 30 x 30 in the plan", "is 35 x 30", "make the plan from this model"],
    ),
    "a module of another kind": (kind_of_q, {}, ["query is a Bilinear", "expected Linear or Conv1D", "exclude="]),
    "quantised weights": (dtype_of_q, {}, ["query holds torch.int8 weights", "expected floating point"]),
    "an adapted module that is trained": (
        trained_and_adapted,
        {},
        ["train names 'bert.encoder', which holds the adapted module 'bert.encoder.layer.0", "not both"],
    ),
    "a head that is not there": (trained_unknown, {}, ["train names 'clasifier'", 'did you mean "classifier"?']),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_attach_that_is_refused_changes_nothing(case: str) -> None:
    make_plan, options, fragments = REFUSED[case]
    model = make("bert")
    plan = make_plan(model)
    before = copy.deepcopy(model)
    with pytest.raises(ta.TensorAdaptError) as error:
        ta.attach(model, plan, **options)
    assert [fragment for fragment in fragments if fragment not in str(error.value)] == [], str(error.value)
    assert_identical(model, before)


def test_a_second_attach_is_refused_and_leaves_the_first_alone() -> None:
    model = make("bert")
    plan = planned(model)
    first = ta.attach(model, plan)
    before = copy.deepcopy(model)
    with pytest.raises(ta.TensorAdaptError, match="already has an adapter attached; call detach"):
        ta.attach(model, plan)
    assert_identical(model, before)
    assert ta.detach(model) is first


def test_a_container_as_root_is_refused() -> None:
    inner = make("bert")
    plan = planned(inner)
    for root in (nn.Sequential(inner), nn.ModuleList([inner]), nn.ModuleDict({"bert": inner})):
        with pytest.raises(ta.TensorAdaptError, match=f"the root is an nn.{type(root).__name__}.*wrap it in a module"):
            ta.attach(root, plan)
    assert_identical(inner, make("bert"))


@pytest.mark.parametrize("call", [ta.detach, ta.merge, ta.unmerge, lambda model: ta.disabled(model).__enter__()])
def test_a_model_without_an_adapter_is_refused_with_what_to_do(call: Callable[[nn.Module], Any]) -> None:
    with pytest.raises(ta.TensorAdaptError, match=r"has no adapter attached; call attach\(model, plan\) first"):
        call(make("bert"))


def test_merging_twice_or_unmerging_what_is_not_or_cannot_be_is_refused() -> None:
    model = make("bert")
    ta.attach(model, planned(model))
    with pytest.raises(ta.TensorAdaptError, match="not merged; there is nothing to unmerge"):
        ta.unmerge(model)
    ta.merge(model, keep=False)
    with pytest.raises(ta.TensorAdaptError, match="already merged; call unmerge"):
        ta.merge(model)
    with pytest.raises(ta.TensorAdaptError, match="merged into the weights and cannot be disabled; call unmerge"):
        ta.disabled(model).__enter__()
    with pytest.raises(ta.TensorAdaptError, match="keep=False, so the original weights are gone; load the base model"):
        ta.unmerge(model)


def test_factors_that_are_not_finite_are_refused_before_any_weight_changes() -> None:
    model = make("bert")
    adapter = ta.attach(model, planned(model))
    perturb(adapter)
    adapter.tensors[0].factors["model"].data[3, 1] = math.nan
    weights = {name: p.detach().clone() for name, p in model.named_parameters() if not name.startswith("tensoradapt.")}
    with pytest.raises(
        ta.TensorAdaptError, match=r"tensors.0.trained.model has non-finite entries; nothing was merged"
    ):
        ta.merge(model)
    assert [n for n, p in model.named_parameters() if n in weights and not torch.equal(p, weights[n])] == []
    assert not adapter.merged


def test_a_site_the_adapter_does_not_have_is_named_with_the_closest() -> None:
    adapter = ta.Adapter(planned(make("bert")))
    with pytest.raises(ta.TensorAdaptError, match=r"layer.0.attention.self.qery' is not in this adapter; did you mean"):
        adapter.delta("bert.encoder.layer.0.attention.self.qery")


@pytest.mark.parametrize(
    "at",
    [
        {"layer": 3, "proj": 0},
        {"layer": -1, "proj": 0},
        {"layer": range(2), "proj": 0},
        {"layer": 1},
        {"layer": 1, "proj": 0, "head": 2},
        {"layer": 1, "proj": 0, "head": range(2, 2)},
        {"layer": 1, "proj": 0, "head": range(0, 6)},
        {"layer": 1, "proj": 0, "head": range(0, 4, 2)},
        {"layer": 1, "proj": 0, "heads": range(2)},
    ],
)
def test_a_position_outside_the_layout_is_refused(at: dict[str, int | range]) -> None:
    tensor = ta.Adapter(planned(make("bert"))).tensors[0]
    for ask in (tensor.delta, tensor.pair, lambda at: tensor.apply(torch.ones(30), at)):
        with pytest.raises(ta.TensorAdaptError, match=r"position .* layout 'layer proj : head dim : model'"):
            ask(at)
