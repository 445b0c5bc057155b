"""The papers' equations in plain loops, for every parameterization; their counts and bases."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from support import oracles
from support.models import perturb
from support.oracles import FREE, TIED

from tensoradapt.adapter.factored import FactoredTensor
from tensoradapt.adapter.frozen import Bases
from tensoradapt.networks.layout import Layout
from tensoradapt.parameterizations import get, lora, lora_xs, names, randlora, tt_matrix
from tensoradapt.testing.laws import Case, float64

Factors = Mapping[str, np.ndarray]
TWO, THREE = ": out1 out2 : in1 in2", ": out1 out2 out3 : in1 in2 in3"
SIZES = {"layer": 2, "proj": 3, "head": 2, "dim": 3, "model": 4, "out": 5, "in": 7}
SIZES |= {"out1": 2, "out2": 3, "out3": 2, "in1": 2, "in2": 3, "in3": 2}


def product(matrices: list[list[list[float]]]) -> list[list[float]]:
    """The product of matrices, entry by entry."""
    left, *rest = matrices
    for right in rest:
        left = [[sum(a * right[k][j] for k, a in enumerate(row)) for j in range(len(right[0]))] for row in left]
    return left


def tensor_ring(f: Factors, layer: int, proj: int, head: int, dim: int, model: int) -> float:  # the trace of a product
    place = {"model": model, "layer": layer, "proj": proj, "head": head, "dim": dim}
    made = product([f[mode][:, i].tolist() for mode, i in place.items()])
    return sum(made[k][k] for k in range(len(made)))


def block_terms(f: Factors, head: int, dim: int, model: int) -> float:  # a sum of Tucker terms
    total = 0.0
    for b, i, j, k in itertools.product(*map(range, f["core"].shape)):
        total += f["core"][b, i, j, k] * f["head"][head, b, i] * f["dim"][dim, b, j] * f["model"][model, b, k]
    return total


def loha(f: Factors, layer: int, i: int, j: int) -> float:  # FedPara: (X1 Y1^T) o (X2 Y2^T)
    first, second = (sum(f[f"B{n}"][layer, i, k] * f[f"A{n}"][layer, k, j] for k in range(3)) for n in (1, 2))
    return first * second


def kronecker(f: Factors, o1: int, o2: int, i1: int, i2: int) -> float:  # LoKr: C (x) (B A)
    return f["C"][o1, i1] * sum(f["B"][o2, k] * f["A"][k, i2] for k in range(2))


def kronecker_full(f: Factors, o1: int, o2: int, i1: int, i2: int) -> float:
    return f["C"][o1, i1] * f["D"][o2, i2]


def randlora_tall(f: Factors, i: int, j: int) -> float:  # sum_n B_n diag(L_n) A diag(G_n)
    total = 0.0
    for n, k in itertools.product(*map(range, f["L"].shape)):
        total += f["B"][n, i, k] * f["L"][n, k] * f["A"][k, j] * f["G"][n, j]
    return total


def randlora_wide(f: Factors, i: int, j: int) -> float:  # the same, transposed: A is on the smaller side
    return randlora_tall(f, j, i)


def xs(f: Factors, i: int, j: int) -> float:  # LoRA-XS: B R A
    return sum(f["B"][i, k] * f["R"][k, n] * f["A"][n, j] for k in range(3) for n in range(3))


def tinylora(f: Factors, i: int, j: int) -> float:  # LoRA-XS with R = sum_u v_u P_u
    total = 0.0
    for u, q, p in itertools.product(*map(range, f["P"].shape)):
        total += f["v"][u] * f["B"][i, q] * f["P"][u, q, p] * f["A"][p, j]
    return total


def tinylora_tied(f: Factors, layer: int, i: int, j: int) -> float:  # one v for all layers
    return tinylora({**f, "A": f["A"][layer], "B": f["B"][layer]}, i, j)


def mpo(f: Factors, o1: int, o2: int, o3: int, i1: int, i2: int, i3: int) -> float:  # products of G_k[o_k, i_k]
    first, middle, last = f["out1"][o1, i1], f["out2"][:, o2, i2], f["out3"][:, o3, i3]
    return sum(first[a] * middle[a, b] * last[b] for a in range(len(first)) for b in range(len(last)))


def mpo_tied(f: Factors, layer: int, proj: int, out: int, in_: int) -> float:  # index modes are cores in front
    first, middle, last = f["layer"][layer], f["proj"][:, proj], f["out"][:, out, in_]
    return sum(first[a] * middle[a, b] * last[b] for a in range(len(first)) for b in range(len(last)))


def loretta(f: Factors, o1: int, o2: int, i1: int, i2: int) -> float:  # B A by trains over entries in reading order
    x, y, total = i1 * 3 + i2, o1 * 3 + o2, 0.0  # places in the widths 6 and 6
    for beta in range(4):
        total += entry(f, "A", (2, 6, 2), x * 4 + beta) * entry(f, "B", (2, 4, 3), beta * 6 + y)
    return total


def entry(f: Factors, letter: str, sizes: tuple[int, ...], place: int) -> float:
    """One entry of a train over a flat vector of the product of sizes."""
    digits = []
    for n in reversed(sizes):
        place, digit = divmod(place, n)
        digits.insert(0, digit)
    shaped = [f[f"{letter}1"].reshape(1, sizes[0], 2), f[f"{letter}2"].reshape(2, sizes[1], 2)]
    cores = [*shaped, f[f"{letter}3"].reshape(2, sizes[2], 1)]
    return product([core[:, digit].tolist() for core, digit in zip(cores, digits, strict=True)])[0][0]


def quanta(f: Factors, layer: int, o1: int, o2: int, o3: int, i1: int, i2: int, i3: int) -> float:
    """Gates on axes (3, 2), then (3, 1), then (2, 1), each (out, out, in, in) with the lower axis first."""
    g1, g2, g3 = (f[f"G{k}"][layer] for k in (1, 2, 3))
    total = 0.0
    for a1, a2, a3 in itertools.product(range(2), range(3), range(2)):  # after the first gates on each axis
        total += g1[a2, a3, i2, i3] * g2[a1, o3, i1, a3] * g3[o1, o2, a1, a2]
    return total


def block_low_rank(f: Factors, o1: int, o2: int, i1: int, i2: int) -> float:  # GraLoRA
    return sum(f["B"][o1, i1, s, o2] * f["A"][i1, i2, o1, s] for s in range(2))


def block_interleaved(f: Factors, o2: int, o1: int, i1: int, i2: int) -> float:  # MoRe: rows in another order
    return block_low_rank(f, o1, o2, i1, i2)


def khatri_rao(f: Factors, layer: int, o1: int, o2: int, i1: int, i2: int) -> float:  # a square matrix, as a wide one
    return f["V"][layer, o1, o2, i1] * f["U"][layer, o1, o2, i2]


def khatri_rao_tall(f: Factors, o1: int, o2: int, i: int) -> float:
    return f["V"][i, o1] * f["U"][i, o2]


def circulant(f: Factors, o1: int, t: int, i1: int, s: int) -> float:  # C3A; a corner of a circulant where b differs
    return f["K"][o1, i1, (s - t) % 3]


def compacter(f: Factors, layer: int, o1: int, o2: int, i1: int, i2: int) -> float:  # one rule for all layers
    total = 0.0
    for k, s in itertools.product(range(len(f["R"])), range(2)):
        total += f["R"][k, o1, i1] * f["S"][layer, k, o2, s] * f["T"][layer, k, s, i2]
    return total


def shared_block(f: Factors, layer: int, o1: int, o2: int, i1: int, i2: int) -> float:  # MiSS
    return f["D"][layer, o2, i2]


def dense(f: Factors, layer: int, i: int, j: int) -> float:
    return f["W"][layer, i, j]


RING = {"model": 2, "layer": 3, "proj": 2, "head": 1, "dim": 3}
CORES = {"in": (2, 6, 2), "out": (2, 4, 3)}  # those of A and B each hold a mode beside a piece of the bottleneck
PAPERS: dict[str, tuple[str, Any, Callable[..., float], dict[str, Any]]] = {
    "tensor_ring": (TIED, RING, tensor_ring, {}),
    "block_term": (": head dim : model", {"head": 2, "dim": 1, "model": 3}, block_terms, {"terms": 3}),
    "loha": ("layer : out : in", 3, loha, {}),
    "kronecker": (TWO, 2, kronecker, {}),
    "kronecker full": (TWO, 2, kronecker_full, {"full": True}),
    "randlora": (": out1 : in1", 2, randlora_tall, {}),
    "randlora wide": (FREE, 2, randlora_wide, {}),
    "lora_xs": (FREE, 3, xs, {}),
    "tinylora": (FREE, 4, tinylora, {"svd_rank": 3}),
    "tinylora tied": ("layer : out : in", 4, tinylora_tied, {"svd_rank": 3, "tied": True}),
    "tt_matrix": (THREE, {"out1": 2, "out2": 3}, mpo, {}),
    "tt_matrix tied": ("layer proj : out : in", {"layer": 2, "proj": 3}, mpo_tied, {}),
    "loretta": (TWO, 2, loretta, {"bottleneck": 4, "cores": CORES}),
    "quanta": (f"layer {THREE}", 1, quanta, {}),
    "block_low_rank": (TWO, 2, block_low_rank, {}),
    "block_low_rank interleaved": (": out2 out1 : in1 in2", 2, block_interleaved, {}),
    "khatri_rao": (f"layer {TWO}", 1, khatri_rao, {}),
    "khatri_rao tall": (": out1 out2 : model", 1, khatri_rao_tall, {}),
    "block_circulant": (TWO, 1, circulant, {}),
    "block_circulant corners": (": out1 out3 : in1 in2", 1, circulant, {}),
    "compacter": (f"layer {TWO}", 2, compacter, {}),
    "compacter of three": (f"layer {TWO}", 2, compacter, {"terms": 3}),
    "shared_block": (f"layer {TWO}", 1, shared_block, {}),
    "dense": ("layer : out : in", 1, dense, {}),
    **{name: (*given, {}) for name, given in oracles.PAPERS.items()},
}


def tensor_of(name: str) -> FactoredTensor:
    text, rank, _, options = PAPERS[name]
    sizes = {**SIZES, "out1": 7, "in1": 5} if name == "randlora" else SIZES
    module, layout = get(name.split()[0]), Layout.parse(text, sizes)
    network = module.build(layout, rank, **options)
    tensor = Case(module, network, {}, 3, 0.7, options).start()
    perturb(tensor)
    return tensor


@pytest.mark.parametrize("name", PAPERS)
def test_the_tensor_is_the_papers_equation_entry_by_entry(name: str) -> None:
    tensor = tensor_of(name)
    factors = {key: value.detach().numpy() for key, value in tensor.factors.items()}
    expected = np.zeros(tensor.network.layout.shape)
    for place in np.ndindex(*expected.shape):
        expected[place] = 0.7 * PAPERS[name][2](factors, *place)
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(tensor.full().detach().numpy(), expected, rtol=0, atol=1e-12 * np.abs(expected).max())


def test_every_parameterization_has_its_equation_in_loops() -> None:
    assert {name.split()[0] for name in PAPERS} == set(names())


SQUARE_768 = {"out1": 8, "out2": 12, "out3": 8, "in1": 8, "in2": 8, "in3": 12}
WIDE_4096 = {"out1": 2, "out2": 16, "out3": 8, "out4": 4, "out5": 4, "in1": 16, "in2": 16, "in3": 8, "in4": 2}
FOLDED_4096 = {f"{side}{k}": n for side in ("out", "in") for k, n in enumerate((16, 8, 8, 4), 1)}


def test_counts_are_those_of_the_released_codes() -> None:
    released = Layout.parse(THREE, SQUARE_768)
    cores = {"in": (8, 8, 12, 8), "out": (8, 8, 12, 8)}
    assert get("loretta").build(released, 5, cores=cores).n_params == 2 * 580
    llama = Layout.parse(": out1 out2 out3 out4 out5 : in1 in2 in3 in4", WIDE_4096)
    assert get("loretta").build(llama, 8, cores={4096: (16, 16, 8, 4, 4)}).n_params == 2 * 1952
    folded = Layout.parse(": out1 out2 out3 out4 : in1 in2 in3 in4", FOLDED_4096)
    assert get("quanta").build(folded, 1).n_params == 43_008
    whole = Layout.parse(FREE, {"out": 4096, "in": 4096})
    assert randlora.build(whole, 32).n_params == 128 * (32 + 4096)
    assert lora_xs.build(whole, 25).n_params == 625


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_a_narrower_site_reads_a_slice_of_randloras_wider_bases(rank: int) -> None:
    wide = randlora.build(Layout.parse(FREE, {"out": 12, "in": 9}), rank)
    narrow = randlora.build(Layout.parse("layer : out : model", {"layer": 3, "out": 4, "model": 7}), rank)
    together, alone = Bases([wide, narrow], seed=3), Bases([narrow], seed=3)
    (b, a), (small_b, small_a) = (net.factors[:2] for net in (wide, narrow))
    n = narrow.bonds["n"]
    assert n < wide.bonds["n"] or rank == 5
    assert torch.equal(together.read(narrow, small_b), together.read(wide, b)[:n, :7])  # the larger side is the columns
    assert torch.equal(together.read(narrow, small_a), together.read(wide, a)[:, :4])
    assert torch.equal(together.read(narrow, small_b), alone.read(narrow, small_b))


def test_every_matrix_has_the_same_random_middle_of_tinylora() -> None:
    layouts = (Layout.parse(FREE, {"out": 5, "in": n}) for n in (4, 9))
    nets = [get("tinylora").build(layout, rank) for layout, rank in zip(layouts, (3, 4), strict=True)]
    bases = Bases(nets, seed=3)
    small, large = (bases.read(net, next(f for f in net.factors if f.name == "P")) for net in nets)
    assert torch.equal(small, large[:3])


def test_the_bases_are_the_singular_vectors_of_the_stored_weight() -> None:
    layout = Layout.parse("layer : head dim : in", {**SIZES, "in": 5})
    weight = np.random.default_rng(2).standard_normal(layout.shape)
    found = lora_xs.decompose(lora_xs.build(layout, 2), weight)
    assert (found["A"].shape, found["B"].shape) == ((2, 2, 5), (2, 2, 3, 2))
    for layer in range(2):
        u, s, vt = np.linalg.svd(weight[layer].reshape(6, 5).T, full_matrices=False)  # W0^T, as in the paper's code
        a, b = found["A"][layer], found["B"][layer].reshape(6, 2)
        np.testing.assert_allclose(np.abs(a), np.abs(u[:, :2] * s[:2]).T, atol=1e-12)
        np.testing.assert_allclose(b @ a, (u[:, :2] * s[:2] @ vt[:2]).T, atol=1e-12)


def test_pissas_start_is_the_nearest_matrix_with_equal_halves() -> None:
    layout = Layout.parse("layer : out : in", SIZES)
    weight = np.random.default_rng(2).standard_normal(layout.shape)
    found = lora.decompose(lora.build(layout, 3), weight)
    for layer in range(2):
        a, b, s = found["A"][layer], found["B"][layer], np.linalg.svd(weight[layer], compute_uv=False)
        assert np.linalg.norm(weight[layer] - b @ a) == pytest.approx(math.sqrt((s[3:] ** 2).sum()))
        np.testing.assert_allclose(a @ a.T, np.diag(s[:3]), atol=1e-12)
        np.testing.assert_allclose(b.T @ b, np.diag(s[:3]), atol=1e-12)


@pytest.mark.parametrize("text", [THREE, f"layer proj {THREE}"])
def test_dotas_start_is_the_weights_truncated_train(text: str) -> None:
    layout = Layout.parse(text, SIZES)
    weight = np.random.default_rng(2).standard_normal(layout.shape)
    errors = []
    for rank in (1, 3, 99):  # 99: as wide as the tensor needs and more, which is filled up
        network = tt_matrix.build(layout, rank)
        found = tt_matrix.decompose(network, weight)
        assert {name: value.shape for name, value in found.items()} == {
            f.name: network.shape(f) for f in network.factors
        }
        errors.append(np.linalg.norm(weight - tt_matrix.oracle(layout, found)))
    assert np.linalg.norm(weight) > errors[0] > errors[1] > 0.01
    assert errors[2] < 1e-12


def test_the_papers_starts_are_as_they_are_drawn() -> None:
    with float64():
        wide = Layout.parse(FREE, {"out": 300, "in": 200})
        g = FactoredTensor(randlora.build(wide, 64), scale="paper").factors["G"]
        assert torch.equal(g, torch.full_like(g, 1 / 200))
        folded = Layout.parse(THREE, {**SQUARE_768, "out2": 8, "out3": 12})
        gates = FactoredTensor(get("quanta").build(folded, 1), scale="paper", start="subtract").factors
        for name, n in (("G1", 8 * 12), ("G3", 8 * 8)):
            assert gates[name].abs().max().item() == pytest.approx(1 / math.sqrt(n), rel=1e-2)
        released = Layout.parse(THREE, SQUARE_768)
        deltas = [
            FactoredTensor(get("loretta").build(released, 5), scale="paper", start="paper", seed=seed).delta({}).std()
            for seed in range(20)
        ]
        # alpha / r sqrt(r / ((d + r) (r + d))), as the released code's draws come to
        assert float(torch.stack(deltas).detach().mean()) == pytest.approx(2 * math.sqrt(8) / 776, rel=0.3)
