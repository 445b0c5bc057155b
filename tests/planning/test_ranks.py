"""rank_pattern: some tensors have ranks of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.models import inputs, make, perturb

import tensoradapt as ta

FREE, TIED = ": out : in", "layer proj : head dim : model"


def ranks(plan: ta.Plan) -> dict[str, Any]:
    return {member.site.name.removeprefix("bert.encoder."): g.rank for g in plan.groups for member in g.members}


def test_a_tensor_has_the_rank_of_the_pattern_that_its_sites_match_and_the_others_the_plans() -> None:
    sites = ta.find_sites(make("bert"), ("q", "v"))
    plan = ta.plan(sites, FREE, "lora", 3, rank_pattern={"*.layer.0.*": 2, "*.[12].*value": 5})
    assert ranks(plan) == {
        f"layer.{n}.attention.self.{name}": 2 if n == 0 else 5 if name == "value" else 3
        for n in range(3)
        for name in ("query", "value")
    }
    assert plan.n_params == (2 * 2 + 2 * 3 + 2 * 5) * (30 + 30)


def test_tensors_of_one_layout_and_several_ranks_are_trained_saved_and_merged(tmp_path: Path) -> None:
    model, again = make("bert"), make("bert")
    plan = ta.plan(model, "proj : head dim : model", "cp", 2, rank_pattern={"*.layer.1.*": 4})
    adapter = ta.attach(model, plan)
    perturb(adapter)
    adapter.save(tmp_path)
    assert [group.rank for group in ta.load(again, tmp_path).plan.groups] == [2, 4, 2]
    with torch.no_grad():
        found, expected = (one(**inputs("bert")).logits for one in (again, model))
        ta.merge(model)
        merged = model(**inputs("bert")).logits
    assert torch.equal(found, expected)
    torch.testing.assert_close(merged, expected, rtol=0, atol=1e-6)


REFUSED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "nothing": (
        {"layout": FREE, "rank_pattern": {"*.layer.9.*": 2}},
        ["'*.layer.9.*' matches no site", "bert.encoder.layer.0.attention.self.query"],
    ),
    "part of a tensor": (
        {"layout": TIED, "rank_pattern": {"*.layer.0.*": 2}},
        ["matches bert.encoder.layer.0", "and not bert.encoder.layer.1", "share a tensor", "out of the layout"],
    ),
    "two ranks": (
        {"layout": FREE, "rank_pattern": {"*query": 2, "*.layer.0.*": 3}},
        ["'*query' and '*.layer.0.*' both match", "give each tensor one"],
    ),
    "no rank": ({"layout": FREE, "rank_pattern": {"*query": 0}}, ["rank_pattern of '*query' is 0"]),
    "with a budget": (
        {"layout": FREE, "rank": None, "budget": 10_000, "rank_pattern": {"*query": 2}},
        ["with budget=10000", "rank="],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_pattern_that_is_not_for_whole_tensors_is_refused(case: str) -> None:
    settings, fragments = REFUSED[case]
    with pytest.raises(ta.TensorAdaptError) as error:
        ta.plan(make("bert"), **{"method": "lora", "rank": 3, **settings})
    message = " ".join(str(error.value).split())
    assert [fragment for fragment in fragments if fragment not in message] == [], message
