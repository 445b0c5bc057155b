"""What is known about the published adapters, claim by claim: the library's objects against plain numpy.

Claims 1 to 7: equivalences; 13 to 17: what the first step changes, and what a learning rate means; 10 to 12, 19 and 21,
on tiny models of real families: starts, heads and memory.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from support.models import GROUPED, inputs, make, perturb
from support.published_rows import attached, tiny
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import tensoradapt as ta
from tensoradapt import parameterizations, published
from tensoradapt.adapter.factored import FactoredTensor
from tensoradapt.networks import mapped
from tensoradapt.networks.layout import Layout
from tensoradapt.networks.network import Network
from tensoradapt.planning.variant import Variant
from tensoradapt.testing.laws import float64

D, H, DIM, L = 30, 5, 6, 3  # the tiny BERT's width, heads, head dimension and layers


ATTENTION = ("q", "k", "v", "o")


def adapter_of(
    projections: Sequence[str], layout: str | None = None, blocks: bool = False, **settings: Any
) -> ta.Adapter:
    """An adapter of the tiny BERT whose factors are all normal."""
    sites = ta.find_sites(make("bert").config, projections, blocks=blocks)
    with float64():
        adapter = ta.Adapter(ta.plan(sites, layout=layout, **settings))
    perturb(adapter, 0.7)
    return adapter


def raw(adapter: ta.Adapter, number: int = 0) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy().copy() for name, value in adapter.factored[number].factors.items()}


def put(adapter: ta.Adapter, values: Factors, number: int = 0) -> None:
    for name, value in values.items():
        held = adapter.factored[number].factors[name]
        assert held.shape == value.shape, f"{name} is {tuple(held.shape)}, given were {value.shape}"
        held.data.copy_(torch.from_numpy(np.ascontiguousarray(value)))


def delta(adapter: ta.Adapter, site: Any) -> np.ndarray:
    return adapter.delta(site.name).detach().numpy()


def khatri_rao(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.stack([np.kron(left[:, k], right[:, k]) for k in range(left.shape[1])], axis=1)


# the one factor that each source starts at zero; all rows but those of claim 12
ZERO = {
    **dict.fromkeys(("lora", "rslora", "lora+", "hira"), "B"),
    **dict.fromkeys(("lorta", "lorta-litgpt", "lorta-peft"), "dim"),  # the code's B, (r, d/H)
    **dict.fromkeys(("lotr", "flora", "polar", "tenslora+"), "core"),
    **dict.fromkeys(("fact-tt", "fact-tk", "aurora"), "out"),  # V
    **{"metatt-4d": "out", "metatt-5d": "dim", "metatt-4+1d": "out"},
    **dict.fromkeys((name for name in published.names() if name.startswith("tenslora-cp")), "in"),
    **dict.fromkeys((name for name in published.names() if name.startswith("tenslora-") and "cp" not in name), "core"),
    **dict.fromkeys(("lora-fa", "nola", "sharelora-a", "sharelora-b", "sharelora-ab", "tied-lora"), "B"),
    **{"cara": "in", "vera": "b", "randlora": "L", "tinylora": "v", "loha": "A2", "lokr": "C"},
    **{"krona": "C", "phm": "out2", "compacter": "S", "gralora": "B", "more": "B", "kradapter": "U", "c3a": "K"},
    **dict.fromkeys(("miss", "miss-mini"), "D"),
    **{"mica": "A", "eva": "B", "abba": "B2"},
}


def started(name: str) -> tuple[ta.Adapter, torch.nn.Module]:
    model = tiny()
    with float64():
        return attached(name, model), model


Factors = Mapping[str, np.ndarray]


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


def first_step(network: Network, seed: int, random_signs: bool = False) -> float:
    """The RMS of the update per unit (alpha lr) after a sign step of the zero factor, for a normal gradient.

    ``random_signs``: the step of a gradient whose entries are independent, as the factor's own are where it is small.
    """
    generator = torch.Generator().manual_seed(1000 + seed)
    with float64():
        tensor = FactoredTensor(network, scale="paper", alpha=1.0, seed=seed)
    value, full = tensor.trained[network.zero.name], tensor.full()
    if random_signs:
        sign = torch.randn(value.shape, generator=generator).sign()
    else:
        slope = torch.randn(full.shape, generator=generator, dtype=torch.float64)
        (gradient,) = torch.autograd.grad((full * slope).sum(), value)
        sign = gradient.sign()
    with torch.no_grad():
        value.copy_(sign)
        return float(tensor.full().square().mean().sqrt())


def mean_step(network: Network, seeds: int = 3, **how: bool) -> float:
    return float(np.mean([first_step(network, seed, **how) for seed in range(seeds)]))


def sized(text: str, d: int, heads: int, layers: int, proj: int = 4) -> Layout:
    sizes = {"layer": layers, "proj": proj, "head": heads, "dim": d // heads, "model": d, "out": d, "in": d}
    return Layout.parse(text, sizes)


CP, LORTA = parameterizations.get("cp"), "layer proj : head dim : model"
TABLE = {4: (4.3e-2, 2.6e-3, 1.8e-2), 16: (1.4e-3, 1.0e-4, 9.2e-3), 128: (8.8e-6, 6.0e-7, 3.7e-3)}


@pytest.mark.parametrize("rank", TABLE)
def test_claim_13_loras_first_step_falls_as_the_root_of_the_rank_and_lortas_as_its_fifth_power(rank: int) -> None:
    """At d = 256, H = L = M = 4: LoRTA (init_scale 0, 1) and LoRA. Theory: LoRTA (1/r) sqrt(r) (3 r)^-1/2 (2/r)^3/2, of
    any width; LoRA (1/r) sqrt(r) (3 d)^-1/2. A draw has r components of 12 small factors, so the mean of four is within
    30 %.
    """
    layout = sized(LORTA, 256, 4, 4)
    official = CP.build(layout, rank)
    other = Variant(CP, draws=dict.fromkeys(("layer", "proj", "head"), ("uniform", 1 / math.sqrt(rank))))
    lorta = mean_step(official, 4)
    assert lorta == pytest.approx(TABLE[rank][0], rel=0.3)
    assert lorta == pytest.approx(math.sqrt(8 / 3) * rank**-2.5, rel=0.3)
    narrow = mean_step(CP.build(sized(LORTA, 64, 4, 4), rank), 4)
    assert narrow == pytest.approx(lorta, rel=0.4)  # does not depend on d
    # init_scale 1 draws from the same numbers, within 1 / sqrt(r) and not sqrt(6 / r), three factors of them
    assert first_step(other.build(layout, rank), 0) == pytest.approx(first_step(official, 0) / 6**1.5, rel=1e-9)
    assert lorta / 6**1.5 == pytest.approx(TABLE[rank][1], rel=0.3)
    lora = mean_step(parameterizations.get("lora").build(sized(": out : in", 256, 4, 4), rank))
    assert lora == pytest.approx(TABLE[rank][2], rel=0.05)
    assert lora == pytest.approx(1 / math.sqrt(3 * 256 * rank), rel=0.15)
    # factors of size 1 and an input factor of LoRA's size restore its law
    ones = {"model": ("uniform", 1 / 16), **dict.fromkeys(("layer", "proj", "head"), ("uniform", math.sqrt(3)))}
    assert mean_step(Variant(CP, draws=ones).build(layout, rank), 4) == pytest.approx(lora, rel=0.3)


@pytest.mark.parametrize("rank", [1, 4, 16, 64])
def test_claim_14_lotrs_first_step_is_its_scale_at_every_rank(rank: int) -> None:
    """U G V / r with normal U, V and a core of signs has RMS 1, whatever the rank and width: 100 steps of LoRA at r = 4
    and d = 768. The signs of a real gradient are correlated, for what U and V span: 1.17 at r = 64 and d = 256.
    """
    row = published.get("lotr")
    family = Variant(parameterizations.get("tucker"), draws=row.draws, power=row.power)
    network = family.build(sized("layer : out : in", 256, 4, 4), rank, **row.options)
    assert mean_step(network, random_signs=True) == pytest.approx(1, abs=0.06)
    assert 0.94 < mean_step(network) < 1.25
    if rank == 4:
        wide = family.build(sized("layer : out : in", 768, 4, 2), rank, **row.options)
        lora = 1 / math.sqrt(3 * 768 * 4)
        assert mean_step(wide, 2, random_signs=True) / lora == pytest.approx(96, rel=0.06)


def moved(tensor: FactoredTensor, change: Callable[[Mapping[str, Tensor]], None], steps: int = 5) -> list[Tensor]:
    """The tensor with changed factors, before and after a few steps of Adam towards a fixed one."""
    own = copy.deepcopy(tensor)
    with torch.no_grad():
        change(own.trained)
    target = torch.randn(own.network.layout.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    optimizer, seen = torch.optim.Adam(own.parameters(), lr=0.02), [own.full().detach()]
    for _ in range(steps):
        optimizer.zero_grad()
        (own.full() - target).square().sum().backward()
        optimizer.step()
    return [*seen, own.full().detach()]


def assert_gauge(tensor: FactoredTensor, change: Callable[[Mapping[str, Tensor]], None], same_path: bool) -> None:
    (before, after), (changed, elsewhere) = moved(tensor, lambda _: None), moved(tensor, change)
    torch.testing.assert_close(changed, before, rtol=0, atol=1e-12)
    travelled, apart = float((after - before).norm()), float((elsewhere - after).norm())
    assert apart < 1e-9 * travelled if same_path else apart > 0.1 * travelled, (apart, travelled)


def test_claim_16_adam_sees_the_gauge_that_the_update_does_not() -> None:
    """A CP component's factors by c and 1 / c: same update, another path. Components in another order: same path."""
    tensor = adapter_of(("q", "v"), method="lorta", paper=True, rank=3).factored[0]

    def scaled(f: Mapping[str, Tensor]) -> None:
        f["head"][:, 1] *= 5
        f["layer"][:, 1] /= 5

    def reordered(f: Mapping[str, Tensor]) -> None:
        for value in f.values():
            value.copy_(value[:, [2, 0, 1]])

    assert_gauge(tensor, scaled, same_path=False)
    assert_gauge(tensor, reordered, same_path=True)


