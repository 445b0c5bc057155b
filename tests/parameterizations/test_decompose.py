"""decompose: exact where the parameterization can represent a tensor, near elsewhere; broken tensors are refused."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from tensoradapt.adapter.factored import FactoredTensor
from tensoradapt.errors import TensorAdaptError
from tensoradapt.networks import least_squares
from tensoradapt.networks.layout import Layout
from tensoradapt.networks.network import Network
from tensoradapt.parameterizations import cp, get, tensor_train, tucker
from tensoradapt.testing.laws import float64

LAYOUT = Layout.parse("layer : head dim : model", {"layer": 3, "head": 2, "dim": 4, "model": 9})
# relative errors where a parameterization can represent the tensor: ALS stops at its tolerance, SVDs at rounding
EXACT: dict[str, tuple[dict[str, Any], float]] = {
    "cp": ({}, 1e-6),
    "cp weights": ({"weights": True}, 1e-6),
    "tucker": ({}, 1e-8),
    "tucker only": ({"only": ("layer", "model")}, 1e-8),
    "tensor_train": ({}, 1e-8),
    "tensor_train order": ({"order": ("dim", "layer", "model", "head")}, 1e-8),
    "tensor_ring": ({}, 1e-6),
    "block_term": ({"terms": 2}, 1e-6),
}
every = pytest.mark.parametrize("name", EXACT)


def network(name: str, rank: int = 2) -> tuple[Any, Network]:
    module = get(name.split()[0])
    return module, module.build(LAYOUT, rank, **EXACT[name][0]).clipped()


def error(module: Any, net: Network, tensor: np.ndarray, **options: Any) -> float:
    found = module.decompose(net, tensor, **options)
    assert {f.name: net.shape(f) for f in net.factors} == {key: value.shape for key, value in found.items()}
    assert list(found) == [f.name for f in net.factors]
    return float(np.linalg.norm(tensor - module.oracle(net.layout, found)) / np.linalg.norm(tensor))


def noise(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(LAYOUT.shape)


@pytest.mark.thorough
@every
def test_a_tensor_of_the_parameterization_is_found(name: str) -> None:
    module, net = network(name)
    tensor = 50 * module.oracle(LAYOUT, least_squares.draw(net, 1))
    assert error(module, net, tensor) < EXACT[name][1]


@pytest.mark.thorough
@every
def test_any_tensor_is_approached_and_a_higher_rank_comes_closer(name: str) -> None:
    errors = [error(*network(name, rank), noise()) for rank in (1, 2, 4)]
    assert 1 > errors[0] > errors[1] > errors[2]


@pytest.mark.thorough
@every
def test_the_same_seed_gives_the_same_factors(name: str) -> None:
    module, net = network(name, 1)
    first, again = (module.decompose(net, noise(), seed=3) for _ in range(2))
    assert all(np.array_equal(first[key], again[key]) for key in first)


@every
@pytest.mark.parametrize("rank", [2, 7])  # 7: more than some modes can carry, as published rows may ask for
def test_a_zero_tensor_gives_one_zero_factor_and_every_factor_can_train(name: str, rank: int) -> None:
    module = get(name.split()[0])
    net = module.build(LAYOUT, rank, **EXACT[name][0])
    found = module.decompose(net, np.zeros(LAYOUT.shape))
    assert [key for key, value in found.items() if not value.any()] == [net.zero.name]
    assert not module.oracle(LAYOUT, found).any()
    assert alive(net, found)


def alive(net: Network, values: dict[str, np.ndarray]) -> bool:
    """Along every bond every slice of a factor moves within two steps: no two zeros hold each other."""
    with float64():
        tensor = FactoredTensor(net, values={key: torch.from_numpy(value.copy()) for key, value in values.items()})
    slope, moved = torch.from_numpy(noise(5)), {key: torch.zeros(value.shape) for key, value in values.items()}
    for _ in range(2):
        slopes = torch.autograd.grad((tensor.full() * slope).sum(), list(tensor.trained.values()))
        with torch.no_grad():
            for (key, value), grad in zip(tensor.trained.items(), slopes, strict=True):
                moved[key] += grad.abs()
                value -= 0.1 * grad
    slices = [
        np.moveaxis(moved[factor.name].numpy(), axis, 0).reshape(size, -1).max(axis=1)
        for factor in net.factors
        for axis, (label, size) in enumerate(zip(factor.labels, net.shape(factor), strict=True))
        if label in net.bonds
    ]
    return bool((np.concatenate(slices) > 1e-12 * np.abs(slope.numpy()).max()).all())


@every
def test_what_is_not_finite_or_not_of_the_layout_is_refused(name: str) -> None:
    module, net = network(name)
    broken = noise()
    broken[1, 0, 2, 3] = np.nan
    with pytest.raises(TensorAdaptError, match="1 non-finite entries of 216"):
        module.decompose(net, broken)
    with pytest.raises(TensorAdaptError, match=r"shape \(3, 8, 9\); layout .* expects \(3, 2, 4, 9\)"):
        module.decompose(net, noise().reshape(3, 8, 9))


@pytest.mark.thorough
def test_cp_is_kept_from_its_best_start() -> None:
    net = cp.build(LAYOUT, 4)
    one, many = (error(cp, net, noise(2), restarts=n) for n in (1, 6))
    assert many <= one


def test_cp_shares_each_components_norm_equally() -> None:
    found = cp.decompose(cp.build(LAYOUT, 3), 1e4 * noise())
    norms = np.array([np.linalg.norm(found[mode], axis=0) for mode in LAYOUT.names])
    np.testing.assert_allclose(norms, norms[:1].repeat(4, axis=0), rtol=1e-10)


@pytest.mark.parametrize("name", ["tucker", "tucker only", "tensor_train", "tensor_train order"])
def test_cp_is_an_exact_tucker_and_train(name: str) -> None:
    for rank in (1, 3, 7):
        module, net = network(name, rank)
        factors = least_squares.draw(cp.build(LAYOUT, rank), 1)
        tensor, found = cp.oracle(LAYOUT, factors), module.from_cp(net, factors)
        assert {f.name: net.shape(f) for f in net.factors} == {key: value.shape for key, value in found.items()}
        np.testing.assert_allclose(module.oracle(LAYOUT, found), tensor, atol=1e-12 * np.abs(tensor).max())


def test_factors_are_orthonormal_and_the_last_holds_the_energy() -> None:
    tensor = noise()
    found = tucker.decompose(network("tucker")[1], tensor)
    for mode in LAYOUT.names:
        np.testing.assert_allclose(found[mode].T @ found[mode], np.eye(found[mode].shape[1]), atol=1e-12)
    chain = tensor_train.decompose(network("tensor_train")[1], tensor)
    first = chain["model"]
    np.testing.assert_allclose(first.T @ first, np.eye(2), atol=1e-12)


def test_als_solves_each_factor_exactly_whatever_its_labels() -> None:
    """With all other factors true, one solve gives back the tensor: batch axes, shared bonds and lone modes alike."""
    for name in EXACT:
        module, net = network(name)
        truth = least_squares.draw(net, 1)
        tensor = module.oracle(LAYOUT, truth)
        for factor in net.factors:
            start = {**truth, factor.name: least_squares.draw(net, 2)[factor.name]}
            found = least_squares.solve(net, tensor, start, factor)
            again = module.oracle(LAYOUT, {**truth, factor.name: found})
            np.testing.assert_allclose(again, tensor, atol=1e-8 * np.abs(tensor).max(), err_msg=f"{name} {factor.name}")


def test_als_never_gets_worse_and_reports_the_true_error() -> None:
    net = cp.build(LAYOUT, 3)
    factors, errors = least_squares.draw(net, 0), []
    for _ in range(8):
        factors, reported = least_squares.fit(net, noise(), factors, sweeps=1)
        errors.append(reported)
    assert reported == pytest.approx(np.linalg.norm(noise() - cp.oracle(LAYOUT, factors)) / np.linalg.norm(noise()))
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(errors))


def test_the_error_of_als_is_right_where_the_expanded_square_has_no_digits_left() -> None:
    module, net = network("cp")
    truth = least_squares.draw(net, 1)
    tensor = module.oracle(LAYOUT, truth)
    norm = float(np.linalg.norm(tensor))
    off = {**truth, "dim": truth["dim"] * (1 + 1e-11)}
    assert least_squares.relative_error(net, tensor, off, norm) == pytest.approx(1e-11, rel=1e-3)
