"""Mode diagnostics: planted ranks are found, singular values are numpy's, figures show what was given."""

from __future__ import annotations

import importlib
import itertools
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from matplotlib.transforms import Bbox
from support.figures import drawn, faults, lines
from support.models import make, perturb
from support.refusals import refused

import tensoradapt as ta
from tensoradapt.lab.analysis.statistics.spectra import Spectra, advice, check_mode, similarity, spectra
from tensoradapt.layers.stored_matrix import stack

drawing = importlib.import_module("tensoradapt.lab.analysis.plots.spectra")
STACK = ("layer", "proj", "head", "dim", "model")
LARGE = (6, 4, 12, 32, 64)
PLANTED = [  # shape, ranks
    ((6, 4, 12, 16), (3, 2, 4, 5)),
    ((6, 4, 12, 16), (6, 4, 3, 5)),  # layer and proj are all signal
    ((6, 4, 12, 16), (1, 1, 1, 1)),
    ((12, 2, 24, 20), (4, 2, 6, 5)),
    ((3, 4, 8, 10), (3, 4, 2, 2)),
    ((4, 5, 6), (2, 2, 2)),
    ((24, 9, 7), (3, 3, 4)),
    ((6, 10, 11), (6, 7, 8)),  # more than half of every mode is signal
    ((6, 8, 10), (6, 8, 3)),
]


def name(shape: Sequence[int]) -> tuple[str, ...]:
    return STACK[: len(shape)]


def frame(n: int, r: int, rng: np.random.Generator) -> np.ndarray:
    return np.linalg.qr(rng.standard_normal((n, r)))[0]


def planted(shape: Sequence[int], ranks: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """A tensor of exactly these multilinear ranks: a normal core in random orthonormal frames."""
    tensor = rng.standard_normal(ranks)
    for axis, (n, r) in enumerate(zip(shape, ranks, strict=True)):
        tensor = np.moveaxis(np.tensordot(frame(n, r, rng), tensor, (1, axis)), 0, axis)
    return tensor


def with_noise(signal: np.ndarray, rng: np.random.Generator, level: str, snr: float = 10) -> tuple[np.ndarray, float]:
    """The noisy signal and the deviation of its noise; ``level``: what of the signal is ``snr`` times the noise."""
    if level == "root mean square, uniform noise":
        noise = rng.uniform(-math.sqrt(3), math.sqrt(3), signal.shape)
    else:
        noise = rng.standard_normal(signal.shape)
    sigma = {
        "norm": np.linalg.norm(signal) / np.linalg.norm(noise),
        "root mean square, uniform noise": np.sqrt((signal**2).mean()),
        "largest entry": np.abs(signal).max(),
    }[level] / snr
    return signal + sigma * noise, sigma


def unfolded(tensor: np.ndarray, axis: int) -> np.ndarray:
    """Rows: slices of the axis, one after the other, by loops alone."""
    return np.array([tensor.take(i, axis).ravel() for i in range(tensor.shape[axis])])


@pytest.mark.parametrize(("shape", "ranks"), PLANTED)
@pytest.mark.parametrize("level", ["norm", "root mean square, uniform noise"])
def test_planted_ranks_are_found_exactly_at_a_signal_to_noise_ratio_of_10(
    shape: tuple[int, ...], ranks: tuple[int, ...], level: str
) -> None:
    for seed in range(25):
        rng = np.random.default_rng(seed)
        signal = planted(shape, ranks, rng)
        tensor, sigma = with_noise(signal, rng, level)
        found = spectra(tensor, name(shape))
        assert found.noise_rank == dict(zip(name(shape), ranks, strict=True)), seed
        assert found.noise == pytest.approx(sigma, rel=6 / math.sqrt(tensor.size))


@pytest.mark.parametrize("shape", [(6, 4, 12, 16), (7, 7, 7), (12, 12), (50, 3), (1, 5, 9), (30,)])
def test_noise_alone_has_rank_0(shape: tuple[int, ...]) -> None:
    for seed in range(20):
        found = spectra(3 * np.random.default_rng(seed).standard_normal(shape), name(shape))
        assert set(found.noise_rank.values()) == {0}
        assert found.noise == pytest.approx(3, rel=4 / math.sqrt(math.prod(shape)))


@pytest.mark.parametrize(("shape", "ranks"), [*PLANTED, ((5, 40), (3, 3)), ((40, 5, 3), (6, 2, 3))])
def test_without_noise_the_noise_rank_is_the_numerical_rank(shape: tuple[int, ...], ranks: tuple[int, ...]) -> None:
    tensor = planted(shape, ranks, np.random.default_rng(1))
    found = spectra(tensor, name(shape))
    assert tuple(found.noise_rank.values()) == ranks
    assert ranks == tuple(np.linalg.matrix_rank(unfolded(tensor, axis)) for axis in range(len(shape)))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("shape", [(2, 4, 4, 16, 64), (3, 4, 5, 12, 60), LARGE])
def test_the_rounding_of_a_narrower_dtype_has_no_rank(shape: tuple[int, ...], dtype: type) -> None:
    """CP of rank 3, computed in float32 as an adapter does and stored in ``dtype``; its float64 has the same ranks."""
    rng = np.random.default_rng(1)
    factors = [rng.standard_normal((n, 3)).astype(np.float32) for n in shape]
    ranks = dict(zip(STACK, (min(n, 3) for n in shape), strict=True))
    for kind, stored in ((np.float32, dtype), (np.float64, np.float64)):
        stack = np.einsum("ar,br,cr,dr,er->abcde", *(f.astype(kind) for f in factors), optimize=True).astype(stored)
        assert spectra(stack, STACK).noise_rank == ranks


@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 3, 4, 5), (40, 3, 2), (7, 2), (2, 7), (9,), (1, 1, 3)])
def test_singular_values_are_those_of_numpy_for_each_unfolding(shape: tuple[int, ...]) -> None:
    tensor = np.random.default_rng(0).standard_normal(shape)
    found = spectra(tensor, name(shape))
    for axis, mode in enumerate(name(shape)):
        expected = np.linalg.svd(unfolded(tensor, axis), compute_uv=False)
        np.testing.assert_allclose(found.values[mode], expected, rtol=1e-12)


