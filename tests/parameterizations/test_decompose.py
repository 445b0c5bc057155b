"""decompose: exact where the parameterization can represent a tensor, near elsewhere; broken tensors are refused."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import tensorly
import torch

from tensoradapt.adapter.factored import FactoredTensor
from tensoradapt.errors import TensorAdaptError
from tensoradapt.networks import least_squares
from tensoradapt.networks.decomposition import leading
from tensoradapt.networks.layout import Layout
from tensoradapt.networks.network import Network
from tensoradapt.parameterizations import cp, get, tensor_ring, tensor_train, tucker
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


@every
def test_more_rank_than_the_tensor_has_leaves_nothing_that_cannot_train(name: str) -> None:
    module, net = network(name, 4)
    tensor = module.oracle(LAYOUT, least_squares.draw(network(name, 1)[1], 1))
    assert error(module, net, tensor) < 1e-3
    assert alive(net, module.decompose(net, tensor))


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


@pytest.mark.parametrize("name", ["tucker", "tucker only", "tensor_train", "tensor_train order"])
def test_wider_bonds_than_modes_can_carry_change_nothing(name: str) -> None:
    module = get(name.split()[0])
    wide = module.build(LAYOUT, 30, **EXACT[name][0])
    assert wide.clipped() != wide
    assert error(module, wide, noise()) < 1e-12


@every
def test_what_is_not_finite_or_not_of_the_layout_is_refused(name: str) -> None:
    module, net = network(name)
    broken = noise()
    broken[1, 0, 2, 3] = np.nan
    with pytest.raises(TensorAdaptError, match="1 non-finite entries of 216"):
        module.decompose(net, broken)
    with pytest.raises(TensorAdaptError, match=r"shape \(3, 8, 9\); layout .* expects \(3, 2, 4, 9\)"):
        module.decompose(net, noise().reshape(3, 8, 9))


def test_a_ring_is_never_further_than_the_train_of_its_bonds() -> None:
    for seed in range(4):
        ring, train = (f.build(LAYOUT, 2).clipped() for f in (tensor_ring, tensor_train))
        assert error(tensor_ring, ring, noise(seed), restarts=1) <= error(tensor_train, train, noise(seed)) + 1e-12


@pytest.mark.thorough
def test_cp_is_kept_from_its_best_start() -> None:
    net = cp.build(LAYOUT, 4)
    one, many = (error(cp, net, noise(2), restarts=n) for n in (1, 6))
    assert many <= one


def test_cp_shares_each_components_norm_equally() -> None:
    found = cp.decompose(cp.build(LAYOUT, 3), 1e4 * noise())
    norms = np.array([np.linalg.norm(found[mode], axis=0) for mode in LAYOUT.names])
    np.testing.assert_allclose(norms, norms[:1].repeat(4, axis=0), rtol=1e-10)


def test_growth_tells_a_degenerate_cp() -> None:
    """The border-rank example: rank 2 comes as close as asked by components that grow and cancel."""
    layout = Layout.parse("layer : out : in", {"layer": 2, "out": 2, "in": 2})
    a, b = np.array([1.0, 0.0]), np.array([0.3, 1.0])
    sides = ((a, a, b), (a, b, a), (b, a, a))
    border = sum(np.einsum("i,j,k->ijk", *vectors) for vectors in sides)
    plain = np.einsum("i,j,k->ijk", a, a, a) + np.einsum("i,j,k->ijk", b, b, b)
    net = cp.build(layout, 2)
    growths = [cp.growth(cp.decompose(net, tensor), float(np.linalg.norm(tensor))) for tensor in (plain, border)]
    assert growths[0] < 1.1
    assert growths[1] > 2
    assert cp.growth(cp.decompose(net, 0 * plain), 0.0) == 0
    assert cp.growth({"out": np.array([[1.0, 0.0], [0.0, 2.0]]), "in": np.array([[3.0, 4.0]])}, 2.0) == 8 / 2


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


def test_the_backend_of_the_caller_stays_and_does_not_matter() -> None:
    net, before = tucker.build(LAYOUT, 2).clipped(), tensorly.get_backend()
    expected = tucker.decompose(net, noise())
    tensorly.set_backend("pytorch", local_threadsafe=True)
    try:
        found = tucker.decompose(net, noise())
        assert tensorly.get_backend() == "pytorch"
    finally:
        tensorly.set_backend(before)
    assert all(np.array_equal(found[key], expected[key]) for key in expected)


# Alternating least squares over any network


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


def test_reviving_a_bond_changes_the_tensor_by_nothing() -> None:
    """Also where what is left there is not quite zero, and against columns drawn anew it would count."""
    net = network("tucker", 2)[1]
    values = least_squares.draw(net, 1)
    values["dim"][:, 1], values["core"][:, :, 1] = 0, 1e-11 * values["core"][:, :, 1]
    found = least_squares.revived(net, values, 0)
    assert found["dim"][:, 1].any()
    assert not found["core"][:, :, 1].any()
    np.testing.assert_allclose(least_squares.dense(net, found), least_squares.dense(net, values), rtol=0, atol=1e-15)


def test_als_refuses_a_system_it_cannot_hold() -> None:
    net = tucker.build(LAYOUT, 9).clipped()
    wide = tucker.build(Layout.parse("layer : out : in", {"layer": 20, "out": 20, "in": 20}), 20)
    assert least_squares.decompose(net, noise(), restarts=1).keys() == {f.name for f in net.factors}
    with pytest.raises(TensorAdaptError, match=r"'core' has 8,000 numbers joined by its bonds.*Lower the rank"):
        least_squares.decompose(wide, np.ones((20, 20, 20)))


@pytest.mark.parametrize("shape", [(40, 30), (30, 40), (48, 48)])
@pytest.mark.parametrize("rank", [1, 3, 20])
def test_leading_singular_vectors_are_those_of_the_whole_decomposition(shape: tuple[int, int], rank: int) -> None:
    matrix = np.random.default_rng(0).standard_normal(shape)
    u, s, vt = leading(matrix, rank)
    whole_u, whole_s, whole_vt = np.linalg.svd(matrix)
    np.testing.assert_allclose(s, whole_s[:rank], rtol=1e-12)
    np.testing.assert_allclose(u * s @ vt, whole_u[:, :rank] * whole_s[:rank] @ whole_vt[:rank], atol=1e-11)
    np.testing.assert_allclose(u.T @ u, np.eye(rank), atol=1e-13)
    np.testing.assert_allclose(vt @ vt.T, np.eye(rank), atol=1e-13)
    assert (vt.max(axis=1) == np.abs(vt).max(axis=1)).all()  # whatever signs LAPACK gives
    np.testing.assert_allclose(leading(-matrix, rank)[2], vt, atol=1e-11)


@pytest.mark.parametrize("values", [(1.0, 1e-9), (1.0, 0.0), (0.0, 0.0), (1e200, 1e199), (1e-200, 1e-201)])
def test_singular_values_that_a_gram_matrix_would_lose_are_found(values: tuple[float, float]) -> None:
    u, v = (np.linalg.qr(np.random.default_rng(seed).standard_normal((40, 2)))[0] for seed in range(2))
    found = leading(u * values @ v.T, 2)
    np.testing.assert_allclose(found[1], values, rtol=1e-6, atol=1e-15 * values[0])
    assert all(np.isfinite(part).all() for part in found)
