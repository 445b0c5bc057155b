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
from support.drawings import drawn, lines
from support.models import make, perturb
from support.refusals import refused
from support.texts import faults

import tensoradapt as ta
from tensoradapt.lab.analysis.page.svg import contrast
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


@pytest.mark.parametrize("level", ["norm", "largest entry"])
@pytest.mark.parametrize("ranks", [(3, 2, 4, 5, 8), (6, 4, 2, 3, 4), (2, 4, 12, 3, 6)])
def test_planted_ranks_of_a_stack_of_heads_are_found(ranks: tuple[int, ...], level: str) -> None:
    rng = np.random.default_rng(sum(ranks))
    tensor, sigma = with_noise(planted(LARGE, ranks, rng), rng, level)
    found = spectra(tensor.astype(np.float32), STACK)
    assert found.noise_rank == dict(zip(STACK, ranks, strict=True))
    assert found.noise == pytest.approx(sigma, rel=0.01)


@pytest.mark.parametrize(("n", "m", "rank"), [(20, 30, 4), (20, 30, 18), (8, 40, 7), (100, 3, 2), (5, 60, 3)])
def test_equal_singular_values_of_a_matrix_are_counted(n: int, m: int, rank: int) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        tensor, _ = with_noise(frame(n, rank, rng) @ frame(m, rank, rng).T, rng, "norm")
        assert spectra(tensor, ("out", "in")).noise_rank == {"out": rank, "in": rank}


def test_a_direction_that_a_whole_unfolding_hides_is_found_with_the_other_modes_cut() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        a, b, c = frame(10, 2, rng), frame(30, 2, rng), frame(40, 2, rng)
        signal = np.einsum("xyz,ax,by,cz->abc", [np.eye(2), [[0, 0.1], [0, 0]]], a, b, c)
        found = spectra(signal + 0.008 * rng.standard_normal(signal.shape), ("layer", "out", "in"))
        edge = 0.008 * (math.sqrt(10) + math.sqrt(1200))
        assert found.values["layer"][1] < 1.05 * edge
        assert set(found.noise_rank.values()) == {2}


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


@pytest.mark.parametrize(("n", "rank"), [(48, 2), (256, 16)])
def test_a_float32_stack_of_lora_updates_has_their_rank(n: int, rank: int) -> None:
    rng = np.random.default_rng(2)
    a, b = (rng.standard_normal((4, *shape)).astype(np.float32) for shape in ((rank, n), (n, rank)))
    assert spectra(b @ a, ("layer", "out", "in")).noise_rank == {"layer": 4, "out": 4 * rank, "in": 4 * rank}


def test_a_direction_well_above_the_rounding_of_float32_is_counted() -> None:
    """A ten-thousandth of the largest: with the bound of ``numpy.linalg.matrix_rank`` a stack of this size hides it."""
    rng, shape = np.random.default_rng(3), (6, 200, 300)
    frames = [frame(n, 2, rng) for n in shape]
    stack = np.einsum("r,ar,br,cr->abc", [1, 1e-4], *frames, optimize=True).astype(np.float32)
    assert np.linalg.matrix_rank(unfolded(stack, 0)) == 1
    assert set(spectra(stack, ("layer", "out", "in")).noise_rank.values()) == {2}


@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 3, 4, 5), (40, 3, 2), (7, 2), (2, 7), (9,), (1, 1, 3)])
def test_singular_values_are_those_of_numpy_for_each_unfolding(shape: tuple[int, ...]) -> None:
    tensor = np.random.default_rng(0).standard_normal(shape)
    found = spectra(tensor, name(shape))
    for axis, mode in enumerate(name(shape)):
        expected = np.linalg.svd(unfolded(tensor, axis), compute_uv=False)
        np.testing.assert_allclose(found.values[mode], expected, rtol=1e-12)


def test_small_singular_values_keep_their_digits() -> None:
    rng, expected = np.random.default_rng(0), 10.0 ** -np.arange(0, 13, 3)
    matrix = frame(5, 5, rng) * expected @ frame(3000, 5, rng).T
    found = spectra(matrix.reshape(5, 50, 60), ("layer", "out", "in")).values["layer"]
    np.testing.assert_allclose(found, expected, rtol=1e-3)  # a Gram matrix is wrong from 1e-8 on


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


@pytest.mark.parametrize("unit", [1e-200, 1e200])
def test_the_unit_of_the_tensor_scales_values_and_noise_and_no_rank(unit: float) -> None:
    rng = np.random.default_rng(0)
    tensor, _ = with_noise(planted((3, 4, 5), (2, 2, 2), rng), rng, "norm")
    a, b = spectra(tensor, STACK[:3]), spectra(unit * tensor, STACK[:3])
    np.testing.assert_allclose(b.values["proj"], unit * a.values["proj"], rtol=1e-12)
    assert b.noise == pytest.approx(unit * a.noise)
    assert (a.noise_rank, a.rank_for(0.9)) == (b.noise_rank, b.rank_for(0.9))
    assert a.effective_rank == pytest.approx(b.effective_rank)
    np.testing.assert_allclose(similarity(unit * tensor, STACK[:3], "proj"), similarity(tensor, STACK[:3], "proj"))


