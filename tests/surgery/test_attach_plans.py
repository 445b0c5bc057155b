"""attach plans what it is given in place of a plan, and refuses what is no model before anything changes."""

from __future__ import annotations

from typing import Any

import pytest
from support.models import make

import tensoradapt as ta


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