@pytest.mark.parametrize("bond", [("in", "layer"), ("layer", "proj"), ("proj", "out")])
def test_claim_16_every_bond_of_a_train_has_a_matrix_of_freedom(bond: tuple[str, str]) -> None:
    """G_k X and X^-1 G_{k+1} for any invertible X."""
    tensor = adapter_of(("q", "v"), method="metatt-4d", paper=True, rank=2).factored[0]
    x = torch.tensor([[1.0, 4.0], [-0.5, 0.25]], dtype=torch.float64)

    def turned(f: Mapping[str, Tensor]) -> None:
        f[bond[0]].copy_(torch.tensordot(f[bond[0]], x, 1))
        f[bond[1]].copy_(torch.tensordot(torch.linalg.inv(x), f[bond[1]], 1))

    assert_gauge(tensor, turned, same_path=False)


def regression_loss(name: str, rates: dict[str, float]) -> float:
    """The loss of a tiny BERT without dropout after 20 steps towards another one's logits, from 0.0138 at the start."""
    target, model = make("bert"), make("bert")
    with float64():
        teacher = ta.attach(target, ta.plan(target, method="cp", rank=3, scale=1.0))
        ta.attach(model, ta.plan(model, method=name, paper=True, rank=3, rates=rates, alpha=4.0, train=()))
    perturb(teacher, 0.6)
    with torch.no_grad():
        wanted = target(**inputs("bert")).logits
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0

    def loss(student: torch.nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        return (student(**batch).logits - wanted).square().mean()

    return ta.fit(model, [inputs("bert")] * 20, lr=1e-3, steps=20, warmup=0, loss=loss).losses[-1]


FACTORS = {"lora": ("A", "B"), "tenslora-att_qkv_depth": ("in", "layer", "proj", "head", "dim", "core")}


@pytest.mark.parametrize("name", FACTORS)
def test_claim_17_a_higher_rate_for_the_zero_factor_lowers_the_loss(name: str) -> None:
    """LoRA+ and TensLoRA+: B, or the core, at 8 times the rate of the others; it helps more than the reverse."""
    others = [factor for factor in FACTORS[name] if factor != ZERO[name]]
    plain, faster, slower = (
        regression_loss(name, dict.fromkeys(raised, 8.0)) for raised in ((), (ZERO[name],), others)
    )
    assert faster < plain / 2
    assert faster < 0.8 * slower


def slopes(adapter: ta.Adapter, model: torch.nn.Module) -> list[dict[str, bool]]:
    """Return which factors of each tensor have a gradient that is not exactly zero."""
    adapter.zero_grad()
    model(**inputs("bert"), labels=torch.tensor([2, 5])).loss.backward()
    trained = [dict(part.trained.items()) for part in adapter.factored]
    if adapter.mapped:  # the numbers of each factor
        names = [mapped.entries(part.network) for part in adapter.factored]
        trained = [{x: adapter.mapped.numbers[f"{i}_{x}"] for x in of} for i, of in enumerate(names)]
    return [
        {name: bool(value.grad is not None and value.grad.count_nonzero()) for name, value in named.items()}
        for named in trained
    ]


@pytest.mark.parametrize("name", [name for name in ZERO if name in published.names()])
def test_claim_10_one_zero_factor_is_an_update_of_zero_and_alone_has_a_gradient(name: str) -> None:
    adapter, model = started(name)
    assert not any(adapter.delta(site).count_nonzero() for site in adapter.plan.sites)
    for live in slopes(adapter, model):
        assert {factor for factor, moves in live.items() if moves} == {ZERO[name]}


@pytest.mark.parametrize("name", ["lorta", "tenslora-att_qkv_depth", "fact-tk", "metatt-5d", "lora", "vera", "loha"])
def test_claim_11_two_zero_factors_never_move(name: str) -> None:
    """Every gradient is exactly zero, whatever the second factor; so a network that asks for two is refused."""
    for second in started(name)[0].factored[0].trained:
        if second == ZERO[name]:
            continue
        adapter, model = started(name)
        for part in adapter.factored:
            part.trained[second].data.zero_()
        assert not any(any(live.values()) for live in slopes(adapter, model)), second
    network = adapter.factored[0].network
    with pytest.raises(ta.TensorAdaptError, match=r"expected exactly one .two never train"):
        replace(network, factors=tuple(replace(f, init="zero") for f in network.factors))


def test_claim_11_nola_without_its_frozen_base_would_be_dead() -> None:
    """A = A0 + sum_i a_i A_i and B = sum_i b_i B_i, with a = b = 0: only A0 makes it move. In plain torch."""
    generator = torch.Generator().manual_seed(0)
    bases = [torch.randn(3, *shape, generator=generator) for shape in ((2, 5), (4, 2))]
    start, slope = torch.randn(2, 5, generator=generator), torch.randn(4, 5, generator=generator)
    for offset in (torch.zeros(2, 5), start):
        a, b = (torch.zeros(3, requires_grad=True) for _ in range(2))
        update = torch.tensordot(b, bases[1], 1) @ (offset + torch.tensordot(a, bases[0], 1))
        (update * slope).sum().backward()
        assert (bool(a.grad.count_nonzero()), bool(b.grad.count_nonzero())) == (False, bool(offset.count_nonzero()))


def there(*names: str) -> list[str]:
    """The rows of these names that are there, as those of extras may be deleted."""
    return [name for name in names if name in published.names()]


def test_claim_12_five_rows_do_not_start_at_zero_and_three_subtract_where_they_do() -> None:
    """LoRETTA, TT-LoRA, StelLA and, at 1e-5, LoRA-XS; QuanTA, DoTA, PiSSA are zero by subtraction, which any may be."""
    later = ("milora", "olora", "corda-ipm", "corda-kpm")
    away = {"loretta-rep", "tt-lora", "lora-xs", "stella", "stella-diagonal", "quanta", "dota", "pissa", *later}
    assert set(published.names()) - set(ZERO) == {*away, "lora-sb", "unilora"} & set(published.names())
    for name in there("stella", "stella-diagonal", "loretta-rep", "tt-lora", "lora-xs"):
        adapter, _ = started(name)
        assert all(adapter.delta(site).count_nonzero() for site in adapter.plan.sites)
        model = tiny()
        with float64():
            subtracted = attached(name, model, start="subtract")
        assert not any(subtracted.delta(site).count_nonzero() for site in adapter.plan.sites)
    middles = torch.cat([part.factors["R"].detach().flatten() for part in adapter.factored])  # LoRA-XS's R
    assert 0.5e-5 < float(middles.square().mean().sqrt()) < 1.6e-5
    for name in there("quanta", "dota", "pissa", *later):
        adapter, model = started(name)
        assert all(value.count_nonzero() for part in adapter.factored for value in part.trained.values())
        assert not any(adapter.delta(site).count_nonzero() for site in adapter.plan.sites)
        assert all(all(live.values()) for live in slopes(adapter, model))  # unlike a zero factor, all move at once


def heads_changed(name: str, model: str, head: int = 1) -> dict[str, list[tuple[set[int], set[int]]]]:
    """Which heads of rows, and of columns, change in each matrix where one row of the head factor is set to zero."""
    base = make(model)
    with float64():
        adapter = ta.Adapter(ta.plan(base, method=name, paper=True, rank=2, on_mismatch="split"))
    perturb(adapter)
    before = {site.name: delta(adapter, site).copy() for site in adapter.plan.sites}
    for part in adapter.factored:
        part.trained["head"].data[head] = 0
    found: dict[str, Any] = {}
    for site in adapter.plan.sites:
        changed = delta(adapter, site) != before[site.name]
        dim = dict(site.inner)["dim"]
        rows, cols = ({n // dim for n in np.flatnonzero(changed.any(axis))} for axis in (1, 0))
        found.setdefault(site.coord["proj"], []).append((rows, cols))
    return found


@pytest.mark.parametrize("model", ["bert", "gpt2", *GROUPED])
def test_claim_19_a_row_of_the_head_factor_is_one_head_of_q_k_v_and_of_what_o_reads(model: str) -> None:
    for proj, places in heads_changed("lorta", model).items():
        assert len(places) == 3
        for rows, cols in places:
            mine, others = (cols, rows) if proj == "o" else (rows, cols)
            assert mine == {1}
            assert len(others) > 1


class Largest(TorchDispatchMode):
    """The most numbers that one operation makes, views of a given tensor aside."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.known, self.n = weight.untyped_storage().data_ptr(), 0

    def is_new(self, value: Any) -> bool:
        return isinstance(value, Tensor) and value.untyped_storage().data_ptr() != self.known

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        parts = made if isinstance(made, tuple | list) else (made,)
        self.n = max([self.n, *(t.numel() for t in parts if self.is_new(t))])
        return made


@pytest.mark.parametrize("name", ["lorta", "lora", "metatt-5d", "tenslora-att_qkv_depth", "vera", "cara"])
def test_claim_21_neither_pass_makes_or_keeps_a_matrix_of_the_models_width(name: str) -> None:
    """The released LoRTA forms the dense updates of all 4 L matrices; here only rows of the rank are made besides x."""
    d, tokens, rank = 256, 5, 4
    config = transformers.BertConfig(
        hidden_size=d, num_attention_heads=8, num_hidden_layers=2, intermediate_size=2 * d, vocab_size=20
    )
    torch.manual_seed(0)
    model = transformers.BertModel(config)
    adapter = ta.attach(model, ta.plan(model, method=name, paper=True, rank=rank))
    perturb(adapter)
    site = next(site for site in adapter.plan.sites if site.coord["proj"] == "v")
    layer, kept = model.get_submodule(site.module), []
    x = torch.randn(1, tokens, d)
    whole = Largest(layer.weight)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t), whole:
        layer(x).sum().backward()
    own = [t.numel() for t in kept if whole.is_new(t)]
    assert d * rank in own
    assert max(own) <= d * max(rank, tokens)
    assert whole.n <= 2 * d * max(rank, tokens) < d * d
    with Largest(layer.weight) as dense:
        adapter.delta(site)
    assert dense.n >= d * d
