"""What ta.sharing says: closed forms against plain algebra, a planted case, and a null that finds nothing."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorly as tl
from scipy import stats
from support.models import make
from tensorly.decomposition import partial_tucker

import tensoradapt as ta
from tensoradapt.errors import TensorAdaptError

RNG = np.random.default_rng


def sites_of(*projections: str) -> Any:
    return ta.find_sites(make("bert"), list(projections))


def wide(layers: int = 3) -> Any:
    sizes = {"hidden_size": 96, "num_attention_heads": 4, "num_hidden_layers": layers, "intermediate_size": 192}
    return ta.find_sites(SimpleNamespace(model_type="bert", **sizes), ["q"])


def noise(sites: Any, rank: int, rng: np.random.Generator, common: np.ndarray | None = None, share: float = 0.0) -> Any:
    """Pairs of random directions; a share of each one's squared norm reads the directions that all have in common."""

    def factor(width: int, n: int, squares: float) -> np.ndarray:
        values = rng.normal(size=(width, n))
        return np.sqrt(squares) * values / np.linalg.norm(values)

    pairs = {}
    for site in sites:
        a, b = np.linalg.qr(rng.normal(size=(site.in_, rank)))[0].T, factor(site.out, rank, 1 - share)
        if common is not None:
            a, b = np.concatenate([a, common]), np.concatenate([b, factor(site.out, len(common), share)], axis=1)
        pairs[site.name] = a, b
    return pairs


def dense(pairs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: b @ a for name, (a, b) in pairs.items()}


def row(table: pd.DataFrame, tied: str, side: str, rank: int) -> pd.Series:
    (found,) = table[(table["tied"] == tied) & (table["side"] == side) & (table["rank"] == rank)].to_dict("records")
    return found


def tail(matrix: np.ndarray, rank: int) -> float:
    """The relative error of the best approximation of that rank."""
    values = np.linalg.svd(matrix, compute_uv=False)
    return float(np.sqrt((values[rank:] ** 2).sum() / (values**2).sum()))


def test_one_side_is_the_best_approximation_of_what_stands_below_or_beside_each_other() -> None:
    sites = sites_of("q")
    updates = dense(noise(sites, 5, RNG(0)))
    stacked, beside = np.concatenate(list(updates.values())), np.concatenate(list(updates.values()), axis=1)
    n, out, in_ = len(sites), sites[0].out, sites[0].in_
    for rank in (1, 2, 4):
        table = ta.sharing(updates, sites, "layer", ranks=[rank], draws=2)
        inputs, outputs = row(table, "layer", "inputs", rank), row(table, "layer", "outputs", rank)
        assert inputs["n_params"] == rank * n * (out + in_)
        for found, matrix, each in ((inputs, stacked, in_ + n * out), (outputs, beside.T, out + n * in_)):
            at = found["n_params"] / each  # the rank, between two whole ones
            low, high = (1 - tail(matrix, int(at) + i) ** 2 for i in (0, 1))
            assert found["error"] == pytest.approx(np.sqrt(1 - low - (at - int(at)) * (high - low)), abs=1e-9)
        squares = sum(tail(update, rank) ** 2 * np.linalg.norm(update) ** 2 for update in updates.values())
        whole = sum(np.linalg.norm(update) ** 2 for update in updates.values())
        assert inputs["lora"] == pytest.approx(np.sqrt(squares / whole), abs=1e-9)


def test_both_sides_are_nearly_what_partial_tucker_finds() -> None:
    sites = sites_of("q", "k")
    common = np.linalg.qr(RNG(1).normal(size=(sites[0].in_, 3)))[0].T
    updates = dense(noise(sites, 4, RNG(2), common, 0.5))
    table = ta.sharing(updates, sites, "layer proj", ranks=[1], draws=2)
    found = row(table, "layer proj", "both", 1)
    stack = tl.tensor(np.stack(list(updates.values())))
    n, out, in_ = stack.shape
    rank = int((np.sqrt((out + in_) ** 2 + 4 * n * found["n_params"]) - out - in_) / (2 * n))
    (core, factors), _ = partial_tucker(stack, rank=[rank, rank], modes=[1, 2], init="svd", n_iter_max=100)
    best = tl.norm(stack - tl.tenalg.multi_mode_dot(core, factors, modes=[1, 2])) / tl.norm(stack)
    assert found["error"] == pytest.approx(best, abs=0.01)


def test_pairs_and_matrices_and_other_factors_of_the_same_update_say_the_same() -> None:
    sites, gauge = sites_of("q", "k", "v"), RNG(4).normal(size=(3, 3))
    pairs = noise(sites, 3, RNG(3))
    other = {name: (gauge @ a, b @ np.linalg.inv(gauge)) for name, (a, b) in pairs.items()}
    tables = [ta.sharing(one, sites, ranks=[1, 2], draws=3) for one in (pairs, other, dense(pairs))]
    for table in tables[1:]:
        pd.testing.assert_frame_equal(tables[0], table, atol=2e-5)  # a draw is in float32
    assert tables[0]["tied"].unique().tolist() == ["layer", "proj", "layer proj"]


