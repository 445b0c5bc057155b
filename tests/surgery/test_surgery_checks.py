"""Checks of attach, merge and load: an error says why, and the model is as it was."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import families
from support.families import PLANNED, RANKLESS
from support.models import assert_identical, inputs, make, perturb
from torch import nn

import tensoradapt as ta
from tensoradapt.adapter import checkpoint
from tensoradapt.surgery import attach as attach_module
from tensoradapt.surgery import memory
from tensoradapt.testing.laws import float64


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


def on_meta(model: nn.Module, **asked: Any) -> ta.Plan:
    model.bert.encoder.layer[1].attention.self.query.to("meta")
    return ta.plan(model, rank=2, **(asked or {"method": "lora", "paper": True}))


class Scaled(nn.Linear):
    """A layer of codes that knows their scale."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight.to(x) * 0.25, self.bias)


def coded(model: nn.Module, **asked: Any) -> ta.Plan:
    query = model.bert.encoder.layer[1].attention.self.query
    query.__class__, codes = Scaled, (query.weight.detach() * 4).to(torch.float8_e4m3fn)
    query.weight = nn.Parameter(codes, requires_grad=False)
    return ta.plan(model, rank=2, **asked)


class Packed(torch.Tensor):
    """A tensor that could hold its values in any way."""


def packed(model: nn.Module) -> ta.Plan:
    query = model.bert.encoder.layer[1].attention.self.query
    query.weight = nn.Parameter(query.weight.detach().as_subclass(Packed))
    return ta.plan(model, method="pissa", paper=True, rank=2)


def trained_and_adapted(model: nn.Module) -> ta.Plan:
    return planned(model, train=("bert.encoder",))


def trained_unknown(model: nn.Module) -> ta.Plan:
    return dataclasses.replace(planned(model), train=("clasifier",))


