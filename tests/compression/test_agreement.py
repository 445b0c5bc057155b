"""Adapters of a library whose A agree more than chance allows, and the spectrum of tasks that share nothing."""

from __future__ import annotations

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
