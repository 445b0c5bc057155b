"""Every published adapter's update from its paper's equation, in plain loops over the raw factors: a second oracle.

Nothing of ``equations`` reads a label, an einsum or a multiplier of the library. Where a site lies in its tensor
follows from its module's name here, the multiplier from the paper's alpha and power of the rank.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from support.equations import PARTS, RANK, ROWS, D, Entry, Factors, Place, cara_released, dota, loretta
from support.models import perturb
from support.published_rows import attached, tiny

import tensoradapt as ta
from tensoradapt import doors, published
from tensoradapt.networks import starts
from tensoradapt.sites.site import Site
from tensoradapt.testing.laws import float64

MODULES = {"query": "q", "key": "k", "value": "v", "attention.output.dense": "o"}
MODULES |= {"intermediate.dense": "up", "output.dense": "down"}
SUBTRACTED = ("pissa", "quanta", "dota", "milora", "olora", "corda-ipm", "corda-kpm")
FREE = [row for row in published.every() if row.layout == (": out : in",) and not starts.get(row.start).needs_batches]


def place_of(site: Site, projections: Sequence[str]) -> Place:
    """The site's place by its module's name."""
    proj = next(proj for name, proj in MODULES.items() if site.module.endswith(name))
    adapted = MODULES.values() if projections == ("all",) else projections
    slots = [(p, b) for p in adapted for b in range(2 if p in ("up", "down") else 1)]
    block = int(re.findall(r"(\d)]", site.name)[0]) if "[" in site.name else 0
    layer = int(re.findall(r"layer[.](\d+)[.]", site.module)[0])
    return Place(layer, proj, slots.index((proj, block)), len(slots))


def by_equation(entry: Entry, factors: Factors, at: Place, shape: tuple[int, int]) -> np.ndarray:
    made = np.zeros(shape)
    for o, i in np.ndindex(*shape):
        made[o, i] = entry(factors, at, o, i)
    return made


def raw(adapter: ta.Adapter, site: Site) -> dict[str, np.ndarray]:
    """Copies of the factors of the tensor that holds a site."""
    number = next(n for n, group in enumerate(adapter.plan.groups) if site in [m.site for m in group.members])
    return {name: value.detach().numpy().copy() for name, value in adapter.factored[number].factors.items()}


def chosen(adapter: ta.Adapter) -> Iterator[Site]:
    """All matrices of the middle layer, and the last layer's first."""
    yield from (site for site in adapter.plan.sites if "layer.1." in site.module)
    yield next(site for site in adapter.plan.sites if "layer.2." in site.module)


def assert_by_equation(name: str, adapter: ta.Adapter, sites: Sequence[Site], projections: Sequence[str]) -> None:
    entry, multiplier = ROWS[name]
    starts = {site.name: raw(adapter, site) for site in sites}
    perturb(adapter)
    for site in sites:
        at, shape = place_of(site, projections), (site.out, site.in_)
        expected = by_equation(entry, raw(adapter, site), at, shape)
        if name in SUBTRACTED:
            expected -= by_equation(entry, starts[site.name], at, shape)
        expected *= multiplier / (math.sqrt(site.in_) if name == "vera" else 1)
        size = np.abs(expected).max()
        assert size > 1e-4, site.name
        np.testing.assert_allclose(adapter.delta(site).detach().numpy(), expected, rtol=0, atol=1e-12 * max(1, size))


@pytest.mark.parametrize("name", published.names())
def test_every_rows_update_is_its_papers_equation(name: str) -> None:
    with float64():
        adapter = attached(name, tiny())
    sites = list(chosen(adapter))
    for site in sites:  # blocks are stacked on the MLP's inner side
        if "[" in site.name:
            block = int(site.name[-2])
            assert (site.rows, site.cols)[site.name[-4:-2] != "up"] == (block * D, (block + 1) * D), site.name
    assert_by_equation(name, adapter, sites, published.get(name).projections)


def test_caras_row_departs_from_the_released_code_as_its_note_says() -> None:
    """Down is the code's; o and up are its transposed, for their P2 is on the output there and on the input here."""
    assert "turns down around: zero on the output of o and up, on the input of down" in published.get("cara").note
    with float64():
        adapter = attached("cara", tiny())
    assert not raw(adapter, next(s for s in adapter.plan.sites if s.coord["proj"] == "o"))["in"].any()
    perturb(adapter)
    for site in (one for one in chosen(adapter) if one.coord["proj"] in ("o", "up", "down")):
        at = place_of(site, published.get("cara").projections)
        code = by_equation(cara_released, raw(adapter, site), at, (D, D))
        expected = code if at.proj == "down" else code.T
        np.testing.assert_allclose(adapter.delta(site).detach().numpy(), expected, rtol=0, atol=1e-12)
        assert np.abs(code - code.T).max() > 1e-3


@pytest.mark.parametrize("scale", ["paper", 3.0])
def test_caras_biases_have_the_multiplier_of_its_tensors(scale: str | float) -> None:
    """The released code adds (x ... + bias) * s."""
    model = tiny()
    with float64():
        plan = ta.plan(
            model, method="cara", paper=True, rank=RANK, **({"scale": scale} if scale != "paper" else {"alpha": 3.0})
        )
        adapter = ta.attach(model, plan)
    perturb(adapter)
    for site in (one for one in chosen(adapter) if one.coord["proj"] in ("o", "up", "down")):
        bias, (_, b) = adapter.bias(site), adapter.pair(site)
        assert bias is not None and b.abs().max() > 0
        torch.testing.assert_close(bias, 3 * adapter.biases[str(site.coord["proj"])], rtol=0, atol=0)
        assert adapter.factored[1].scale == 3


