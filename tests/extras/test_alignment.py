"""Alignment: against dense Jacobians and gradients, and by what it leaves as it was."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import lstsq
from support.families import FIRST, PLANNED, planned
from support.models import inputs, logical, logits, make, perturb, weights_with_deltas
from torch import Tensor, nn

import tensoradapt as ta
from tensoradapt import doors
from tensoradapt.testing.laws import float64

MAPS = "unilora" in doors.names("maps")  # of another room, which may be deleted

pytestmark = pytest.mark.usefixtures("double")
TIED = "layer proj : head dim : model"


def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """One that is not symmetric in the logits, so that no gradient vanishes."""
    found = logits(model(**batch))
    return (found * torch.linspace(-1, 1, found.shape[-1], dtype=found.dtype)).square().mean()


def dense(family: str, adapter: ta.Adapter) -> list[tuple[dict[str, Tensor], Tensor]]:
    """For each tensor the Jacobian of its sites' matrices in every factor, and the gradient in these matrices."""
    base = make(family)
    weights = weights_with_deltas(base, adapter)
    with torch.no_grad():
        for name, parameter in base.named_parameters():
            parameter.copy_(weights[name])
    loss(base, inputs(family)).backward()
    gradients = {name: p.grad for name, p in base.named_parameters() if p.grad is not None}
    found = []
    for tensor, group in zip(adapter.factored, adapter.plan.groups, strict=True):
        sites = [member.site for member in group.members]
        g = torch.cat([logical(base, site, gradients)[site.block].flatten() for site in sites])
        trained = {name: p for name, p in tensor.trained.items() if p.requires_grad}
        found.append(({name: columns(adapter, sites, p) for name, p in trained.items()}, g))
    return found


@torch.no_grad()
def columns(adapter: ta.Adapter, sites: list[Any], factor: Tensor) -> Tensor:  # (entries of sites, entries of factor)
    """The Jacobian in one factor, in which updates are linear: what each entry changes when it grows by one."""

    def changes() -> Tensor:
        return torch.cat([adapter.delta(site).flatten() for site in sites])

    start, flat, found = changes(), factor.view(-1), []
    for i in range(len(flat)):
        flat[i] += 1
        found.append(changes() - start)
        flat[i] -= 1
    return torch.stack(found, dim=1)


def share(jacobian: Tensor, gradient: Tensor) -> float:
    a, b = jacobian.numpy(), gradient.numpy()
    smallest = np.finfo(a.dtype).eps * max(a.shape)  # of singular values that count, as torch has it
    solved = lstsq(a, b, cond=smallest, lapack_driver="gelss")[0]  # gelsd fails on some with two threads
    return float(np.linalg.norm(a @ solved) / np.linalg.norm(b))


def measured(family: str, plan: ta.Plan, at_start: bool, **options: Any) -> tuple[nn.Module, ta.Adapter, Any]:
    model = make(family)
    adapter = ta.attach(model, plan)
    if not at_start:
        perturb(adapter)
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=1e-3)
    table = ta.alignment(model, inputs(family), optimizer, loss=loss)
    return model, adapter, table.set_index(["tensor", "factor"])


def check(family: str, plan: ta.Plan, at_start: bool) -> None:
    _, adapter, table = measured(family, plan, at_start)
    for number, (jacobians, gradient) in enumerate(dense(family, adapter)):
        whole = share(torch.cat(list(jacobians.values()), dim=1), gradient)
        assert math.isclose(table.loc[(number, "all"), "share"], whole, rel_tol=1e-4, abs_tol=1e-6)
        for name, jacobian in jacobians.items():
            assert math.isclose(
                table.loc[(number, name), "share"], share(jacobian, gradient), rel_tol=1e-4, abs_tol=1e-6
            )


@pytest.mark.parametrize(
    ("name", "at_start"), [*((name, False) for name in PLANNED), *((name, True) for name in FIRST)]
)
def test_shares_are_those_of_dense_projections(name: str, at_start: bool) -> None:
    check("bert", planned(ta.find_sites(make("bert"))[:2], name, rank=2), at_start)


