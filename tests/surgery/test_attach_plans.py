"""attach plans what it is given in place of a plan, and refuses what is no model before anything changes."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from support.models import assert_identical, inputs, make

import tensoradapt as ta
from tensoradapt.errors import TensorAdaptError


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


@pytest.mark.usefixtures("double")
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