def test_rotations_of_the_modes_change_nothing() -> None:
    rng = np.random.default_rng(0)
    tensor, _ = with_noise(planted((6, 4, 12, 16), (3, 2, 4, 5), rng), rng, "norm")
    turned = tensor
    for axis, n in enumerate(tensor.shape):
        turned = np.moveaxis(np.tensordot(frame(n, n, rng), turned, (1, axis)), 0, axis)
    a, b = spectra(tensor, STACK[:4]), spectra(turned, STACK[:4])
    for mode in a.values:
        np.testing.assert_allclose(a.values[mode], b.values[mode], rtol=1e-10)
    assert (a.noise_rank, a.rank_for(0.99)) == (b.noise_rank, b.rank_for(0.99))


def test_similarity_is_1_for_slices_that_differ_in_norm_and_0_for_orthogonal_ones() -> None:
    a, b = np.random.default_rng(0).standard_normal((2, 4, 5))
    b -= a * (a * b).sum() / (a * a).sum()
    stack = np.stack([a, 3 * a, -a, b, 0 * b], axis=1)
    expected = np.zeros((5, 5))
    expected[:3, :3] = np.outer([1, 1, -1], [1, 1, -1])
    expected[3, 3] = 1
    np.testing.assert_allclose(similarity(stack, ("out", "layer", "in"), "layer"), expected, atol=1e-15)


def test_similarity_is_the_cosine_of_each_pair() -> None:
    tensor = np.random.default_rng(0).standard_normal((3, 4, 5))
    found = similarity(tensor, STACK[:3], "proj")
    for i, j in itertools.product(range(4), repeat=2):
        a, b = tensor[:, i], tensor[:, j]
        assert found[i, j] == pytest.approx((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))
    assert (np.diag(found) == 1).all()


def stack_with_one_layer_direction() -> Spectra:
    rng = np.random.default_rng(0)
    signal = np.einsum("l,pax->lpax", rng.standard_normal(8), rng.standard_normal((4, 6, 10)))
    return spectra(with_noise(signal, rng, "norm")[0], ("layer", "proj", "out", "in"))


def test_advice_ties_the_mode_whose_slices_are_multiples_of_one_another() -> None:
    found = stack_with_one_layer_direction()
    ratios = [one.ratio for one in advice(found)]
    assert ratios == sorted(ratios)
    assert [(one.mode, one.rank, one.size, one.worth_tying) for one in advice(found, ("proj", "layer"))] == [
        ("layer", 1, 8, True),
        ("proj", 4, 4, False),
    ]
    assert advice(found)[0].effective_rank == found.effective_rank["layer"]
    assert [one.rank for one in advice(found, ["proj"], energy=0.1)] == [1]


GOOD = np.ones((2, 3))