REFUSED: dict[str, tuple[Callable[[nn.Module], ta.Plan], dict[str, Any], list[str]]] = {
    "seed below 0": (planned, {"seed": -1}, ["seed is -1", "whole number from 0"]),
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
    "a module of another kind": (kind_of_q, {}, ["query is a Bilinear", "expected one of Linear, Conv1D", "exclude="]),
    "quantised weights": (
        dtype_of_q,
        {},
        ["query holds torch.int8 weights", "expected floating point", "Dequantise the model first", "exclude=[...]"],
    ),
    "bases from codes": (
        lambda model: coded(model, method="lora-xs", paper=True),
        {},
        [
            "layer.1.attention.self.query holds its weight as a torch.nn.parameter.Parameter of torch.float8_e4m3fn",
            "lora-xs with start='paper' takes factors from the base weights, and needs a plain floating point",
            "Dequantise the model first (load it without its quantisation), or plan a method that needs no base",
            'such as method="lora" or method="cp"',
        ],
    ),
    "first gradients of codes": (
        lambda model: coded(model, method="lora", paper=True, start="gradient"),
        {"batches": [{}]},
        ["torch.float8_e4m3fn", "start='gradient' takes the first gradients", 'or plan with start="zero"'],
    ),
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


META = "query is on the meta device.*; load the weights first, with from_pretrained or model.load_state_dict"


@pytest.mark.parametrize(
    ("make_plan", "says"),
    [
        *(
            (lambda model, name=name: on_meta(model, method=name, paper=True), META)
            for name in ("lora", "vera", "lora-xs")
        ),
        (packed, r"layer.1.attention.self.query holds its weight as a test_surgery_checks.Packed of torch.float64;"),
    ],
)
def test_weights_without_readable_values_are_refused_and_nothing_changes(make_plan: Any, says: str) -> None:
    model = make("bert")
    plan = make_plan(model)
    before = str(model), [(name, id(p), p.requires_grad) for name, p in model.named_parameters()]
    with pytest.raises(ta.TensorAdaptError, match=says):
        ta.attach(model, plan)
    assert (str(model), [(name, id(p), p.requires_grad) for name, p in model.named_parameters()]) == before


def test_load_refuses_a_base_on_the_meta_device(tmp_path: Path) -> None:
    model = make("bert")
    ta.attach(model, planned(model)).save(tmp_path)
    other = make("bert").to("meta")
    with pytest.raises(ta.TensorAdaptError, match=META):
        ta.load(other, tmp_path)


def test_codes_take_an_adapter_that_needs_no_weights_and_refuse_to_be_merged_with_it() -> None:
    model = make("bert")
    plan = coded(model, method="lora", paper=True)
    twin = copy.deepcopy(model)
    for module in [module for module in twin.modules() if isinstance(module, Scaled)]:
        module.__class__, module.weight = nn.Linear, nn.Parameter(module.weight.double() * 0.25)
    adapter, other = ta.attach(model, plan), ta.attach(twin, plan)
    perturb(adapter)
    perturb(other)
    torch.testing.assert_close(model(**inputs("bert")).logits, twin(**inputs("bert")).logits)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(
        ta.TensorAdaptError, match=r"query holds .*float8_e4m3fn; merge needs a plain.*Dequantise.*unmerged"
    ):
        ta.merge(model)
    after = model.state_dict()
    assert [key for key in before if not torch.equal(after[key].double(), before[key].double())] == []
    assert not adapter.gate.merged


def stored(plan: ta.Plan) -> list[dict[str, Any]]:
    """Values of all that the plan's tensors store, as they would be drawn."""
    tensors = ta.Adapter(plan).factored
    return [{f.name: t.factors[f.name].detach() for f in t.network.factors if f.trainable} for t in tensors]


Q = "site bert.encoder.layer.0.attention.self.query"
Values = list[dict[str, Any]]
VALUES: dict[str, tuple[Callable[[Values], Any], list[str]]] = {
    "NaN": (
        lambda good: [{**good[0], "head": good[0]["head"] * math.nan}],
        [f"{Q}: factor 'head' has non-finite entries; expected finite numbers of shape (5, 2), head=5 x r=2"],
    ),
    "another bond": (
        lambda good: [{**good[0], "head": good[0]["head"][:, :1]}],
        [f"{Q}: factor 'head' has shape (5, 1); expected finite numbers of shape (5, 2), head=5 x r=2"],
    ),
    "two zero factors": (
        lambda good: [{**good[0], "head": good[0]["head"] * 0}],
        [f"{Q}: the tensor ", "has no first step", "head, dim are zero"],
    ),
    "a factor too few": (
        lambda good: [{k: v for k, v in good[0].items() if k != "dim"}],
        [f"values of the tensor of {Q} lack factor 'dim' of shape (6, 2), dim=6 x r=2", "expected all of layer, proj"],
    ),
    "no tensors": (lambda _: [], ["values= holds 0 mappings, and the plan has 1 tensor; expected a list"]),
    "a mapping alone": (lambda good: good[0], ["values= is a dict, and the plan has 1 tensor;", "a mapping of factor"]),
    "whole numbers": (
        lambda good: [{**good[0], "head": np.ones((5, 2), int)}],
        ["'head' is a ndarray of int64", "expected a floating point tensor or numpy array"],
    ),
}


@pytest.mark.parametrize("case", VALUES)
def test_values_that_do_not_fit_the_plan_are_refused_and_change_nothing(case: str) -> None:
    change, fragments = VALUES[case]
    model = make("bert")
    plan = planned(model)
    with pytest.raises(ta.TensorAdaptError) as error:
        ta.attach(model, plan, values=change(stored(plan)))
    assert [fragment for fragment in fragments if fragment not in str(error.value)] == [], str(error.value)
    assert_identical(model, make("bert"))


@pytest.mark.parametrize("name", PLANNED)
def test_an_adapters_own_factors_make_its_updates_again(name: str) -> None:
    model = make("bert")
    plan = families.planned(ta.find_sites(model)[:4], name, **({} if name in RANKLESS else {"rank": 2}))
    with float64():
        adapter = ta.attach(model, plan, seed=3)
        perturb(adapter)
        expected = [adapter.delta(site).detach() for site in plan.sites]
        ta.detach(model)
        every = [{name: value.detach() for name, value in t.factors.items()} for t in adapter.factored]
        drawn = [{f.name for f in group.network.frozen_draws} for group in plan.groups]
        stored = [{k: v for k, v in one.items() if k not in left} for one, left in zip(every, drawn, strict=True)]
        for values in (stored, every):
            again = ta.attach(model, plan, seed=3, values=values)
            torch.testing.assert_close([t.scale for t in again.factored], [t.scale for t in adapter.factored])
            torch.testing.assert_close([again.delta(site).detach() for site in plan.sites], expected)
            ta.detach(model)


def test_a_matched_scale_counts_given_frozen_factors() -> None:
    model = make("bert")
    plan = ta.plan(ta.find_sites(model, ("q",)), ": out : in", "vera", 4)
    drawn = ta.attach(model, plan).factored
    ta.detach(model)
    values = [{name: 5 * t.factors[name].detach() for name in ("A", "B")} for t in drawn]
    found = ta.attach(model, plan, values=values).factored
    assert [t.scale for t in found] == pytest.approx([t.scale / 25 for t in drawn], rel=1e-5)


def test_an_adapter_in_place_of_a_plan_is_refused_and_comes_back_as_the_error_says(tmp_path: Path) -> None:
    model = make("bert")
    adapter = ta.attach(model, planned(model, train="classifier"))
    perturb(adapter)
    nn.init.normal_(model.classifier.weight)
    expected = model(**inputs("bert")).logits
    ta.detach(model)
    with pytest.raises(ta.TensorAdaptError, match=r"is an Adapter; expected a plan.*save\(folder\), then load\("):
        ta.attach(model, adapter)
    adapter.save(tmp_path)
    ta.load(model, tmp_path)
    assert torch.equal(model(**inputs("bert")).logits, expected)


def test_a_second_attach_is_refused_and_leaves_the_first_alone() -> None:
    model = make("bert")
    plan = planned(model)
    first = ta.attach(model, plan)
    before = copy.deepcopy(model)
    with pytest.raises(ta.TensorAdaptError, match="or call detach"):
        ta.attach(model, plan)
    assert_identical(model, before)
    assert ta.detach(model) is first


@pytest.mark.parametrize("call", [ta.detach, ta.merge, lambda one: ta.export_lora(one, "out"), lambda one: fitted(one)])
def test_an_adapter_in_the_place_of_its_model_is_refused(call: Callable[[nn.Module], Any]) -> None:
    with pytest.raises(ta.TensorAdaptError, match="model is an Adapter; expected the model that it is attached to"):
        call(ta.attach(make("bert"), "cp", rank=2))


def fitted(model: nn.Module) -> Any:
    return ta.fit(model, [{}], lr=1e-3, steps=1)


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
    assert not adapter.gate.merged


@pytest.mark.parametrize("method", ["lora", "vera", "lora-xs"])
def test_what_does_not_fit_into_the_memory_is_refused_before_it_is_allocated(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make("bert")
    base, plan = copy.deepcopy(model), ta.plan(model, method=method, paper=True, rank=2, train=())
    saved = ta.attach(model, plan)
    saved.save(tmp_path)
    held = [*saved.parameters(), *(b for name, b in saved.named_buffers() if "share" not in name)]
    ta.detach(model)
    needed = sum({value.data_ptr(): value.nbytes for value in held}.values())
    monkeypatch.setattr(memory, "free_memory", lambda _: needed)
    ta.attach(model, plan)
    ta.detach(model)
    monkeypatch.setattr(memory, "free_memory", lambda _: needed - 1)
    monkeypatch.setattr(attach_module, "Adapter", lambda *_: pytest.fail("allocated"))
    monkeypatch.setattr(checkpoint, "_tensors", lambda *_: pytest.fail("read"))
    for call in (lambda: ta.attach(model, plan), lambda: ta.load(model, tmp_path)):
        with pytest.raises(ta.TensorAdaptError, match=r"needs .* for its numbers, and cpu has .* free"):
            call()
    assert_identical(model, base)


def test_a_model_with_a_lazy_layer_is_refused_before_its_first_batch() -> None:
    model = make("bert")
    plan = ta.plan(model, "lora", rank=1)
    model.extra = nn.LazyLinear(3)
    for given in ((plan,), ("lora", 1)):
        with pytest.raises(ta.TensorAdaptError, match=r"parameter extra.weight has no shape before its first batch"):
            ta.attach(model, *given)
    assert not ta.adapters(model) and all(p.requires_grad for p in model.bert.parameters())
    model.extra(torch.ones(1, 5))
    assert ta.attach(model, "lora", rank=1).n_params > 0
