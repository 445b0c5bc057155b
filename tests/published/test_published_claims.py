"""What is known about the published adapters, claim by claim: the library's objects against plain numpy.

Claims 1 to 7, equivalences, are here; 10 to 12, 19 and 21, on real models, in ``test_published_claims_on_models``; 13
to 17, first steps, in ``test_published_claims_of_scale``.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from support.claims import ATTENTION, DIM, D, H, L, adapter_of, delta, khatri_rao, put, raw
from support.models import make, perturb

import tensoradapt as ta
from tensoradapt.testing.laws import float64


def assert_same_updates(one: ta.Adapter, other: ta.Adapter) -> None:
    for site, twin in zip(one.plan.sites, other.plan.sites, strict=True):
        assert site.module == twin.module
        size = np.abs(delta(one, site)).max()
        assert size > 1e-3
        np.testing.assert_allclose(delta(other, twin), delta(one, site), rtol=0, atol=1e-13 * max(1, size))


def unfolded(tensor: np.ndarray, mode: int) -> np.ndarray:
    return np.moveaxis(tensor, mode, 0).reshape(tensor.shape[mode], -1)


def diagonals(rows: np.ndarray) -> np.ndarray:  # (n, r) -> (r, n, r)
    return np.stack([np.diag(row) for row in rows], axis=1)


@pytest.mark.parametrize("rank", [2, 4])
def test_claim_01_a_slice_of_lorta_is_a_diagonal_between_two_shared_matrices(rank: int) -> None:
    """W_l,m = A diag(C_L[l] o C_M[m]) KR(C_H, B)^T, so its rank is r, and no unfolding of the tensor has more."""
    adapter = adapter_of(ATTENTION, method="lorta", paper=True, rank=rank)
    f, u = raw(adapter), khatri_rao(raw(adapter)["head"], raw(adapter)["dim"])
    for n, site in enumerate(adapter.plan.sites):
        layer, proj = divmod(n, 4)
        update = 16 / rank * f["model"] @ np.diag(f["layer"][layer] * f["proj"][proj]) @ u.T  # x W: (in, out)
        np.testing.assert_allclose(delta(adapter, site), update if proj == 3 else update.T, rtol=0, atol=1e-13)
        assert np.linalg.matrix_rank(delta(adapter, site)) == rank
    full = adapter.factored[0].full().detach().numpy()
    assert full.shape == (L, 4, H, DIM, D)
    assert [np.linalg.matrix_rank(unfolded(full, m)) for m in range(5)] == [min(rank, n) for n in full.shape]


@pytest.mark.parametrize("number", range(4))
def test_claim_02_the_fast_forward_is_the_dense_one(number: int) -> None:
    """((x A) o s) U^T for q, k, v; for o, whose heads are on its input, ((x U) o s) A^T."""
    model = make("bert")
    with float64():
        adapter = ta.attach(model, ta.plan(model, method="lorta", paper=True, rank=2))
    perturb(adapter)
    f, u = raw(adapter), khatri_rao(raw(adapter)["head"], raw(adapter)["dim"])
    site = adapter.plan.sites[4 * 2 + number]  # in layer 2
    layer, x = model.get_submodule(site.module), torch.randn(2, 7, D, dtype=torch.float64)
    found = (layer(x) - layer.base(x)).detach().numpy()
    s, wide = f["layer"][2] * f["proj"][number] * 8, (f["model"], u)
    first, second = reversed(wide) if number == 3 else wide
    np.testing.assert_allclose(found, ((x.numpy() @ first) * s) @ second.T, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found, x.numpy() @ delta(adapter, site).T, rtol=0, atol=1e-12)


def test_claim_03_lorta_is_metatt_5d_with_diagonal_cores() -> None:
    """With G[:, n, :] = diag(C[n]) in the middle a train of rank r is CP of rank r; a general train is more."""
    cp = adapter_of(("q", "v"), method="lorta-litgpt", paper=True, rank=2)
    train, f = adapter_of(("q", "v"), method="metatt-5d", paper=True, rank=2), raw(cp)
    free = train.factored[0].full().detach().numpy()
    assert np.linalg.matrix_rank(unfolded(free, 0)) == L > 2  # the layers' mode: up to r^2, which CP of rank r is not
    middle = {mode: diagonals(f[mode]) for mode in ("layer", "proj", "head")}
    put(train, {"in": f["in"], **middle, "dim": 16 / 2 * f["dim"].T})
    assert_same_updates(cp, train)


def test_claim_04_tucker_holds_cp_and_lotr_and_fact_tk_holds_tucker_2() -> None:
    """CP is Tucker with a superdiagonal core, LoTR Tucker whose layer factor is the identity, FacT-TK Tucker-3."""
    cp = adapter_of(("q", "k", "v"), method="lorta-litgpt", paper=True, rank=3)
    tucker, core = adapter_of(("q", "k", "v"), method="tenslora-att_qkv_depth", paper=True, rank=3), np.zeros((3,) * 5)
    for k in range(3):
        core[(k,) * 5] = 16 / 3
    put(tucker, {**raw(cp), "core": core})
    assert_same_updates(cp, tucker)

    lotr = adapter_of(("q", "v"), method="lotr", paper=True, rank=3)
    ranks = {"layer_proj": 6, "out": 3, "in": 3}
    three = adapter_of(("q", "v"), "(layer proj) : out : in", method="tucker", rank=ranks, scale=1 / 3)
    put(three, {**raw(lotr), "layer_proj": np.eye(6)})
    assert_same_updates(lotr, three)

    lotr = adapter_of(("q", "v"), method="lotr", paper=True, rank=2)
    fact = adapter_of(("q", "v"), method="fact-tk", paper=True, rank=2, blocks=True)
    f = raw(fact)
    sums = np.stack([sum(row[p] * f["core"][p] for p in range(2)) for row in f["layer_proj_block"]])
    put(lotr, {"out": f["out"], "in": f["in"], "core": 2 * sums})
    assert_same_updates(fact, lotr)


def test_claim_05_lotr_is_fact_tt_and_metatt_4d_with_one_index_and_cp_where_its_cores_are_diagonal() -> None:
    """One formula, U G_l V: with a core for each matrix, with G_l G_m for a layer's and a matrix's, with diagonals."""
    lotr = adapter_of(("q", "v"), method="lotr", paper=True, rank=2)
    fact = adapter_of(("q", "v"), method="fact-tt", paper=True, rank=2, blocks=True)
    put(fact, {**raw(lotr), "core": raw(lotr)["core"] / 2})
    assert_same_updates(lotr, fact)

    train = adapter_of(("q", "v"), method="metatt-4d", paper=True, rank=2)
    f = raw(train)
    pairs = itertools.product(range(L), range(2))  # the merged index is 2 l + m
    products = np.stack([(f["layer"][:, n] @ f["proj"][:, m]).T for n, m in pairs])
    put(lotr, {"in": f["in"], "out": f["out"].T, "core": 2 * products})
    assert_same_updates(train, lotr)
    merged = adapter_of(("q", "v"), "(layer proj) : out : in", method="tensor_train", rank=2, scale=1.0)
    put(merged, {"in": f["in"], "layer_proj": products.transpose(2, 0, 1), "out": f["out"]})
    assert_same_updates(train, merged)

    cp = adapter_of(("q", "v"), "(layer proj) : out : in", method="cp", rank=2, scale=1 / 2)
    f = raw(cp)
    put(lotr, {"out": f["out"], "in": f["in"], "core": np.stack([np.diag(row) for row in f["layer_proj"]])})
    assert_same_updates(cp, lotr)


def test_claim_06_merging_modes_frees_what_they_tied_and_never_lowers_the_count() -> None:
    """(head dim): a free U. (layer proj): a free diagonal for each matrix. All but the input: one A for everything."""
    rank, sums = 3, {"lm": L + 4, "(lm)": L * 4, "hd": H + DIM, "(hd)": D}

    def made(index: str, rows: str) -> ta.Adapter:
        return adapter_of(ATTENTION, f"{index} : {rows} : model", method="cp", rank=rank, scale=1.0)

    grid = {(i, j): made(i, j) for i in ("layer proj", "(layer proj)") for j in ("head dim", "(head dim)")}
    counts = {
        key: rank * (D + sums["(lm)" if key[0][0] == "(" else "lm"] + sums["(hd)" if key[1][0] == "(" else "hd"])
        for key in grid
    }
    assert {key: adapter.plan.n_params for key, adapter in grid.items()} == counts
    only: Any = {"method": "tucker", "rank": rank, "options": {"only": ("model",)}, "scale": 1.0}
    shared = adapter_of(ATTENTION, "(layer proj) : (head dim) : model", **only)
    least, diagonal, wide, both = (counts[key] for key in sorted(grid, key=counts.__getitem__))
    assert least < diagonal < wide < both < shared.plan.n_params == rank * (D + D * L * 4)

    f = raw(grid["layer proj", "head dim"])
    u = khatri_rao(f["head"], f["dim"])
    s = khatri_rao(f["layer"], f["proj"])
    put(grid["layer proj", "(head dim)"], {"layer": f["layer"], "proj": f["proj"], "head_dim": u, "model": f["model"]})
    put(grid["(layer proj)", "head dim"], {"layer_proj": s, "head": f["head"], "dim": f["dim"], "model": f["model"]})
    put(grid["(layer proj)", "(head dim)"], {"layer_proj": s, "head_dim": u, "model": f["model"]})
    put(shared, {"model": f["model"], "core": s[:, None] * u})
    for merged in (*list(grid.values())[1:], shared):
        assert_same_updates(grid["layer proj", "head dim"], merged)


def test_claim_07_frozen_factors_make_vera_lora_xs_tinylora_and_flora_of_the_shared_ones() -> None:
    """VeRA: merged CP times an output diagonal. LoRA-XS: Tucker-2 of one matrix. TinyLoRA: FacT-TK's core with frozen
    C. FLoRA: LoTR that shares nothing.
    """
    vera = adapter_of(("q", "v"), method="vera", paper=True, rank=4)
    cp = adapter_of(("q", "v"), "(layer proj) : out : in", method="cp", rank=4, scale=2 / math.sqrt(4 * D))
    own = [raw(vera, n) for n in range(6)]
    put(cp, {"in": own[0]["A"].T, "out": own[0]["B"], "layer_proj": np.stack([f["d"] for f in own])})
    for f, site in zip(own, vera.plan.sites, strict=True):
        np.testing.assert_allclose(delta(vera, site), np.diag(f["b"]) @ delta(cp, site), rtol=0, atol=1e-13)

    def one_matrix(name: str) -> ta.Adapter:
        sites = [s for s in ta.find_sites(make("bert").config, ("q",), blocks=True) if s.coord["layer"] == 1]
        with float64():
            return ta.Adapter(ta.plan(sites, method=name, paper=True, rank=2))

    def from_weights(name: str, **settings: Any) -> ta.Adapter:
        model = make("bert")
        with float64():
            adapter = ta.attach(
                model, ta.plan(ta.find_sites(model, ("q",)), method=name, paper=True, rank=2, **settings)
            )
        perturb(adapter)
        return adapter

    lotr, fact = one_matrix("lotr"), one_matrix("fact-tk")
    flora = adapter_of(("q",), method="flora", paper=True, rank=2)
    f = raw(flora, 1)
    put(lotr, {**f, "core": 16 * f["core"][None]})  # alpha
    np.testing.assert_allclose(delta(lotr, lotr.plan.sites[0]), delta(flora, flora.plan.sites[1]), rtol=0, atol=1e-13)
    xs = from_weights("lora-xs")
    f = raw(xs, 1)
    put(lotr, {"out": f["B"], "in": f["A"].T, "core": 16 * f["R"][None]})
    np.testing.assert_allclose(delta(lotr, lotr.plan.sites[0]), delta(xs, xs.plan.sites[1]), rtol=0, atol=1e-12)
    tiny = from_weights("tinylora", options={"svd_rank": 2})
    f = raw(tiny, 1)
    frozen = f["P"] / math.sqrt(2)  # its variance is 1 / svd_rank
    put(fact, {"out": f["B"], "in": f["A"].T, "core": frozen, "layer_proj_block": f["v"][None]})
    np.testing.assert_allclose(delta(fact, fact.plan.sites[0]), delta(tiny, tiny.plan.sites[1]), rtol=0, atol=1e-12)