def test_a_step_is_measured_as_it_changes_the_weights() -> None:
    family = "gpt2"
    plan = ta.plan(make(family), TIED, "tucker", 2)
    model, adapter, table = measured(family, plan, at_start=False)
    ((jacobians, gradient),) = dense(family, adapter)
    loss(model, inputs(family)).backward()
    before = {name: p.detach().clone() for name, p in adapter.factored[0].trained.items()}
    torch.optim.AdamW(adapter.parameters(), lr=1e-3).step()
    moves = {n: jacobians[n] @ (p.detach() - before[n]).flatten() for n, p in adapter.factored[0].trained.items()}
    whole = sum(moves.values())
    assert math.isclose(
        table.loc[(0, "all"), "cosine"], -float(gradient @ whole / gradient.norm() / whole.norm()), rel_tol=1e-9
    )
    for name, move in moves.items():
        row = table.loc[(0, name)]
        assert math.isclose(row["moved"], float(move.norm() / whole.norm()), rel_tol=1e-9)
        assert math.isclose(row["cosine"], -float(gradient @ move / gradient.norm() / move.norm()), rel_tol=1e-9)
    assert (table["cosine"].abs() <= table["share"] + 1e-9).all()


def test_nothing_is_left_changed() -> None:
    model = make("bert")
    adapter = ta.attach(model, TIED, "cp", rank=2)
    model.train()
    optimizer = ta.equal_steps(torch.optim.AdamW(ta.parameter_groups(model, lr=1e-3), lr=1e-3), model)
    loss(model, inputs("bert")).backward()
    optimizer.step()
    lengths = list(optimizer.equal_steps.lengths)
    kept = copy.deepcopy((model.state_dict(), optimizer.state_dict(), [p.grad for p in model.parameters()]))
    flags = [p.requires_grad for p in model.parameters()]
    other = {**inputs("bert"), "input_ids": inputs("bert")["input_ids"] * 0 + 3}
    ta.alignment(model, other, optimizer, loss=loss)
    assert (optimizer.equal_steps.lengths, optimizer.equal_steps.unchanged) == (lengths, 0)
    now = (model.state_dict(), optimizer.state_dict(), [p.grad for p in model.parameters()])
    torch.testing.assert_close(now, kept, rtol=0, atol=0)
    assert [p.requires_grad for p in model.parameters()] == flags
    assert model.training and adapter.training


def test_messages() -> None:
    model, batch = make("bert"), inputs("bert")
    with pytest.raises(ta.TensorAdaptError, match="has no adapter attached; call attach"):
        ta.alignment(model, batch)
    adapter = ta.attach(model, "lora", rank=2)
    with pytest.raises(ta.TensorAdaptError, match="expected one number with a gradient"):
        ta.alignment(model, batch)
    with pytest.raises(ta.TensorAdaptError, match=r"the optimizer lacks .* pass it all parameters"):
        ta.alignment(model, batch, torch.optim.SGD(list(adapter.parameters())[:1], lr=1.0), loss=loss)
    with pytest.raises(ta.TensorAdaptError, match=r"the loss is inf .* give another batch"):
        ta.alignment(model, batch, loss=lambda m, b: loss(m, b) * math.inf)
    assert not any(p.requires_grad for n, p in model.named_parameters() if "query.weight" in n)
    ta.merge(model)
    with pytest.raises(ta.TensorAdaptError, match="merged into the weights; call unmerge"):
        ta.alignment(model, batch, loss=loss)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "dora"}, 'has rule="dora"; plan it with rule="add"'),
        *[({"map": {"unilora": 40}}, "a map makes the adapter's factors of other numbers; plan without map=")] * MAPS,
    ],
)
def test_what_is_not_measured(options: dict[str, Any], message: str) -> None:
    model = make("bert")
    ta.attach(model, "lora", rank=2, **options)
    with pytest.raises(ta.TensorAdaptError, match=message):
        ta.alignment(model, inputs("bert"), loss=loss)


def test_at_rank_one_tucker_takes_of_the_first_gradient_what_lora_does() -> None:
    """One number that starts at zero follows one direction; a factor follows as many as LoRA's B."""

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return logits(model(**batch))[..., 0].sum()

    found = {}
    with float64():
        for name, options in (("tucker", {}), ("core", {"zero": "core"}), ("lora", {})):
            model = make("bert")
            method = "lora" if name == "lora" else "tucker"
            ta.attach(model, ta.plan(model, layout=": out : in", method=method, rank=1, options=options), seed=1)
            shares = ta.alignment(model, inputs("bert"), loss=loss)
            found[name] = torch.tensor(shares[shares["factor"] == "all"]["share"].iloc[1:].to_numpy()).mean()
    assert 0.5 < found["tucker"] / found["lora"] < 2
    assert found["core"] < found["tucker"] / 3


def test_a_model_that_was_moved_to_the_meta_device_is_refused() -> None:
    model = make("bert")
    ta.attach(model, "lora", rank=2)
    model.to("meta")
    with pytest.raises(ta.TensorAdaptError, match="the adapter was moved to the meta device, where it lost its values"):
        ta.alignment(model, inputs("bert"))
