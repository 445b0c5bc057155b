"""attach, merge and detach on real model classes: attach changes no output, detach leaves no trace."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from support.families import FIRST, PLANNED, planned
from support.models import (
    FAMILIES,
    GROUPED,
    RENAMED,
    assert_identical,
    inputs,
    logical,
    logits,
    make,
    perturb,
    weights_with_deltas,
)
from torch import Tensor, nn
from torch.func import functional_call

import tensoradapt as ta
from tensoradapt.errors import TensorAdaptError

pytestmark = pytest.mark.usefixtures("double")
COMBINATIONS = [
    pytest.param(name, parameterization, mismatch, id=f"{name}-{parameterization}-{mismatch}")
    for name in FAMILIES
    for parameterization in (PLANNED if name in ("bert", "gpt2", "qwen2") else ["cp"] if name in RENAMED else FIRST)
    for mismatch in (("split", "crop") if name in GROUPED else ("split",))
]
every_combination = pytest.mark.parametrize(("name", "parameterization", "mismatch"), COMBINATIONS)
every_model = pytest.mark.parametrize("name", FAMILIES)


@dataclass
class Setup:
    """A model with an adapter on all projections, and the same model as it was before."""

    name: str
    base: nn.Module
    model: nn.Module
    adapter: ta.Adapter

    def base_output(self) -> Tensor:
        return output(self.base, self.name)

    def is_base(self, found: Tensor) -> bool:
        """Bit for bit; torch picks other kernels for frozen weights, which an attached model has."""
        if torch.equal(found, self.base_output()):
            return True
        frozen = copy.deepcopy(self.base).requires_grad_(False)
        return torch.equal(found, output(frozen, self.name))

    def output(self) -> Tensor:
        return output(self.model, self.name)

    def expected(self) -> Tensor:
        weights = weights_with_deltas(self.base, self.adapter)
        return logits(functional_call(self.base, weights, (), inputs(self.name), tie_weights=False)).detach()


def output(model: nn.Module, name: str) -> Tensor:
    torch.manual_seed(6)  # the same dropout at every call in train mode
    return logits(model(**inputs(name, next(model.parameters()).dtype))).detach()


def attached(
    name: str,
    parameterization: str = "lora",
    mismatch: str = "split",
    train: tuple[str, ...] = (),
    dtype: torch.dtype = torch.float64,
) -> Setup:
    model, base = make(name, dtype), make(name, dtype)
    sites = ta.find_sites(model, "all")
    plan = planned(sites, parameterization, rank=3, on_mismatch=mismatch, train=train)
    return Setup(name, base, model, ta.attach(model, plan, seed=7))


@pytest.mark.thorough
@every_combination
def test_attach_leaves_the_output_and_detach_the_model_bit_for_bit(
    name: str, parameterization: str, mismatch: str
) -> None:
    setup = attached(name, parameterization, mismatch)
    assert setup.is_base(setup.output())
    perturb(setup.adapter)
    assert ta.detach(setup.model) is setup.adapter
    assert_identical(setup.model, setup.base)
    assert torch.equal(setup.output(), setup.base_output())


@pytest.mark.thorough
@every_combination
def test_a_perturbed_adapter_is_the_base_with_deltas_in_its_weights(
    name: str, parameterization: str, mismatch: str
) -> None:
    setup = attached(name, parameterization, mismatch)
    perturb(setup.adapter)
    expected = setup.expected()
    assert (expected - setup.base_output()).abs().max() > 1e-3
    torch.testing.assert_close(setup.output(), expected, rtol=0, atol=1e-10)
    ta.merge(setup.model)
    torch.testing.assert_close(setup.output(), expected, rtol=0, atol=1e-10)
    ta.unmerge(setup.model)
    torch.testing.assert_close(setup.output(), expected, rtol=0, atol=1e-10)


@pytest.mark.thorough
@every_combination
def test_each_trainable_number_is_held_once(name: str, parameterization: str, mismatch: str) -> None:
    head = FAMILIES[name].head
    setup = attached(name, parameterization, mismatch, train=(head,))
    plan, model = setup.adapter.plan, setup.model
    trainable = {key: p for key, p in model.named_parameters(remove_duplicate=False) if p.requires_grad}
    assert sum(p.numel() for p in trainable.values()) == plan.n_params + plan.n_trained_base
    assert {key for key in trainable if not key.startswith("tensoradapt.")} == {
        f"{head}.{key}" for key, _ in setup.base.get_submodule(head).named_parameters()
    }
    assert plan.n_params == setup.adapter.n_params > 0
    own, before = (
        [value.data_ptr() for value in one.state_dict().values() if value.numel()] for one in (model, setup.base)
    )
    assert len(own) - len(set(own)) == len(before) - len(set(before))  # T5's embeddings and head are one
    assert len(trainable) == len({id(p) for p in trainable.values()})


FEW = ("bert", "gpt2", "qwen2")  # which are read in each mode by the fast tier; the others by the nightly one
MODES = [
    pytest.param(name, mode, id=f"{name}-{mode}", marks=() if mode == "train" or name in FEW else pytest.mark.nightly)
    for name in FAMILIES
    for mode in ("train", "eval", "no_grad")
]


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "mode"), MODES)
def test_each_perturbed_site_alone_changes_the_output(name: str, mode: str) -> None:
    setup = attached(name)
    for model in (setup.model, setup.base):
        model.train(mode == "train")
    before = setup.output()
    assert setup.is_base(before)
    with torch.set_grad_enabled(mode != "no_grad"):
        for group, tensor in zip(setup.adapter.plan.groups, setup.adapter.tensors, strict=True):
            (member,) = group.members  # LoRA ties nothing: a tensor is a site
            b = tensor.factors["B"]
            with torch.no_grad():
                b.normal_(generator=torch.Generator().manual_seed(8))
            assert (setup.output() - before).abs().max() > 1e-9, member.site.name
            with torch.no_grad():
                b.zero_()
    assert torch.equal(setup.output(), before)


@every_model
def test_gradients_are_those_of_the_base_with_deltas_in_its_weights(name: str) -> None:
    setup = attached(name, "cp")
    perturb(setup.adapter)
    factors = list(setup.adapter.parameters())
    found = torch.autograd.grad(logits(setup.model(**inputs(name))).square().sum(), factors)
    deltas = {site.name: setup.adapter.delta(site) for site in setup.adapter.plan.sites}
    weights = {key: w.requires_grad_() for key, w in weights_with_deltas(setup.base, setup.adapter).items()}
    loss = logits(functional_call(setup.base, weights, (), inputs(name), tie_weights=False)).square().sum()
    used = {key: weights[key] for key in {site.key for site in setup.adapter.plan.sites}}
    slopes = dict(zip(used, torch.autograd.grad(loss, list(used.values())), strict=True))
    through = sum(
        (deltas[site.name] * logical(setup.base, site, slopes)[site.block]).sum() for site in setup.adapter.plan.sites
    )
    for one, other in zip(found, torch.autograd.grad(through, factors), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9 * float(other.abs().max()))


@every_model
def test_a_disabled_adapter_is_the_base_model(name: str) -> None:
    setup = attached(name)
    perturb(setup.adapter)
    with ta.disabled(setup.model):
        assert setup.is_base(setup.output())
    assert not torch.equal(setup.output(), setup.base_output())


@pytest.mark.thorough
@every_model
def test_ten_merges_into_bfloat16_give_every_bit_back(name: str) -> None:
    setup = attached(name, "tucker", dtype=torch.bfloat16)
    perturb(setup.adapter)
    for _ in range(10):
        ta.merge(setup.model)
        ta.unmerge(setup.model)
    ta.merge(setup.model)
    ta.detach(setup.model)  # a merged model is unmerged first
    assert_identical(setup.model, setup.base)


@every_model
def test_merging_sums_in_fp32_and_rounds_once(name: str) -> None:
    torch.set_default_dtype(torch.float32)
    setup = attached(name, dtype=torch.bfloat16)
    perturb(setup.adapter)
    wide = weights_with_deltas(copy.deepcopy(setup.base).float(), setup.adapter)
    ta.merge(setup.model, keep=False)
    ta.detach(setup.model)
    for key, weight in setup.model.named_parameters():
        assert torch.equal(weight, wide[key].bfloat16()), key


@every_model
def test_merging_without_keeping_leaves_a_plain_model_with_the_updates(name: str) -> None:
    setup = attached(name)
    perturb(setup.adapter)
    expected = setup.expected()
    ta.merge(setup.model, keep=False)
    ta.detach(setup.model)
    assert list(setup.model.state_dict()) == list(setup.base.state_dict())
    assert str(setup.model) == str(setup.base)
    torch.testing.assert_close(setup.output(), expected, rtol=0, atol=1e-10)


@every_model
def test_detach_restores_a_trained_head(name: str) -> None:
    head = FAMILIES[name].head
    setup = attached(name, train=(head,))
    for parameter in setup.model.get_submodule(head).parameters():
        parameter.data.add_(1.0)
    assert not torch.equal(setup.output(), setup.base_output())
    ta.detach(setup.model)
    assert_identical(setup.model, setup.base)


@every_model
def test_flags_frozen_before_attach_are_frozen_after_detach(name: str) -> None:
    model = make(name)
    for i, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(i % 2 == 0)
    base = copy.deepcopy(model)
    ta.attach(model, ta.plan(model, method="cp", rank=2))
    ta.detach(model)
    assert_identical(model, base)


@every_model
def test_fp32_factors_on_a_bfloat16_base_give_bfloat16_outputs_and_fp32_gradients(name: str) -> None:
    torch.set_default_dtype(torch.float32)
    setup = attached(name, dtype=torch.bfloat16)
    perturb(setup.adapter, std=0.5)
    found = logits(setup.model(**inputs(name, torch.bfloat16)))
    assert found.dtype == torch.bfloat16
    found.float().square().sum().backward()
    factors = dict(setup.adapter.named_parameters())
    assert {p.dtype for p in factors.values()} == {p.grad.dtype for p in factors.values()} == {torch.float32}
    assert [key for key, p in factors.items() if not p.grad.count_nonzero()] == []


@pytest.mark.parametrize("merged", [False, True])
def test_merge_and_unload_leaves_a_plain_model_that_computes_the_same(merged: bool, tmp_path: Path) -> None:
    model = make("bert").eval()
    names, flags = list(model.state_dict()), {key: p.requires_grad for key, p in model.named_parameters()}
    adapter = ta.attach(model, ta.plan(model, "layer proj : out : in", "cp", 3, train=("classifier",)))
    perturb(adapter)
    perturb(model.classifier)
    ids = inputs("bert")
    with torch.no_grad():
        expected = model(**ids).logits
        if merged:
            ta.merge(model)
        assert ta.merge_and_unload(model) is model
        assert list(model.state_dict()) == names and not ta.adapters(model)
        assert {key: p.requires_grad for key, p in model.named_parameters()} == flags
        torch.testing.assert_close(model(**ids).logits, expected, rtol=0, atol=1e-9)
        model.save_pretrained(tmp_path)
        again = type(model).from_pretrained(tmp_path).eval()
        torch.testing.assert_close(again(**ids).logits, model(**ids).logits, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (("cp",), {"rank": 2}),
        (("cp", 2), {}),
        (("cp", "layer proj : out : in", 2), {}),
        ((ta.AdapterSpec("cp", rank=2),), {}),
        ((), {"method": "cp", "rank": 2}),
    ],
)
def test_what_plan_takes_attach_takes(given: tuple[Any, ...], named: dict[str, Any]) -> None:
    model = make("bert")
    planned = ta.plan(model, *given, **named)
    adapter = ta.attach(model, *given, **named, seed=3, name="mine")
    assert adapter.n_params == planned.n_params and adapter.seed == 3
    assert list(ta.adapters(model)) == ["mine"]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda model, plan: ta.attach("tiny-random-bert", "cp", rank=2), "expected a module with weights"),
        (lambda model, plan: ta.attach(model, plan, rank=4), "rank was given with a plan, which has its settings"),
        (lambda model, plan: ta.attach(model), "no method was given"),
        (
            lambda model, plan: ta.attach(model, ["cp", "lora"], rank=2),
            "a list of methods was given, cp, lora; expected one, as",
        ),
        (lambda model, plan: ta.attach(model, "cp", rnak=2), 'did you mean "rank"'),
    ],
)
def test_what_is_no_model_or_given_twice_is_refused(call: Any, says: str) -> None:
    model = make("bert")
    with pytest.raises(ta.TensorAdaptError, match=says):
        call(model, ta.plan(model, "cp", rank=2))
    assert not ta.adapters(model)


def _plans(model: torch.nn.Module, train: tuple[str, ...] = ()) -> list[ta.Plan]:
    sites = ta.find_sites(model)
    return [ta.plan(sites, "lora", rank=1, train=train), ta.plan(sites, "cp", "layer : out : in", rank=3, train=train)]


def test_plans_of_a_list_are_attached_and_trained_together_and_their_updates_are_added() -> None:
    model = make("bert")
    adapters = ta.attach(model, _plans(model), seed=4)
    assert list(ta.adapters(model)) == ["lora", "cp"] and [one.seed for one in adapters] == [4, 5]
    before = [[p.detach().clone() for p in one.parameters()] for one in adapters]
    ta.fit(model, [{**inputs("bert"), "labels": torch.tensor([0, 1])}] * 2, lr=1e-2, steps=2)
    for one, old in zip(adapters, before, strict=True):
        assert any(not torch.equal(p, q) for p, q in zip(one.parameters(), old, strict=True))
    found, alone = model.eval()(**inputs("bert")).logits, make("bert")
    for site in adapters[0].plan.sites:
        alone.get_submodule(site.module).weight.data += sum(one.delta(site) for one in adapters).detach()
    assert torch.allclose(found, alone(**inputs("bert")).logits, atol=1e-9)


@pytest.mark.parametrize(
    "names, message",
    [
        (["a"], "name is ['a'] for 2 plans; expected a name of its own for each"),
        (["a", "a"], "name is ['a', 'a'] for 2 plans"),
        ("default", "adapters 'lora' and 'cp' both trained"),
    ],
)
def test_a_list_of_plans_that_does_not_fit_leaves_the_model_as_it_was(names: object, message: str) -> None:
    model = make("bert")
    with pytest.raises(TensorAdaptError, match=re.escape(message)):
        ta.attach(model, _plans(model, ("classifier",)), name=names)
    assert_identical(model, make("bert"))
