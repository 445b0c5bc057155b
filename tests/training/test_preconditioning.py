"""Preconditioned gradients and learning-rate multipliers: against the papers' loops, and by what training does."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from peft.optimizers.lorafa import LoraFAOptimizer
from support.models import inputs, make, perturb

import tensoradapt as ta
from tensoradapt import parameterizations
from tensoradapt.adapter.factored import FactoredTensor
from tensoradapt.networks.gram import normal_matrix
from tensoradapt.networks.layout import Layout
from tensoradapt.testing.laws import float64
from tensoradapt.training.preconditioning import divided

SIZES = {"layer": 2, "proj": 3, "head": 4, "dim": 5, "model": 7, "out": 4, "in": 6}
TIED = "layer proj : head dim : model"


def tensor(parameterization: str, layout: str, rank: int = 3) -> FactoredTensor:
    with float64():
        made = FactoredTensor(parameterizations.get(parameterization).build(Layout.parse(layout, SIZES), rank))
    perturb(made)
    return made


def values_of(made: FactoredTensor) -> dict[str, torch.Tensor]:
    return {name: value.detach() for name, value in made.factors.items()}


@pytest.mark.parametrize("mode", ["layer", "proj", "head", "dim", "model"])
def test_cps_normal_matrix_is_the_hadamard_product_of_the_others_gram_matrices(mode: str) -> None:
    cp = tensor("cp", TIED)
    of = next(f for f in cp.network.factors if f.name == mode)
    grams = [value.detach().T @ value.detach() for name, value in cp.factors.items() if name != mode]
    expected = torch.stack(grams).prod(0)
    torch.testing.assert_close(
        normal_matrix(cp.network, values_of(cp), of, torch.einsum), expected, rtol=1e-12, atol=1e-12
    )


def test_the_normal_matrix_is_the_triple_loop_of_the_released_code() -> None:
    """Claim 9: sum over h, l, m of D B^T B D with D = diag(C_H[h] C_L[l] C_M[m]) is the product of Gram matrices."""
    cp = tensor("cp", TIED)
    f = {name: value.detach().numpy() for name, value in cp.factors.items()}
    expected = np.zeros((3, 3))
    for h, layer, m in itertools.product(range(4), range(2), range(3)):
        d = np.diag(f["head"][h] * f["layer"][layer] * f["proj"][m])
        expected += d @ f["dim"].T @ f["dim"] @ d
    of = next(factor for factor in cp.network.factors if factor.name == "model")
    np.testing.assert_allclose(normal_matrix(cp.network, values_of(cp), of, torch.einsum), expected, rtol=0, atol=1e-12)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("parameterization", "layout"),
    [
        ("cp", TIED),
        ("tucker", "layer : out : in"),
        ("tensor_train", TIED),
        ("lora", "layer : out : in"),
        ("loha", ": out : in"),
    ],
)
def test_the_normal_matrix_is_the_jacobians_gram_matrix(parameterization: str, layout: str) -> None:
    made = tensor(parameterization, layout, 2)
    for factor in made.network.factors:
        value = made.trained[factor.name]

        def full(v: torch.Tensor, name: str = factor.name) -> torch.Tensor:
            return torch.func.functional_call(Full(made), {f"tensor.trained.{name}": v}, ()) / made.scale

        jacobian = torch.autograd.functional.jacobian(full, value.detach()).reshape(-1, value.numel())
        gram, gradient = jacobian.T @ jacobian, torch.randn(value.shape, dtype=torch.float64)
        ridge = 1e-3 * torch.eye(value.numel(), dtype=torch.float64)
        expected = torch.linalg.solve(gram + ridge, gradient.flatten()).reshape(value.shape)
        found = divided(made.network, made.factors, factor, gradient, 1e-3)
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


class Full(torch.nn.Module):
    def __init__(self, made: FactoredTensor) -> None:
        super().__init__()
        self.tensor = made

    def forward(self) -> torch.Tensor:
        return self.tensor.full()


@pytest.mark.parametrize("parameterization", ["cp", "tucker", "tensor_train", "tensor_ring", "lora"])
def test_two_preconditioned_steps_of_sgd_do_not_depend_on_the_gauge(parameterization: str) -> None:
    """Factors that differ by a matrix on a bond, or in CP by scales, are one tensor before and after the steps."""

    def weights(gauge: bool) -> list[torch.Tensor]:
        model = make("bert", torch.float64)
        adapter = ta.attach(model, ta.plan(model, TIED, parameterization, 2), seed=0).double()
        for parameter in adapter.parameters():
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(parameter.numel()))
        if gauge:
            turn(adapter.factored[0])
        found = [adapter.factored[0].full().detach()]
        optimizer = torch.optim.SGD(adapter.parameters(), lr=1e-3)
        ta.preconditioned(optimizer, model, 1e-14)
        for _ in range(2):
            optimizer.zero_grad()
            model(**inputs("bert"), labels=torch.tensor([2, 5])).loss.backward()
            optimizer.step()
        return [*found, adapter.factored[0].full().detach()]

    (start, after), (other, elsewhere) = weights(gauge=False), weights(gauge=True)
    torch.testing.assert_close(other, start, rtol=0, atol=1e-9 * float(start.norm()))
    moved = float((after - start).norm())
    assert moved > 1e-6 and float((elsewhere - after).norm()) < 1e-9 * max(moved, float(start.norm()))


@torch.no_grad()
def turn(tensor: FactoredTensor) -> None:
    """Put another matrix and its inverse on every bond; on one of more than two factors scales whose product is 1."""
    generator = torch.Generator().manual_seed(3)
    for bond, n in tensor.network.bonds.items():
        ends = [(tensor.trained[f.name], f.labels.index(bond)) for f in tensor.network.factors if bond in f.labels]
        matrix = torch.eye(n, dtype=torch.float64) + torch.randn(n, n, generator=generator, dtype=torch.float64) / 2
        if len(ends) > 2:
            matrix = torch.diag(1.5 + torch.rand(n, generator=generator, dtype=torch.float64))
        for (value, axis), by in zip(ends, (matrix, torch.linalg.inv(matrix).T), strict=False):
            value.copy_((value.movedim(axis, -1) @ by).movedim(-1, axis))


def test_a_hook_divides_every_gradient_before_the_step_and_ends_when_removed() -> None:
    model = make("bert", torch.float64)
    adapter = ta.attach(model, ta.plan(model, method="cp", rank=2))
    perturb(adapter)
    optimizer = torch.optim.SGD(adapter.parameters(), lr=0.0)
    handle = ta.preconditioned(optimizer, model, 1e-4)
    model(**inputs("bert"), labels=torch.tensor([2, 5])).loss.backward()
    before = {name: p.grad.clone() for name, p in adapter.named_parameters()}
    part = adapter.factored[0]
    expected = {
        f.name: divided(part.network, part.factors, f, part.trained[f.name].grad, 1e-4) for f in part.network.factors
    }
    optimizer.step()
    for name, value in part.trained.items():
        torch.testing.assert_close(value.grad, expected[name])
        assert not torch.allclose(value.grad, before[f"tensors.0.trained.{name}"])
    handle.remove()
    kept = {name: p.grad.clone() for name, p in adapter.named_parameters()}
    optimizer.step()
    assert all(torch.equal(p.grad, kept[name]) for name, p in adapter.named_parameters())


@pytest.mark.parametrize("rank", [1, 3])
def test_preconditioned_steps_of_lora_fa_are_those_of_pefts_optimizer(rank: int) -> None:
    """PEFT divides by s^2 besides, which Adam takes out again; its eps is added at another place, so it is 0 here."""
    model = make("bert", torch.float64)
    with float64():
        adapter = ta.attach(model, ta.plan(model, method="lora-fa", rank=rank, paper=True), seed=3)
    perturb(adapter)
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=1e-2, eps=0.0, weight_decay=0.0)
    ta.preconditioned(optimizer, model, epsilon=1e-8)
    pairs = [
        [(f"{i}.lora_{name}", torch.nn.Parameter(tensor.factors[name].detach().clone())) for name in ("A", "B")]
        for i, tensor in enumerate(adapter.factored)
    ]
    named = [one for pair in pairs for one in pair]
    group: dict[str, Any] = {"params": [p for _, p in named], "names": [name for name, _ in named]}
    with float64():
        theirs = LoraFAOptimizer([{**group, "scaling_factors": [16 / rank] * len(named)}], lr=1e-2, eps=0.0)
        for step in range(4):
            generator = torch.Generator().manual_seed(step)
            for tensor, (_, (_, b)) in zip(adapter.factored, pairs, strict=True):
                tensor.trained["B"].grad = torch.randn(b.shape, generator=generator, dtype=torch.float64)
                b.grad = tensor.trained["B"].grad.clone()
            optimizer.step()
            theirs.step()
            for tensor, (_, (_, b)) in zip(adapter.factored, pairs, strict=True):
                torch.testing.assert_close(tensor.trained["B"], b, rtol=0, atol=1e-12)


def test_what_cannot_be_preconditioned_is_refused() -> None:
    model = make("bert")
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    with pytest.raises(ta.TensorAdaptError, match="has no adapter to precondition; call attach"):
        ta.preconditioned(optimizer, model)
    ta.attach(model, ta.plan(model, method="cp", rank=2))
    some = list(model.tensoradapt.parameters())[1:]
    whole = torch.optim.SGD(model.tensoradapt.parameters(), lr=1.0)
    with pytest.raises(ta.TensorAdaptError, match=r"lacks 5 of the factors that require gradients, such as .*pass it"):
        ta.preconditioned(optimizer, model)
    with pytest.raises(ta.TensorAdaptError, match="lacks 1 of the factors"):
        ta.preconditioned(torch.optim.SGD(some, lr=1.0), model)
    with pytest.raises(ta.TensorAdaptError, match="epsilon is 0; expected a finite number above 0"):
        ta.preconditioned(whole, model, 0)
    with pytest.raises(ta.TensorAdaptError, match="LBFGS moves the weights several times in a step"):
        ta.preconditioned(torch.optim.LBFGS(model.tensoradapt.parameters()), model)
    large = make("bert")
    tucker = ta.attach(large, "tucker", rank=12, layout="layer proj : head dim : model")
    with pytest.raises(ta.TensorAdaptError, match=r"'core' has 4,320 entries over its bonds.*at most 4,096 are taken"):
        ta.preconditioned(torch.optim.SGD(tucker.parameters(), lr=1.0), large)
    ta.preconditioned(whole, model)
    before = [p.detach().clone() for p in model.tensoradapt.parameters()]
    with pytest.raises(ta.TensorAdaptError, match="given a closure"):
        whole.step(lambda: 0.0)
    ta.merge(model)
    with pytest.raises(ta.TensorAdaptError, match="the adapter is merged into the weights"):
        whole.step()
    assert all(map(torch.equal, before, model.tensoradapt.parameters()))


@pytest.mark.parametrize(("dtype", "error"), [(torch.bfloat16, 2**-8), (torch.float16, 2**-10)])
def test_gradients_of_half_precision_are_divided_in_float64(dtype: torch.dtype, error: float) -> None:
    made = tensor("cp", TIED)
    of, gradient = made.network.factors[1], torch.randn(3, 3)
    exact = divided(made.network, made.factors, of, gradient.to(dtype).double(), 1e-6)
    found = divided(made.network, made.factors, of, gradient.to(dtype), 1e-6)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), exact, rtol=error, atol=1e-6)


def test_multipliers_of_factors_reach_the_optimizer_and_the_matched_scale() -> None:
    model = make("bert", torch.float32)
    sites = ta.find_sites(model, ("q", "v"))
    plain = ta.Adapter(ta.plan(sites, ": out : in", "lora", rank=2))
    adapter = ta.attach(model, ta.plan(sites, ": out : in", "lora", rank=2, rates={"B": 16.0}, train=()))
    groups = {group["lr"]: group["params"] for group in ta.parameter_groups(model, 0.01)}
    assert {lr: len(params) for lr, params in groups.items()} == {0.01: 6, 0.16: 6}
    assert all(tensor.trained["B"] in set(groups[0.16]) for tensor in adapter.factored)
    # sixteen times the rate at a sixteenth of the scale: the same first step
    assert adapter.factored[0].scale == pytest.approx(plain.factored[0].scale / 16, rel=1e-6)
