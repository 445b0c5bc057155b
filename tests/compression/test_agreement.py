"""Adapters of a library whose A agree more than chance allows, and the spectrum of tasks that share nothing."""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.models import make

import tensoradapt as ta
from tensoradapt.adapter.adapter import Adapter
from tensoradapt.compression import agreement
from tensoradapt.compression.compress import compress
from tensoradapt.compression.sources import read

LAYOUT = "task layer proj : out : in"


def drawn(seeds: Mapping[str, int], method: str = "lora", folder: Path | None = None) -> dict[str, Any]:
    """Adapters by name, or their folders: each is drawn by its seed, B too, and every A is moved as training moves it.

    Half of a row's move is along directions that all adapters have in common, with the row's own sign.
    """
    common = torch.randn(3, 30, generator=torch.Generator().manual_seed(7))
    made: dict[str, Any] = {}
    for number, (name, seed) in enumerate(seeds.items()):
        model, g = make("bert"), torch.Generator().manual_seed(number)
        adapter = ta.attach(model, method, rank=4, layout=": out : in", seed=seed)
        for key, value in adapter.named_parameters():
            with torch.no_grad():
                if key.endswith("A"):
                    towards = (value @ common.T).sign() @ common
                    value.add_(0.4 * value.std() * (towards + torch.randn(value.shape, generator=g)))
                else:
                    value.copy_(torch.randn(value.shape, generator=g))
        made[name] = folder / name if folder else adapter
        if folder:
            ta.export_lora(model, folder / name, heads="leave")
    return made


def warned(source: Any, sites: Any = None) -> list[str]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        compress(source, sites, LAYOUT, "tucker", 2)
    assert all(Path(one.filename) == Path(__file__) for one in found)  # the caller's line
    return [str(one.message) for one in found]


@pytest.mark.parametrize("folders", [False, True])
def test_adapters_of_one_seed_are_named_by_groups_and_those_of_own_seeds_are_not(tmp_path: Path, folders: bool) -> None:
    sites = make("bert") if folders else None
    (said,) = warned(drawn({"a": 1, "x": 2, "b": 1, "y": 2, "z": 3}, folder=tmp_path / "1" if folders else None), sites)
    assert re.search(r"allows: 'a', 'b' \(mean cosine 0\.\d+\), 'x', 'y' \(mean cosine 0\.\d+\)\. By chance", said)
    assert "Train each with a seed of its own" in said and "'z'" not in said
    own = drawn({name: seed for seed, name in enumerate("axbyz")}, folder=tmp_path / "2" if folders else None)
    assert warned(own, sites) == []


def test_spaces_of_rows_that_training_turns_alike_are_no_alarm() -> None:
    adapters = drawn({"a": 1, "b": 2})
    one, other = ([np.linalg.qr(rows.T)[0] for rows in agreement.rows_of(read(a))] for a in adapters.values())
    found = sum(np.linalg.norm(p.T @ q) ** 2 for p, q in zip(one, other, strict=True))
    chance, variance = (len(one) * x for x in (4 * 4 / 30, 2 * (4 * 26) ** 2 / (30**2 * 29 * 32)))
    assert found > chance + 10 * variance**0.5  # of uniform spaces; the variance is that of a matrix-variate beta
    assert warned(adapters) == []


def test_libraries_of_independent_signs_raise_no_alarm() -> None:
    g = np.random.default_rng(0)
    for _ in range(300):  # rows along one direction, the worst that training can make of independent draws
        signs = g.choice([-1.0, 1.0], (8, 20, 4, 1)) * np.array([1.0, 0, 0])
        rows = {str(i): list(own) for i, own in enumerate(signs)}
        assert agreement.agreeing(rows) == []


def test_a_certain_agreement_that_is_too_small_to_matter_is_not_named() -> None:
    angle = np.arccos([0.05, 0.2])
    start, turned = np.array([1.0, 0]), np.stack([np.cos(angle), np.sin(angle)], axis=1)
    rows = {name: [np.tile(row, (20, 1))] * 6 for name, row in zip("abc", (start, *turned), strict=True)}
    assert [names for names, _ in agreement.agreeing({name: rows[name] for name in "ab"})] == []
    assert [names for names, _ in agreement.agreeing({name: rows[name] for name in "ac"})] == [["a", "c"]]