def test_the_effective_rank_is_the_number_of_equal_directions_and_by_energy() -> None:
    rng = np.random.default_rng(0)
    equal = spectra(frame(9, 4, rng) @ frame(11, 4, rng).T, ("out", "in"))
    assert equal.effective_rank == pytest.approx({"out": 4, "in": 4})
    two = spectra(np.diag([2.0, 1.0]), ("out", "in")).effective_rank["in"]
    assert two == pytest.approx(math.exp(-0.8 * math.log(0.8) - 0.2 * math.log(0.2)))


def test_ranks_for_an_energy_are_the_smallest_that_keep_it() -> None:
    found = spectra(np.diag([2.0, 1.0, 1.0, 0.0]), ("out", "in"))
    np.testing.assert_allclose(found.energy["in"], [4 / 6, 5 / 6, 1, 1])
    ranks = {0.5: 1, 4 / 6: 1, 0.67: 2, 5 / 6: 2, 0.84: 3, 1: 3}
    assert {energy: found.rank_for(energy)["in"] for energy in ranks} == ranks
    assert spectra(np.eye(10), ("out", "in")).rank_for() == {"out": 9, "in": 9}


def test_a_tensor_cut_to_the_ranks_for_an_energy_loses_at_most_that_of_each_mode() -> None:
    tensor = np.random.default_rng(0).standard_normal((5, 6, 7)) * 0.5 ** np.arange(7)
    ranks = spectra(tensor, STACK[:3]).rank_for(0.9)
    cut = tensor
    for axis, mode in enumerate(STACK[:3]):
        left = np.linalg.svd(unfolded(tensor, axis))[0][:, : ranks[mode]]
        cut = np.moveaxis(np.tensordot(left @ left.T, cut, (1, axis)), 0, axis)
    assert np.linalg.norm(tensor - cut) ** 2 <= 3 * 0.1 * np.linalg.norm(tensor) ** 2


def test_a_zero_tensor_has_rank_0_and_no_similarity() -> None:
    zero = np.zeros((3, 4, 5))
    found = spectra(zero, STACK[:3])
    nothing = dict.fromkeys(STACK[:3], 0)
    assert found.noise_rank == found.rank_for(0.99) == found.effective_rank == nothing
    assert found.noise == 0
    assert all((curve == 0).all() for curve in found.energy.values())
    assert (similarity(zero, STACK[:3], "proj") == 0).all()
    assert {one.ratio for one in advice(found)} == {0}


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
        (lambda: spectra(GOOD, "ab"), "names are 'ab'; expected a different name"),
        (lambda: spectra(1.0, ()), "one or more axes"),
        (lambda: spectra(GOOD, 3), "names is 3; expected a text, or a list of texts"),
        (lambda: spectra(GOOD, ["a", ["b"]]), r"names is \['a', \['b'\]\]; expected a text, or a list of texts"),
        (lambda: spectra(GOOD, ("a", "b")).rank_for("x"), "energy is 'x'; expected a share above 0"),
        (lambda: advice(3), "spectra is 3; expected a .*Spectra"),
        (lambda: advice(spectra(GOOD, ("a", "b")), 3), "modes is 3; expected a text, or a list of texts"),
        (lambda: check_mode("a", 3), "names is 3; expected a list, or another iterable"),
        (
            lambda: spectra([[1, math.nan, math.inf]], ("a", "b")),
            "2 entries are not finite; expected finite ones: leave",
        ),
        (
            lambda: spectra(np.ones((2, 0)), ("a", "b")),
            r"shape \(2, 0\); expected real numbers, one or more along every",
        ),
        (lambda: spectra(1j * GOOD, ("a", "b")), "dtype complex128 and shape .* expected real numbers"),
        (lambda: spectra([[1], [1, 2]], ("a", "b")), r"a list that numpy cannot read .*: pass tensor\.detach\(\)"),
        (
            lambda: spectra(GOOD, ("a", "b")).rank_for(90),
            "energy is 90; expected a share above 0 and at most 1, such as",
        ),
        (lambda: similarity(GOOD, ("layer", "in"), "layers"), "mode 'layers' is not a mode .* did you mean \"layer\""),
        (lambda: advice(spectra(GOOD, ("layer", "in")), ["int"]), 'is not a mode of the tensor; did you mean "in"'),
        (lambda: drawing.rows(GOOD), "a ndarray has no names of modes; expected an adapter, or an array with names="),
        (lambda: rows(cosines="inn"), "'inn' is not a mode of the tensor; did you mean"),
        (
            lambda: rows(cosines="in", labels=["q", "v"]),
            r"labels are \['q', 'v'\]; expected 3 different names, one for each slice of in",
        ),
        (
            lambda: drawing.rows(spectra(GOOD, ("a", "in")), cosines="in"),
            "Spectra have no slices to compare; give the adapter or its array for cosines=",
        ),
    ],
)
def test_what_is_refused_says_what_was_found_and_expected(call, message: str) -> None:
    refused(call, message)