@pytest.mark.parametrize("share", [0.4, 0.7, 1.0])
def test_what_was_planted_is_found_at_its_strength(share: float) -> None:
    """With as many parameters as LoRA r=2, three layers with one A have rank 3, which is that of what is common."""
    sites = wide()
    n, own = sites[0].in_, 6
    common = np.linalg.qr(RNG(5).normal(size=(n, 3)))[0].T
    table = ta.sharing(noise(sites, own, RNG(6), common, share), sites, "layer", ranks=[2])
    inputs, outputs = row(table, "layer", "inputs", 2), row(table, "layer", "outputs", 2)
    kept = share + (1 - share) * 3 / n  # and of their own, what lies in three directions by chance
    assert inputs["error"] ** 2 == pytest.approx(1 - kept, abs=0.03)
    assert inputs["p"] < 1e-3 < outputs["p"] and inputs["null"] > inputs["error"] + 0.02
    assert inputs["saved"] > inputs["saved_null"]


def test_updates_that_share_all_inputs_need_one_a() -> None:
    sites, rank = sites_of("q"), 3
    common = np.linalg.qr(RNG(7).normal(size=(sites[0].in_, rank)))[0].T
    found = row(ta.sharing(noise(sites, rank, RNG(8), common, 1.0), sites, "layer", ranks=[rank]), "layer", "inputs", 3)
    n, out, in_ = len(sites), sites[0].out, sites[0].in_
    assert found["error"] < 1e-6 < found["null"]
    assert found["saved"] == pytest.approx(1 - (in_ + n * out) / (n * (in_ + out)), abs=1e-3)


@pytest.mark.thorough
@pytest.mark.parametrize("side", ["inputs", "outputs", "both"])
def test_p_is_uniform_where_nothing_is_shared(side: str) -> None:
    sites, rng = sites_of("q"), RNG(13)
    p = [
        row(ta.sharing(noise(sites, 4, rng), sites, "layer", ranks=[2], seed=i), "layer", side, 2)["p"]
        for i in range(200)
    ]
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert 0 < np.mean(np.array(p) < 0.05) < 0.1  # 0.05 and two deviations of 200 draws


def test_heads_are_tied_where_sites_have_them() -> None:
    sites = sites_of("q")
    updates = dense(noise(sites, 4, RNG(10)))
    heads = dict(sites[0].inner)["head"]
    found = row(ta.sharing(updates, sites, "head", ranks=[2], draws=2), "head", "outputs", 2)
    width, in_ = sites[0].out // heads, sites[0].in_
    at = found["n_params"] / (len(sites) * (width + heads * in_))  # below rank 1, which LoRA's size does not pay for
    kept = 0.0
    for update in updates.values():
        parts = np.concatenate(np.split(update, heads), axis=1)  # (dim, heads in)
        kept += (1 - tail(parts, 1) ** 2) * np.linalg.norm(update) ** 2
    whole = sum(np.linalg.norm(update) ** 2 for update in updates.values())
    assert at < 1 and found["error"] == pytest.approx(np.sqrt(1 - at * kept / whole), abs=1e-9)


def test_several_sources_are_tied_as_tasks() -> None:
    sites = sites_of("q", "v")
    common = np.linalg.qr(RNG(11).normal(size=(sites[0].in_, 2)))[0].T
    seeds = {str(seed): dense(noise(sites, 2, RNG(seed), common, 0.7)) for seed in range(3)}
    table = ta.sharing(seeds, sites, "task", ranks=[1])
    assert table["n_sets"].tolist() == [len(sites)] * 3
    assert row(table, "task", "inputs", 1)["p"] < 1e-3 < row(table, "task", "outputs", 1)["p"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"source": "zero"}, "every update is zero"),
        ({"modes": "user"}, r"modes has 'user', in which no two of the \d+ matrices .* expected .* of layer$"),
        ({"modes": []}, "modes is"),
        ({"ranks": [0]}, "ranks"),
        ({"draws": 1}, "draws is 1; expected a whole number from 2"),
    ],
)
def test_what_cannot_be_tied_is_refused(change: dict[str, Any], said: str) -> None:
    sites = sites_of("q")
    pairs = noise(sites, 2, RNG(12))
    if change.pop("source", None):
        pairs = {name: (a, 0 * b) for name, (a, b) in pairs.items()}
    with pytest.raises(TensorAdaptError, match=said):
        ta.sharing(pairs, sites, **change)


def test_a_rule_that_does_not_add_is_refused() -> None:
    model = make("bert")
    adapter = ta.attach(model, ta.plan(model, "lora", ": out : in", 2, rule="hira"))
    with pytest.raises(TensorAdaptError, match="whose change of a weight is no sum of updates"):
        ta.sharing(adapter)
