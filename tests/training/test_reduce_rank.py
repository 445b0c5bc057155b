"""Rank adaptation: truncations against dense singular values, moments against autograd and unreduced trainings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorly
import torch
from support.models import inputs, make, perturb
from tensorly.decomposition import tensor_train as tt_svd
from torch import Tensor, nn

import tensoradapt as ta
from tensoradapt import parameterizations
from tensoradapt.networks.contraction import compile_program
from tensoradapt.networks.layout import Layout
from tensoradapt.networks.network import Network
from tensoradapt.training import rounding
from tensoradapt.training.reduce_rank import check_schedule, reduce_rank

pytestmark = pytest.mark.usefixtures("double")
SIZES = {"layer": 4, "proj": 3, "head": 5, "dim": 6, "model": 11, "out": 8, "in": 10}
SIZES |= {"out1": 3, "out2": 4, "in1": 5, "in2": 2}
TIED = "layer proj : head dim : model"
# the modes on one side of each bond
CASES = {
    "lora": ("lora", ": out : in", {}, {"r": ("in",)}),
    "cp-of-two-modes": ("cp", ": out : in", {}, {"r": ("in",)}),
    "tucker": ("tucker", TIED, {}, {f"r_{m}": (m,) for m in TIED.replace(":", "").split()}),
    "tucker-2": ("tucker", "layer : out : in", {"only": ("out", "in")}, {"r_out": ("out",), "r_in": ("in",)}),
    "tensor_train": (
        "tensor_train",
        TIED,
        {},
        {
            "r_model": ("model",),
            "r_layer": ("model", "layer"),
            "r_proj": ("model", "layer", "proj"),
            "r_head": ("model", "layer", "proj", "head"),
        },
    ),
    "tt_matrix": (
        "tt_matrix",
        "layer : out1 out2 : in1 in2",
        {},
        {"r_layer": ("layer",), "r_out1": ("layer", "out1", "in1")},
    ),
}
every_tree = pytest.mark.parametrize("case", CASES)
FAMILIES = ("lora", "tucker", "tensor_train", "cp")


def network_of(case: str, rank: int = 6) -> Network:
    family, layout, options, _ = CASES[case]
    return parameterizations.get(family).build(Layout.parse(layout, SIZES), rank, **options).clipped()


def drawn(network: Network, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {f.name: torch.randn(network.shape(f), generator=generator) for f in network.factors}


def dense(network: Network, values: Mapping[str, Tensor]) -> Tensor:
    program = compile_program([f.labels for f in network.factors], network.layout.names, network.sizes)
    return program.run([values[f.name] for f in network.factors], torch.einsum)


def smaller(network: Network, rank: int) -> Network:
    return replace(network, bonds={bond: min(n, rank) for bond, n in network.bonds.items()}).clipped()


def rounded(network: Network, values: Mapping[str, Tensor], small: Network, sweeps: int = 1) -> Tensor:
    made = rounding.changes(network, values, small.bonds, sweeps)
    return dense(small, rounding.changed(network, values, made))


def unfolded(network: Network, tensor: Tensor, side: tuple[str, ...]) -> Tensor:
    names = network.layout.names
    rest = [m for m in names if m not in side]
    turned = tensor.permute([names.index(m) for m in (*side, *rest)])
    return turned.reshape(turned.shape[: len(side)].numel(), -1)


@every_tree
def test_spectra_are_the_squared_singular_values_of_the_dense_tensor(case: str) -> None:
    network = network_of(case)
    values = drawn(network)
    whole = dense(network, values)
    for bond, found in rounding.spectra(network, values).items():
        sigma = torch.linalg.svdvals(unfolded(network, whole, CASES[case][3][bond]))[: len(found)]
        torch.testing.assert_close(found, sigma.square(), rtol=1e-10, atol=1e-10 * float(sigma[0]) ** 2)


@every_tree
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_truncations_error_is_within_the_bound_and_for_one_bond_it_is_it(case: str, rank: int) -> None:
    network = network_of(case)
    values, small = drawn(network), smaller(network, rank)
    whole = dense(network, values)
    lost = [float(errors[small.bonds[bond] :].sum()) for bond, errors in rounding.spectra(network, values).items()]
    error = float((rounded(network, values, small) - whole).norm())
    assert max(lost) ** 0.5 <= error * (1 + 1e-12) and error <= sum(lost) ** 0.5 * (1 + 1e-12)
    made = rounding.changes(network, values, small.bonds)
    relative = rounding.relative_error((network, values), (small, rounding.changed(network, values, made)))
    assert relative == pytest.approx(error / float(whole.norm()), rel=1e-6)
    if len(network.bonds) == 1:
        assert error == pytest.approx(sum(lost) ** 0.5, rel=1e-12)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_a_train_is_rounded_to_what_tensorlys_tt_svd_makes_of_the_dense_tensor(rank: int) -> None:
    network = network_of("tensor_train")
    values, small = drawn(network), smaller(network, rank)
    chain = [f.name for f in network.factors]
    turned = dense(network, values).permute([network.layout.names.index(m) for m in chain]).numpy()
    expected = tensorly.tt_to_tensor(tt_svd(turned, [1, *small.bonds.values(), 1]))
    found = rounded(network, values, small).permute([network.layout.names.index(m) for m in chain])
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-11 * np.abs(expected).max())


def widen(network: Network, values: Mapping[str, Tensor], rank: int, mix: bool) -> tuple[Network, dict[str, Tensor]]:
    """The same tensor with bonds of ``rank``: zero columns, or another basis of each bond besides."""
    large, generator, found = network, torch.Generator().manual_seed(9), dict(values)
    large = replace(network, bonds=dict.fromkeys(network.bonds, rank))
    for bond, n in network.bonds.items():
        basis = torch.randn(rank, rank, generator=generator) if mix else torch.eye(rank)
        ends = [f for f in network.factors if bond in f.labels]
        inverse = torch.linalg.inv(basis).T
        for factor, matrix in zip(ends, (basis[:n], inverse[:n]), strict=True):
            axis = factor.labels.index(bond)
            found[factor.name] = torch.tensordot(found[factor.name], matrix, ([axis], [0])).movedim(-1, axis)
    return large, found


@every_tree
@pytest.mark.parametrize("mix", [False, True])
def test_bonds_wider_than_the_tensor_needs_are_reduced_exactly(case: str, mix: bool) -> None:
    network = smaller(network_of(case), 2)
    values = drawn(network)
    large, wide = widen(network, values, 7, mix)
    expected = dense(network, values)
    torch.testing.assert_close(dense(large, wide), expected, rtol=0, atol=1e-10)
    found = rounded(large, wide, network)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 * float(expected.norm()) * (100 if mix else 1))


def test_cp_drops_what_adds_least_to_the_error() -> None:
    network = parameterizations.get("cp").build(Layout.parse(TIED, SIZES), 5, weights=True)
    values = drawn(network)
    whole = dense(network, values)

    def without(gone: tuple[int, ...]) -> float:
        kept = [k for k in range(5) if k not in gone]
        small = replace(network, bonds={"r": len(kept)})
        left = {f.name: values[f.name].movedim(f.labels.index("r"), -1)[..., kept] for f in network.factors}
        return float((dense(small, left) - whole).norm())

    small = replace(network, bonds={"r": 4})
    error = float((rounded(network, values, small) - whole).norm())
    assert error == pytest.approx(min(without((k,)) for k in range(5)), rel=1e-9)


def test_cp_drops_components_that_cancel_before_smaller_ones_that_do_not() -> None:
    network = parameterizations.get("cp").build(Layout.parse("layer : out : in", SIZES), 4)
    values = {name: value / value.norm(dim=0) for name, value in drawn(network).items()}
    for name in values:
        values[name][:, 2] = values[name][:, 1]
    values["out"] = values["out"] * torch.tensor([3.0, 2.0, -2.5, 2.2])  # the second and third leave half a component
    small = replace(network, bonds={"r": 2})
    error = float((rounded(network, values, small) - dense(network, values)).norm())
    assert error == pytest.approx(0.5, rel=1e-9)
    errors = rounding.spectra(network, values)["r"]
    assert (errors[1:] <= errors[:-1]).all() and float(errors[2:].sum()) >= 0.25  # in the order in which they go


# in a model


def attached(parameterization: str = "tensor_train", rank: int = 5, layout: str | None = None) -> nn.Module:
    model = make("bert")
    layout = layout or ("layer : out : in" if parameterization == "lora" else TIED)
    ta.attach(model, ta.plan(model, layout, parameterization, rank))
    return model


def adapter_of(model: nn.Module) -> ta.Adapter:
    return next(module for module in model.modules() if isinstance(module, ta.Adapter))


def deltas(model: nn.Module) -> Tensor:
    adapter = adapter_of(model)
    return torch.stack([adapter.delta(site).detach() for site in adapter.plan.sites])


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(**inputs("bert"), labels=torch.tensor([2, 5])).loss.backward()
    optimizer.step()


def padded(parameterization: str, rank: int = 2, wide: int = 5) -> nn.Module:
    """A model whose adapter has bonds of ``wide`` of which it uses ``rank``: there the factors are zero."""
    model = attached(parameterization, wide)
    adapter = adapter_of(model)
    perturb(adapter)
    with torch.no_grad():
        for tensor in adapter.factored:
            for factor in tensor.network.factors:
                for axis, label in enumerate(factor.labels):
                    if label in tensor.network.bonds:
                        moved = tensor.trained[factor.name].movedim(axis, 0)
                        moved[1 : moved.shape[0] - rank + 1] = 0  # the first stays, and the last
    return model


@pytest.mark.parametrize("parameterization", FAMILIES)
@pytest.mark.parametrize("kind", [{"rank": 2}, {"energy": 1.0}])
def test_an_adapter_that_does_not_use_its_bonds_is_reduced_without_a_change(
    parameterization: str, kind: Mapping[str, float]
) -> None:
    model = padded(parameterization)
    before = deltas(model)
    report = reduce_rank(model, **kind)
    adapter = adapter_of(model)
    assert {n for group in adapter.plan.groups for n in group.network.bonds.values()} == {2}
    torch.testing.assert_close(deltas(model), before, rtol=0, atol=1e-12 * float(before.norm()))
    assert report.n_params == adapter.n_params == adapter.plan.n_params < report.n_before
    assert max(one.error for one in report.tensors) < 1e-6
    assert "r" in str(report) and f"-> {report.n_params:,} parameters" in str(report)


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01),
    "plain": lambda p: torch.optim.SGD(p, lr=0.05),
}


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("parameterization", "name"),
    [*(("tensor_train", name) for name in OPTIMIZERS), *((p, "adamw") for p in ("lora", "tucker", "cp"))],
)
def test_a_training_goes_on_as_if_the_unused_bonds_were_still_there(parameterization: str, name: str) -> None:
    """They have no gradients, so they stay unused: the reduced training must be the unreduced one, step by step."""
    found = {}
    for moments in ("none", "carry", "reset"):
        model = padded(parameterization)
        optimizer = OPTIMIZERS[name](adapter_of(model).parameters())
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.5, total_iters=5)
        for k in range(5):
            step(model, optimizer)
            schedule.step()
            if k == 2 and moments != "none":
                reduce_rank(model, optimizer, rank=2, moments=moments)
        found[moments] = deltas(model)
    size = float(found["none"].norm())
    assert float((found["carry"] - found["none"]).norm()) < 1e-9 * size
    if name != "plain":
        assert float((found["reset"] - found["none"]).norm()) > 1e-4 * size


def test_the_optimizers_groups_keep_their_settings_and_hold_the_new_factors() -> None:
    model = attached()
    perturb(adapter_of(model))
    named = dict(adapter_of(model).named_parameters())
    groups = [{"params": [p], "lr": 0.01 * (i + 1)} for i, p in enumerate(named.values())]
    optimizer = torch.optim.AdamW([*groups, {"params": [nn.Parameter(torch.zeros(2))], "lr": 7.0}])
    step(model, optimizer)
    steps = {name: optimizer.state[p]["step"].item() for name, p in named.items()}
    reduce_rank(model, optimizer, rank=2)
    now = dict(adapter_of(model).named_parameters())
    assert list(now) == list(named) and not set(now.values()) & set(named.values())
    assert [group["params"][0] for group in optimizer.param_groups[:-1]] == list(now.values())
    assert [group["lr"] for group in optimizer.param_groups] == [0.01 * (i + 1) for i in range(len(now))] + [7.0]
    assert set(optimizer.state) == set(now.values())  # the last group's has had no gradient
    assert {name: optimizer.state[p]["step"].item() for name, p in now.items()} == steps
    for parameter in now.values():
        assert parameter.grad is None
        assert {optimizer.state[parameter][k].shape for k in ("exp_avg", "exp_avg_sq")} == {parameter.shape}
        assert optimizer.state[parameter]["exp_avg_sq"].min() >= 0
    again = torch.optim.AdamW([{"params": [p]} for p in now.values()] + [{"params": [nn.Parameter(torch.zeros(2))]}])
    again.load_state_dict(optimizer.state_dict())
    before = [parameter.detach().clone() for parameter in now.values()]
    step(model, optimizer)
    assert all(not torch.equal(p, b) for p, b in zip(now.values(), before, strict=True))


@pytest.mark.parametrize("parameterization", FAMILIES)
def test_a_reduction_before_the_first_step_leaves_one_factor_zero(parameterization: str) -> None:
    model = attached(parameterization, 5)
    reduce_rank(model, rank=2)
    for tensor in adapter_of(model).factored:
        sizes = {name: value.detach().norm().item() for name, value in tensor.factors.items()}
        assert [name for name, size in sizes.items() if size == 0] == [tensor.network.zero.name]
        rms = {name: value.detach().square().mean().sqrt().item() for name, value in tensor.factors.items()}
        before = attached(parameterization, 5)
        old = adapter_of(before).factored[0].factors
        for name in rms:  # the sizes that the matched start gave
            assert rms[name] == pytest.approx(old[name].square().mean().sqrt().item(), rel=0.5)


@pytest.mark.parametrize("parameterization", FAMILIES)
def test_a_budget_is_reached_by_the_least_of_all_directions(parameterization: str) -> None:
    model = attached(parameterization, 5, ": out : in" if parameterization == "lora" else None)
    adapter = adapter_of(model)
    perturb(adapter)
    budget = int(adapter.n_params * 0.6)
    old = [(t.network, {k: v.detach() for k, v in t.factors.items()}) for t in adapter.factored]
    report = reduce_rank(model, budget=f"{budget / 1000}k")
    assert adapter.n_params == adapter.plan.n_params == report.n_params <= budget
    assert adapter.plan.spec.budget == budget and "reached" in str(adapter.plan)
    kept, gone, again = [], [], {}
    for tensor, (network, values) in zip(adapter.factored, old, strict=True):
        norm = float(dense(network, values).norm()) ** 2
        for bond, errors in rounding.spectra(network, values).items():
            n = tensor.network.bonds[bond]
            kept += (errors[1:n] / norm).tolist()
            gone += (errors[n:] / norm).tolist()
            if n < len(errors):
                wider = replace(tensor.network, bonds={**tensor.network.bonds, bond: n + 1})
                again[gone[-len(errors) + n]] = wider.n_params - tensor.network.n_params
    assert max(gone) <= min(kept)
    assert report.n_params + again[max(gone)] > budget  # the last to go had to


@pytest.mark.parametrize("parameterization", FAMILIES)
@pytest.mark.parametrize("energy", [0.5, 0.9])
def test_the_energy_asked_for_is_kept_and_no_more_than_needed(parameterization: str, energy: float) -> None:
    model = attached(parameterization, 5)
    perturb(adapter_of(model))
    whole = adapter_of(model).factored[0].full().detach()
    report = reduce_rank(model, energy=energy)
    lost = float((adapter_of(model).factored[0].full().detach() - whole).norm() / whole.norm())
    assert lost**2 <= 1 - energy and lost == pytest.approx(report.tensors[0].error, abs=1e-6)
    assert report.n_params < report.n_before


def test_bonds_are_reduced_by_name() -> None:
    model = attached("tucker", 5)
    perturb(adapter_of(model))
    before = dict(adapter_of(model).plan.groups[0].network.bonds)
    reduce_rank(model, rank={"head": 2, "model": 3})
    assert adapter_of(model).plan.groups[0].network.bonds == {**before, "r_head": 2, "r_model": 3}
    assert adapter_of(model).plan.groups[0].rank["head"] == 2
    reduce_rank(model, rank=3)  # an upper bound: no bond grows
    assert adapter_of(model).plan.groups[0].network.bonds == {
        b: min(n, 2 if b == "r_head" else 3) for b, n in before.items()
    }


@pytest.mark.parametrize("parameterization", FAMILIES)
def test_a_reduced_adapter_is_saved_and_loaded(parameterization: str, tmp_path: Path) -> None:
    model = attached(parameterization)
    base = make("bert")
    adapter = adapter_of(model)
    perturb(adapter)
    scales = [tensor.scale for tensor in adapter.factored]
    reduce_rank(model, rank=2)
    assert [tensor.scale for tensor in adapter.factored] == scales
    adapter.save(tmp_path)
    loaded = ta.load(base, tmp_path)
    assert loaded.plan == replace(adapter.plan, skipped=()) and loaded.n_params == adapter.n_params
    assert torch.equal(base(**inputs("bert")).logits, model(**inputs("bert")).logits)


def test_a_reduction_keeps_dtype_mode_and_frozen_factors() -> None:
    torch.set_default_dtype(torch.float32)
    model = attached()
    adapter = adapter_of(model).double().eval()
    perturb(adapter)
    adapter.factored[0].trained["layer"].requires_grad_(False)
    whole = adapter.factored[0].full().detach()
    expected, network = reduced_dense(adapter, 3), adapter.factored[0].network
    reduce_rank(model, rank=3)
    assert network is not adapter.factored[0].network
    assert {p.dtype for p in adapter.parameters()} == {torch.float64} and not adapter.factored[0].training
    assert [name for name, p in adapter.factored[0].trained.items() if not p.requires_grad] == ["layer"]
    found = adapter.factored[0].full().detach()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 * float(whole.norm()))


def reduced_dense(adapter: ta.Adapter, rank: int) -> Tensor:
    tensor = adapter.factored[0]
    values = {name: value.detach() for name, value in tensor.factors.items()}
    return tensor.scale * rounded(tensor.network, values, smaller(tensor.network, rank))


# what is refused


@pytest.mark.parametrize(
    ("parameterization", "layout", "why"),
    [
        ("tensor_ring", TIED, "its bonds have a cycle, or join some of the factors"),
        ("block_term", TIED, "bond 'b' follows from the others"),
        ("loha", ": out : in", "bond 'r2' follows from the others"),
        ("vera", ": out : in", "factor 'A' is frozen"),
        ("dense", ": out : in", "it has no bond"),
        ("kronecker", "layer : out1 out2 : in1 in2", "its bonds have a cycle, or join some of the factors"),
    ],
)
def test_networks_without_a_rounding_are_refused(parameterization: str, layout: str, why: str) -> None:
    network = parameterizations.get(parameterization).build(Layout.parse(layout, SIZES), 2)
    with pytest.raises(ta.TensorAdaptError, match=f"cannot be reduced: {why}. Reducing takes bonds"):
        rounding.check(network)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "rank=None, budget=None and energy=None were given; expected exactly one"),
        ({"rank": 2, "budget": 100}, "rank=2, budget=100 and energy=None were given; expected exactly one"),
        ({"rank": 0}, "rank is 0; expected a whole number"),
        ({"rank": 6}, "rank 6 is above 5, the largest 'model' has"),
        ({"rank": {"model": 6}}, "rank 6 is above 5, the largest 'model' has; reducing takes 5 or less"),
        ({"rank": {"haed": 2}}, "rank names 'haed', which no tensor has; did you mean \"head\""),
        ({"budget": 1}, r"budget is 1; expected a whole number of parameters from \d+ \(rank 1\) to the \d+ there are"),
        ({"budget": 10**6}, "budget is 1000000; expected"),
        ({"budget": 20.5}, "budget is 20.5; expected"),
        ({"energy": 0}, "energy is 0; expected a share above 0 and up to 1"),
        ({"energy": 1.01}, "energy is 1.01; expected a share"),
        ({"rank": 2, "moments": "keep"}, "moments is 'keep'. Valid: carry, reset"),
        ({"rank": 2, "sweeps": 0}, "sweeps is 0; expected a whole number from 1 up to 100"),
    ],
)
def test_bad_choices_are_refused_and_nothing_changes(options: Mapping[str, object], says: str) -> None:
    model = attached()
    perturb(adapter_of(model))
    before = list(model.parameters())
    with pytest.raises(ta.TensorAdaptError, match=says):
        reduce_rank(model, **options)
    assert all(one is two for one, two in zip(model.parameters(), before, strict=True))


def test_models_that_cannot_be_reduced_are_refused() -> None:
    with pytest.raises(ta.TensorAdaptError, match="has no adapter attached"):
        reduce_rank(make("bert"), rank=2)
    model = attached()
    for kind in ({"budget": 150}, {"energy": 0.9}):
        with pytest.raises(ta.TensorAdaptError, match="tensor 0 is zero, so no direction of it counts less"):
            reduce_rank(model, **kind)
    ta.merge(model)
    with pytest.raises(ta.TensorAdaptError, match=r"merged into the weights; call unmerge\(model\) before reducing"):
        reduce_rank(model, rank=2)
    ta.unmerge(model)
    with torch.no_grad():
        next(adapter_of(model).parameters()).fill_(float("nan"))
    with pytest.raises(ta.TensorAdaptError, match="has non-finite entries; load a checkpoint from before it diverged"):
        reduce_rank(model, rank=2)
    model = make("bert")
    ta.attach(model, ta.plan(model, TIED, "tensor_train", 3, start="subtract"))
    with pytest.raises(ta.TensorAdaptError, match="subtracts its initial value, which has the same bonds"):
        reduce_rank(model, rank=2)


def test_optimizers_that_cannot_follow_are_refused_and_can_be_reset() -> None:
    model = attached()
    perturb(adapter_of(model))
    other = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(ta.TensorAdaptError, match="has none of the adapter's parameters; pass the one that trains"):
        reduce_rank(model, other, rank=2)
    optimizer = torch.optim.Rprop(adapter_of(model).parameters())
    step(model, optimizer)
    with pytest.raises(ta.TensorAdaptError, match=r"keeps 'prev' \(.*pass moments=\"reset\""):
        reduce_rank(model, optimizer, rank=2)
    reduce_rank(model, optimizer, rank=2, moments="reset")
    assert not optimizer.state
    step(model, optimizer)


def test_a_schedule_that_cannot_be_followed_is_refused_before_training() -> None:
    model = attached()
    check_schedule(model, {3: 4, 6: 4, 9: 2}, 10)
    check_schedule(make("bert"), {}, 10)
    for schedule, says in (
        ({11: 2}, "rank 2 at step 11; expected steps from 1 to 10, and ranks that fall from 5 on"),
        ({0: 2}, "rank 2 at step 0; expected"),
        ({3: 6}, "rank 6 at step 3; expected"),
        ({3: 2, 5: 3}, "rank 3 at step 5; expected steps from 1 to 10, and ranks that fall from 2 on"),
        ({3: 0}, "the rank at step 3 is 0"),
    ):
        with pytest.raises(ta.TensorAdaptError, match=says):
            check_schedule(model, schedule, 10)
    with pytest.raises(ta.TensorAdaptError, match="has no adapter attached"):
        check_schedule(make("bert"), {3: 2}, 10)