def test_a_mean_cosine_is_that_of_the_rows_which_two_have_in_common() -> None:
    g = np.random.default_rng(0)
    rows = {}
    start = g.standard_normal((30, 5, 9))
    for i, name in enumerate("abc"):
        rows[name] = start + (0.5 if name < "c" else 50) * g.standard_normal(start.shape)
        rows[name] /= np.linalg.norm(rows[name], axis=-1, keepdims=True)
        rows[name][:, 3 + i :] = 0  # of lower rank
    ((names, cosine),) = agreement.agreeing({name: list(own) for name, own in rows.items()})
    by_hand = [rows["a"][site, row] @ rows["b"][site, row] for site, row in itertools.product(range(30), range(3))]
    assert names == ["a", "b"] and cosine == pytest.approx(np.mean(by_hand))


def test_a_row_that_several_sites_have_counts_once() -> None:
    model = make("gpt2")
    adapter = ta.attach(model, ta.plan(model, "lora", rank=2, layout=": out : in", projections=["q", "k", "v"]))
    modules = {site.module for site in adapter.plan.sites}
    assert len(agreement.rows_of(read(adapter))) == len(modules) == len(adapter.plan.sites) / 3
    sites = ta.find_sites(make("bert"), ["q", "k"])
    g = np.random.default_rng(0)
    a = g.standard_normal((2, 30))
    tied = {site.name: (a * (1 + i), g.standard_normal((site.out, 2))) for i, site in enumerate(sites)}
    first, *others = agreement.rows_of(read(tied, sites))
    np.testing.assert_allclose(first[:2], a / np.linalg.norm(a, axis=1, keepdims=True), rtol=1e-6)
    assert not any(rows.any() for rows in others)
    dense = {name: b @ a for name, (a, b) in tied.items()}
    assert not any(rows.any() for rows in agreement.rows_of(read(dense, sites)))


def test_factors_of_other_methods_are_not_compared() -> None:
    def adapter(method: str) -> Adapter:
        return ta.attach(make("bert"), method, rank=2, layout=": out : in")

    assert any(rows.any() for rows in agreement.rows_of(read(adapter("lora"))))
    assert not any(rows.any() for rows in agreement.rows_of(read(adapter("tucker"))))


def test_the_null_is_that_of_matrices_with_their_singular_values_and_random_directions() -> None:
    g = np.random.default_rng(1)
    values = g.uniform(0.5, 2, (6, 3, 2))  # adapters, sites, singular values
    squares = np.zeros(6)
    for _ in range(400):
        u, v = (np.linalg.qr(g.standard_normal((6, 3, n, 2)))[0] for n in (5, 4))
        stack = np.einsum("asik,ask,asjk->asij", u, values, v).reshape(6, -1)
        squares += np.linalg.svd(stack, compute_uv=False) ** 2 / 400
    norms, areas = (values**2).sum(-1), np.full(3, 20.0)
    draws = agreement.DRAWS
    try:
        agreement.DRAWS = 400
        found = agreement.null_spectrum(norms, areas) ** 2
    finally:
        agreement.DRAWS = draws
    np.testing.assert_allclose(found, squares, rtol=0.05)
    assert abs(np.sort(norms.sum(1))[::-1] - squares).max() > 0.2 * squares.max()  # norms alone are not it
    few = agreement.null_spectrum(norms, areas)
    np.testing.assert_array_equal(few, agreement.null_spectrum(norms, areas))
    assert (few**2).sum() == pytest.approx(norms.sum())


def test_print_has_the_directions_of_the_tasks_beside_those_of_random_updates() -> None:
    sites = ta.find_sites(make("bert"))
    g = np.random.default_rng(0)
    one = {site.name: (g.standard_normal((2, 30)), g.standard_normal((30, 2))) for site in sites}
    turned: dict[str, Any] = {str(i): {} for i in range(4)}  # one update, in factors whose rows have nothing in common
    for own, (name, (a, b)) in itertools.product(turned.values(), one.items()):
        q = np.linalg.qr(g.standard_normal((2, 2)))[0] * g.choice([-1, 1], 2)[:, None]
        own[name] = (q @ a, b @ q.T)
    result = compress(turned, sites, LAYOUT, "tucker", {"out": 30, "in": 30, "task": 1, "layer": 3, "proj": 4})
    (found,), (null,) = result.task_spectra, result.task_null_spectra
    assert found.shape == null.shape == (4,)
    (line,) = [line for line in str(result).splitlines() if line.startswith("task mode")]
    shares = ", ".join(f"{x:.2f}" for x in null[:3] ** 2 / (null**2).sum())
    assert line == (
        "task mode: the first 3 of 4 directions hold 1.00, 0.00, 0.00 of the squares; "
        f"{shares} if the matrices had random directions"
    )
    assert 0.25 < null[0] ** 2 / (null**2).sum() < 0.3
    assert result.with_adapter("more", one).task_null_spectra[0].shape == (4,)