def cosines(matrix: np.ndarray, labels: Sequence[str] | None = None) -> pd.DataFrame:
    """The rows of slices with these cosines."""
    return drawing._pairs(matrix, "proj", labels)


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


def test_a_row_of_cosines_is_a_pair_of_slices() -> None:
    tensor = np.random.default_rng(0).standard_normal((3, 4, 5))
    table = drawing.rows(tensor, names=STACK[:3], cosines="proj", labels="qkvo")
    wanted = similarity(tensor, STACK[:3], "proj")
    assert table["cosine"].to_numpy().reshape(4, 4).tolist() == wanted.tolist()
    assert table[["first", "second"]].iloc[1].tolist() == ["q", "k"]


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
        "1 of 8 directions of layer keeps 90 % of the update, the fewest of the 4 modes"
    )


def test_modes_are_told_apart_without_colour() -> None:
    ax = drawn(drawing, drawing.rows(np.random.default_rng(0).random((2, 3, 4, 5, 6)), names=STACK))
    assert {text.get_text() for text in ax.texts} == {f"{mode} ({size})" for size, mode in enumerate(STACK, 2)}
    lines = [line for line in ax.get_lines() if line.get_gid() == "noise"]
    assert (
        len({str(line.get_color()) for line in lines}) == len({str(line._unscaled_dash_pattern) for line in lines}) == 5
    )
    assert len({line.get_marker() for line in ax.get_lines() if line.get_gid() == "0.9"}) == 5


def test_where_both_ranks_are_equal_the_small_filled_mark_is_within_the_large_hollow_one() -> None:
    ax = drawn(drawing, drawing.rows(np.diag([1.0, 0, 0]), names=("out", "in")))
    hollow, filled = ([line for line in ax.get_lines() if line.get_gid() == gid] for gid in ("0.9", "0.99"))
    for a, b in zip(hollow, filled, strict=True):
        assert (a.get_markersize(), a.get_markerfacecolor()) == (2 * b.get_markersize(), "none")
        assert b.get_markerfacecolor() == b.get_color()


def test_a_zero_tensor_is_drawn_as_words() -> None:
    table = drawing.rows(np.zeros((3, 4)), names=("a", "b"))
    assert [text.get_text() for text in drawn(drawing, table).texts] == ["every entry is zero"]
    assert drawing.headline(table) == "Every entry of the update is zero"


def test_cosines_are_written_into_few_cells_and_names_thinned_for_many() -> None:
    ax = drawn(drawing, cosines(np.array([[1, -0.001], [-0.001, 1]]), ["q", "v"]))
    assert [text.get_text() for text in ax.texts] == ["1.00", "0.00", "0.00", "1.00"]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["q", "v"]
    assert ax.images[0].get_clim() == (-1, 1)
    many = drawn(drawing, cosines(np.eye(40)))
    assert len(many.texts) == 0
    assert [text.get_text() for text in many.get_yticklabels()][:3] == ["0", "3", "6"]


def test_grey_print_keeps_the_order_of_the_cosines() -> None:
    cells = drawn(drawing, cosines(np.eye(2))).images[0]
    grey = cells.get_cmap()(np.linspace(0, 1, 50))[:, :3] @ [0.299, 0.587, 0.114]
    assert (np.diff(grey) > 0).all()


def test_numbers_stand_out_from_their_cells() -> None:
    values = np.linspace(-1, 1, 8)
    ax = drawn(drawing, cosines(np.diag(values)))
    for text in ax.texts:
        row, column = (round(place) for place in text.get_position()[::-1])
        assert contrast(text.get_color(), ax.images[0].to_rgba(np.diag(values)[row, column])) > 4.5


@pytest.mark.thorough
@pytest.mark.parametrize("width", [3.3, 7])
@pytest.mark.parametrize("mode", [None, "layer", "proj", "head"])
def test_nothing_on_a_figure_overlaps_or_is_cut_off(mode: str | None, width: float) -> None:
    tensor = np.random.default_rng(0).standard_normal((24, 7, 12, 2, 3))
    labels = [f"{p}_proj" for p in ("q", "k", "v", "o", "gate", "up", "down")] if mode == "proj" else None
    found = drawn(drawing, drawing.rows(tensor, names=STACK, cosines=mode, labels=labels), width).figure
    assert not faults(found, turned=True)
    parts = [part.get_tightbbox() for part in found.axes]
    assert len(parts) == 1 + (mode is not None)
    assert [pair for pair in itertools.combinations(parts, 2) if Bbox.overlaps(*pair)] == []