def rows(**options: object) -> pd.DataFrame:
    return drawing.rows(GOOD, names=("layer", "in"), **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: spectra(GOOD, ("in",)), r"shape \(2, 3\), names are \('in',\); expected a different name for each"),
        (lambda: spectra(GOOD, ("in", "in")), "expected a different name for each of one or more axes"),
        (lambda: spectra(1.0, ()), "one or more axes"),
        (lambda: check_mode("a", 3), "names is 3; expected a list, or another iterable"),
        (
            lambda: spectra([[1, math.nan, math.inf]], ("a", "b")),
            "2 entries are not finite; expected finite ones: leave",
        ),
        (lambda: spectra(1j * GOOD, ("a", "b")), "dtype complex128 and shape .* expected real numbers"),
        (
            lambda: spectra(GOOD, ("a", "b")).rank_for(90),
            "energy is 90; expected a share above 0 and at most 1, such as",
        ),
        (lambda: similarity(GOOD, ("layer", "in"), "layers"), "mode 'layers' is not a mode .* did you mean \"layer\""),
        (lambda: drawing.rows(GOOD), "a ndarray has no names of modes; expected an adapter, or an array with names="),
        (
            lambda: drawing.rows(spectra(GOOD, ("a", "in")), cosines="in"),
            "Spectra have no slices to compare; give the adapter or its array for cosines=",
        ),
    ],
)
def test_what_is_refused_says_what_was_found_and_expected(call, message: str) -> None:
    refused(call, message)


def test_a_row_is_a_singular_value_with_the_ranks_of_its_mode() -> None:
    found = stack_with_one_layer_direction()
    table = drawing.rows(found)
    for mode, values in found.values.items():
        own = table[table["mode"] == mode]
        assert own["singular_value"].tolist() == values.tolist()
        assert own["energy"].tolist() == found.energy[mode].tolist()
        assert own["index"].tolist() == list(range(1, len(values) + 1))
        once = own[["size", "effective_rank", "rank_90", "rank_99", "noise_rank"]].drop_duplicates()
        ranks = (found.rank_for(0.9)[mode], found.rank_for(0.99)[mode], found.noise_rank[mode])
        assert once.to_numpy().tolist() == [[found.shape[mode], found.effective_rank[mode], *ranks]]


def test_an_adapter_is_its_updates_stacked_over_layers_and_projections() -> None:
    model = make("bert")
    adapter = ta.attach(model, ta.plan(model, method="cp", rank=2), seed=0)
    perturb(adapter)
    table = drawing.rows(adapter)
    assert list(dict.fromkeys(table["mode"])) == ["layer", "proj", "head", "dim", "model"]
    assert set(table["noise_rank"]) == {2}, "CP of rank 2 has two directions in each mode"
    dense = ta.plan(adapter.plan.sites, layout="layer proj : head dim : model", method="dense").groups[0]
    own = spectra(stack(dense, adapter.delta).numpy(), dense.network.layout.names)
    for mode, values in own.values.items():
        np.testing.assert_allclose(table.loc[table["mode"] == mode, "singular_value"], values, atol=1e-6)


def test_the_singular_values_and_ranks_are_drawn_where_they_are() -> None:
    found = stack_with_one_layer_direction()
    ax = drawn(drawing, drawing.rows(found))
    assert (ax.get_yscale(), ax.get_xlabel()) == ("log", "index / size of the mode")
    for i, (mode, values) in enumerate(found.values.items()):
        n, above = found.shape[mode], found.noise_rank[mode]
        curve = np.stack([np.arange(1, n + 1) / n, values / values[0]], axis=1)
        np.testing.assert_allclose(lines(ax, "signal")[i], curve[:above])
        np.testing.assert_allclose(lines(ax, "noise")[i], curve[above - 1 :])
        for energy in (0.9, 0.99):
            np.testing.assert_allclose(lines(ax, f"{energy:g}")[i], curve[[found.rank_for(energy)[mode] - 1]])
    assert drawing.headline(drawing.rows(found)) == (
        "1 of 8 directions of layer keeps 90 % of the update; proj needs all"
    )


@pytest.mark.thorough
@pytest.mark.parametrize("width", [3.3, 7])
@pytest.mark.parametrize("mode", [None, "layer", "proj", "head"])
def test_nothing_on_a_figure_overlaps_or_is_cut_off(mode: str | None, width: float) -> None:
    tensor = np.random.default_rng(0).standard_normal((24, 7, 12, 2, 3))
    found = drawn(drawing, drawing.rows(tensor, names=STACK, cosines=mode), width).figure
    assert not faults(found, turned=True)
    parts = [part.get_tightbbox() for part in found.axes]
    assert len(parts) == 1 + (mode is not None)
    assert [pair for pair in itertools.combinations(parts, 2) if Bbox.overlaps(*pair)] == []