@pytest.mark.parametrize("name", [row.name for row in FREE])
def test_matrices_that_are_not_square_follow_the_same_equation(name: str) -> None:
    model = tiny()
    sites = ta.find_sites(model, ("q", "up", "down"), layers=(1,))
    options: dict[str, Any] = {"options": {"svd_rank": 3}} if name == "tinylora" else {}
    with float64():
        adapter = ta.attach(model, ta.plan(sites, method=name, paper=True, rank=RANK, **options), seed=2)
    assert {(site.out, site.in_) for site in sites} == {(30, 30), (60, 30), (30, 60)}
    assert_by_equation(name, adapter, sites, ("q", "up", "down"))


def test_a_core_of_loretta_may_hold_a_mode_and_a_piece_of_the_bottleneck() -> None:
    """As at width 4096, where the released cores are 16, 16, 8, 4, 4 for a bottleneck of 8."""
    cores = {"A": (5, 3, 4, 2), "B": (2, 4, 3, 5)}
    options = {"bottleneck": 4, "cores": {"in": cores["A"], "out": cores["B"]}}
    model, split = tiny(), {"in": (5, 3, 2), "out": (2, 3, 5)}
    with float64():
        adapter = ta.attach(
            model, ta.plan(model, method="loretta-rep", paper=True, rank=RANK, split=split, options=options)
        )
    perturb(adapter)
    site = next(chosen(adapter))
    entry = functools.partial(loretta, cores, 4)
    expected = 4 * by_equation(entry, raw(adapter, site), place_of(site, ("q", "v")), (D, D))
    np.testing.assert_allclose(adapter.delta(site).detach().numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "vectors", "left"), [("pissa", 2, 0.5), ("lora-xs", 2, 0.0), ("tinylora", 3, 0.5), ("dota", 0, 0)]
)
def test_what_comes_from_the_weights_is_their_singular_value_decomposition(
    name: str, vectors: int, left: float
) -> None:
    """B takes the power ``left`` of the singular values, A the rest; DoTA's train is the weight's truncated one."""
    base, model = tiny(), tiny()
    with float64():
        adapter = attached(name, model)
    for site in chosen(adapter):
        weight = dict(base.named_parameters())[f"{site.module}.weight"].detach().numpy()
        factors = raw(adapter, site)
        if name == "dota":
            found = by_equation(dota, factors, place_of(site, ("q", "v")), (D, D))
            np.testing.assert_allclose(found, truncated_train(weight), rtol=0, atol=1e-12)
            continue
        u, s, vt = np.linalg.svd(weight)
        a, b = factors["A"], factors["B"]
        np.testing.assert_allclose(b @ a, (u[:, :vectors] * s[:vectors]) @ vt[:vectors], rtol=0, atol=1e-12)
        np.testing.assert_allclose(np.linalg.norm(b, axis=0), s[:vectors] ** left, rtol=1e-12)
        np.testing.assert_allclose(np.linalg.norm(a, axis=1), s[:vectors] ** (1 - left), rtol=1e-12)


def truncated_train(weight: np.ndarray) -> np.ndarray:
    """The matrix whose axes are folded and paired (o1 i1), (o2 i2), (o3 i3), cut to rank 2 from the left twice."""
    paired = weight.reshape(*PARTS, *PARTS).transpose(0, 3, 1, 4, 2, 5)
    u, s, vt = np.linalg.svd(paired.reshape(4, -1), full_matrices=False)
    rest = (s[:RANK, None] * vt[:RANK]).reshape(RANK * 9, 25)
    p, t, qt = np.linalg.svd(rest, full_matrices=False)
    inner = ((p[:, :RANK] * t[:RANK]) @ qt[:RANK]).reshape(RANK, -1)
    made = (u[:, :RANK] @ inner).reshape(2, 2, 3, 3, 5, 5)
    return made.transpose(0, 2, 4, 1, 3, 5).reshape(D, D)


def test_every_row_has_an_equation() -> None:
    of_extras = {name for names in doors.listed().values() for name in names.get("rows", ())}  # also of deleted ones
    assert set(ROWS) == {*published.names(), *of_extras}
    assert {row.name for row in published.every() if starts.get(row.start).update == "subtract"} == set(
        SUBTRACTED
    ) & set(published.names())


def test_a_multiplier_of_unit_variance_bases_is_that_of_the_papers_draws() -> None:
    """VeRA's code draws A and B uniformly within sqrt(6 / fan in), of variance 2 / fan in; the library holds them with
    variance 1 and moves the root of that to the multiplier.
    """
    bounds = math.sqrt(6 / D) * math.sqrt(6 / RANK)
    assert bounds / 3 == pytest.approx(ROWS["vera"][1] / math.sqrt(D), rel=1e-14)
    with float64():
        adapter = attached("vera", tiny())
    entries = torch.cat([adapter.bases.A.flatten(), adapter.bases.B.flatten()])
    assert entries.abs().max() <= math.sqrt(3)
    assert float(entries.square().mean()) == pytest.approx(1, abs=0.2)
