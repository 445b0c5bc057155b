"""Laws of drawn networks: every factor and index is there once, inside the figure, and no name touches anything else;
arms of a hub are equal, chains are straight, and lines cross in no drawing of the gallery."""

from __future__ import annotations

import importlib
import re
from collections import Counter
from collections.abc import Iterator
from itertools import combinations, product
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from transformers import BertConfig, LlamaConfig

import tensoradapt as ta
from tensoradapt import parameterizations, published
from tensoradapt.lab.analysis.plots._files import rendered
from tensoradapt.lab.analysis.plots.network import described, draw, size
from tensoradapt.networks.layout import Layout
from tensoradapt.networks.network import Factor, Network
from tensoradapt.planning.method_table import paper_arguments, usual_arguments

BERT = BertConfig()
LLAMA = LlamaConfig(hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, intermediate_size=11008)
TIED = {"layer": 12, "proj": 4, "out": 768, "in": 768, "out1": 32, "out2": 24, "in1": 32, "in2": 24}


def plans() -> dict[str, Any]:
    usual = {name: (BERT, usual_arguments(name, BERT)) for name in parameterizations.names()}
    rows = {row.name: (BERT, paper_arguments(row)) for row in published.ROWS}
    wide = {
        f"{name} at 4096": (LLAMA, paper_arguments(published.get(name))) for name in ("quanta", "loretta-rep", "dota")
    }
    return {**{f"{name} usual": value for name, value in usual.items()}, **rows, **wide}


def tied() -> dict[str, Network]:
    """Every parameterization over index modes, which most then share between factors."""
    built = {}
    for name in parameterizations.names():
        split = getattr(parameterizations.get(name), "parts", None)
        layout = "layer proj : out1 out2 : in1 in2" if split else "layer proj : out : in"
        built[f"{name} tied"] = parameterizations.get(name).build(Layout.parse(layout, TIED), 4)
    return built


LONG = "a_bond_with_a_long_name"
LAYOUT = Layout.parse(": out : in", {"out": 8, "in": 8})
ODD = {
    "two bonds of the same factors": Network(
        LAYOUT, (Factor("A", ("s", "t", "in")), Factor("B", ("out", "s", "t"), "zero")), {"s": 2, "t": 3}
    ),
    "a chain of ten": Network(
        LAYOUT,
        (
            Factor("first", ("in", "b0"), "zero"),
            *(Factor(f"core{k}", (f"b{k}", f"b{k + 1}")) for k in range(8)),
            Factor("last", ("b8", "out")),
        ),
        {f"b{k}": 2 for k in range(9)},
    ),
    "long names": Network(
        LAYOUT,
        (Factor("a_factor_with_a_long_name", (LONG, "in")), Factor("$B_{1}$", (LONG, "out"), "zero")),
        {LONG: 2},
    ),
}
PLANS, NETWORKS = plans(), {**tied(), **ODD}
PARAMETERIZATION = {
    name: parameterizations.name_of(method) if (row := published.named(method)) is None else row.parameterization
    for name, (_, given) in PLANS.items()
    for method in [given["method"]]
}


def drawn(source: Any, **options: Any) -> Axes:
    """The drawing alone, in a figure of its own size."""
    figure = Figure(figsize=size(source, **options), dpi=200)
    FigureCanvasAgg(figure)
    return draw(source, figure.add_axes((0, 0, 1, 1)), **options)


def checked(ax: Axes, network: Network) -> None:
    """The law, on what matplotlib drew, in pixels."""
    figure = ax.figure.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    texts = {text.get_gid(): text.get_window_extent() for text in ax.texts}
    nodes = {patch.get_gid(): patch.get_window_extent() for patch in ax.patches}
    expected = {
        *(f"factor:{factor.name}" for factor in network.factors),
        *(f"index:{label}" for label in network.sizes),
    }
    assert Counter(text.get_gid() for text in ax.texts) == Counter(expected)
    assert {gid for gid in nodes if gid.startswith("node:")} == {f"node:{factor.name}" for factor in network.factors}
    for gid, box in {**texts, **nodes}.items():
        assert ax.bbox.x0 < box.x0 and box.x1 < ax.bbox.x1 and ax.bbox.y0 < box.y0 and box.y1 < ax.bbox.y1, gid
    for gid, box in texts.items():
        kind, name = gid.split(":", 1)
        others = [other for other in nodes.items() if (kind, other[0]) != ("factor", f"node:{name}")]
        assert not [other for other, there in others if box.overlaps(there)], gid
        assert kind == "factor" or not [other for other, points in lines(ax) if touches(box, points)], gid
    assert not [pair for pair in combinations(texts, 2) if texts[pair[0]].overlaps(texts[pair[1]])]
    assert not [pair for pair in combinations(nodes, 2) if nodes[pair[0]].overlaps(nodes[pair[1]])]
    assert not [pair for pair in product(nodes.items(), lines(ax)) if passes(*pair)]
    ends(network, places(ax), lines(ax))


def lines(ax: Axes) -> list[tuple[str, np.ndarray]]:
    """Segments (2, 2) in pixels, each with the name of its index."""
    return [(line.get_gid().removeprefix("line:"), ax.transData.transform(line.get_xydata())) for line in ax.lines]


def places(ax: Axes) -> dict[str, np.ndarray]:
    """The middles of factors and dots, in pixels."""
    boxes = {patch.get_gid(): patch.get_window_extent() for patch in ax.patches}
    return {gid.removeprefix("node:"): (box.corners()[0] + box.corners()[3]) / 2 for gid, box in boxes.items()}


def touches(box: Bbox, points: np.ndarray) -> bool:
    corners = box.corners()[[0, 1, 3, 2, 0]]
    inside = any(box.contains(*point) for point in points)
    return inside or any(crosses(points, corners[[k, k + 1]]) for k in range(4))


def passes(node: tuple[str, Bbox], line: tuple[str, np.ndarray]) -> bool:
    """Whether a line goes through a node that is not one of its ends."""
    middle = (node[1].corners()[0] + node[1].corners()[3]) / 2
    return min(np.hypot(*(line[1] - middle).T)) > 2 and touches(node[1], line[1])


def crosses(one: np.ndarray, other: np.ndarray) -> bool:
    def turn(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> float:
        return float((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))

    (a, b), (c, d) = one, other
    return turn(a, b, c) * turn(a, b, d) < 0 and turn(c, d, a) * turn(c, d, b) < 0


def ends(network: Network, middles: dict[str, np.ndarray], segments: list[tuple[str, np.ndarray]]) -> None:
    """The lines of an index lead to every factor that has it, and to no other."""
    reached: dict[str, set[str]] = {label: set() for label in network.sizes}
    for label, points in segments:
        near = {name for name, middle in middles.items() for point in points if np.hypot(*(point - middle)) < 2}
        reached[label] |= {name for name in near if not name.startswith("dot:")}
    assert reached == {label: {f.name for f in network.factors if label in f.labels} for label in network.sizes}


def shown(name: str) -> Iterator[tuple[Axes, Network]]:
    """The drawings of a plan's networks that differ."""
    config, given = PLANS[name]
    plan = ta.plan(config, rank=8, **given)
    for tensor in {group.network: k for k, group in enumerate(plan.groups)}.values():
        yield drawn(plan, tensor=tensor), plan.groups[tensor].network


@pytest.mark.thorough
@pytest.mark.parametrize("name", PLANS)
def test_plans_are_drawn(name: str) -> None:
    for ax, network in shown(name):
        checked(ax, network)
        segments = [points for _, points in lines(ax)]
        assert not [pair for pair in combinations(segments, 2) if crosses(*pair)]


@pytest.mark.thorough
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_drawn(name: str) -> None:
    checked(drawn(NETWORKS[name]), NETWORKS[name])


STARS = [name for name in PLANS if PARAMETERIZATION[name] in ("cp", "tucker") and name != "stella-diagonal"]  # a chain
CHAINED = ("tensor_train", "lora", "lora_xs", "tt_matrix", "loretta")
CHAINS = [name for name in PLANS if PARAMETERIZATION[name] in CHAINED and name != "loretta-rep at 4096"]  # has a ring


@pytest.mark.parametrize("name", STARS)
def test_the_arms_of_a_hub_are_equal_at_equal_angles(name: str) -> None:
    for ax, _ in shown(name):
        middles = places(ax)
        hub = next((middle for gid, middle in middles.items() if gid.startswith("dot:") or gid == "core"))
        arms = np.array([middle - hub for middle in middles.values() if not np.allclose(middle, hub)])
        if len(arms) < 3:
            continue
        lengths, angles = np.hypot(*arms.T), np.sort(np.arctan2(*arms.T))
        np.testing.assert_allclose(lengths, lengths.mean(), rtol=0.01)
        np.testing.assert_allclose(np.diff(angles), 2 * np.pi / len(arms), atol=0.01)


@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_is_on_one_line_from_columns_to_rows(name: str) -> None:
    for ax, _ in shown(name):
        middles = places(ax)
        assert np.ptp([middle[1] for middle in middles.values()]) < 0.5


@pytest.mark.parametrize("size", [(2, 1), (3, 6), (12, 9)])
def test_a_drawing_fits_the_axes_that_are_given(size: tuple[float, float]) -> None:
    figure = Figure(figsize=size)
    FigureCanvasAgg(figure)
    network = NETWORKS["tucker tied"]
    checked(ta.plots.network(network, figure.subplots(1, 2)[1]), network)


def test_without_names_lines_have_no_gap_and_all_is_natural_size() -> None:
    ax = drawn(NETWORKS["lora tied"], names=False)
    figure = ax.figure
    figure.set_size_inches(12, 9)
    draw(NETWORKS["lora tied"], ax, names=False)
    assert not [text for text in ax.texts if text.get_visible()]
    assert Counter(gid for gid, _ in lines(ax))["r"] == 2  # one for each of the two drawings
    (node, *_) = [patch.get_window_extent() for patch in ax.patches if patch.get_gid() == "node:A"][-1:]
    assert node.height / figure.dpi == pytest.approx(0.3, rel=0.1)


def test_ink_and_paper_are_those_of_the_style_sheet() -> None:
    with plt.style.context("dark_background"):
        ax = drawn(NETWORKS["lora tied"])
    faces = colours(ax)
    assert min(faces["A"][:3]) > 0.7 and faces["B"][:3] == (0, 0, 0)  # filled and hollow


def colours(ax: Axes) -> dict[str, Any]:
    return {patch.get_gid().removeprefix("node:"): patch.get_facecolor() for patch in ax.patches}


def test_what_is_frozen_zero_and_cut_is_seen() -> None:
    plan = ta.plan(BERT, method="vera", rank=8)
    plain = colours(drawn(plan))
    assert plain["A"] == plain["B"] and len({plain[name] for name in ("A", "b", "d")}) == 3  # frozen, zero, trained
    ax = draw(plan, drawn(plan).figure.add_axes((0, 0, 1, 1)), cut=True)
    network = plan.groups[0].network
    edges = {patch.get_gid()[5:]: patch.get_edgecolor() for patch in ax.patches if patch.get_gid().startswith("node:")}
    assert edges["A"] != edges["B"] and network.cut.crossing == ("r",)
    (name,) = {line.get_gid() for line in ax.lines if line.get_color() == "#882255"}
    assert name == "line:r" and "R = 8" in described(plan, cut=True)


def test_no_factor_is_hollow_in_a_plan_that_does_not_start_at_zero() -> None:
    for name, hollow in (("lora", True), ("pissa", False), ("lora-xs", False)):
        assert ("Hollow" in described(ta.plan(BERT, method=name, paper=True, rank=4))) == hollow


def test_vectors_are_smaller() -> None:
    ax = drawn(ta.plan(BERT, method="vera", paper=True, rank=8))
    height = {patch.get_gid(): patch.get_height() for patch in ax.patches if hasattr(patch, "get_height")}
    assert height["node:d"] < height["node:A"]


def test_a_new_figure_has_the_size_that_is_asked_for_and_its_caption_is_below() -> None:
    plan = ta.plan(BERT, method="vera", rank=8)
    assert tuple(ta.plots.network(plan, figsize=(5, 4), caption=True).figure.get_size_inches()) == (5, 4)
    plain, ax = ta.plots.network(plan), ta.plots.network(plan, caption=True)
    checked(ax, plan.groups[0].network)
    (note,) = [text for text in ax.figure.texts if text.get_text()]
    assert " ".join(note.get_text().split()) == described(plan)
    box = note.get_window_extent()
    assert box.y0 > 0 and box.y1 < ax.bbox.y0 and box.x1 < ax.figure.bbox.x1
    assert ax.figure.get_figheight() > plain.figure.get_figheight()
    plt.close("all")


def test_type_of_another_size_needs_another_figure() -> None:
    network = NETWORKS["cp tied"]
    with plt.rc_context({"font.size": 9}):
        small = size(network)
    with plt.rc_context({"font.size": 18}):
        checked(ta.plots.network(network), network)
        assert size(network) == pytest.approx([2 * inches for inches in small])
    plt.close("all")


@pytest.mark.parametrize("kind", ["png", "pdf", "svg"])
def test_the_same_network_is_the_same_file(kind: str) -> None:
    module = importlib.import_module("tensoradapt.lab.analysis.plots.network")
    files = []
    for _ in range(2):
        module._laid_with.cache_clear()
        files.append(rendered(drawn(NETWORKS["kronecker tied"]).figure, kind))
    assert files[0] == files[1] and not plt.get_fignums()


def test_the_command_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tensoradapt.lab.cli.main import main

    assert main(["methods", "lorta", "--draw", str(tmp_path / "lorta.png")]) == 0
    said = capsys.readouterr().out
    assert str(tmp_path / "lorta.png") in said and "Hollow: starts at zero" in said
    assert (tmp_path / "lorta.png").stat().st_size > 1000
    assert main(["methods", "--draw", "lorta.png"]) != 0
    assert main(["methods", "lorta", "--draw", "x.bmp"]) != 0
    assert "x.bmp has no ending of a figure; expected one of .pdf, .png, .svg" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (lambda: ta.plots.network("cp"), "'cp'; expected a plan, or a network"),
        (
            lambda: ta.plots.network(ta.plan(BERT, method="lora", paper=True, rank=1), tensor=24),
            "tensor is 24, .* has 24",
        ),
        (lambda: ta.plots.network(ta.plan(BERT, method="lora", paper=True, rank=1), tensor=-1), "tensor"),
        (lambda: ta.plots.network(NETWORKS["cp tied"], ax=3), "ax"),
        (lambda: ta.plots.network(NETWORKS["cp tied"], cut="yes"), "cut"),
        (lambda: ta.plots.network(NETWORKS["cp tied"], caption="yes"), "caption"),
    ],
)
def test_what_cannot_be_drawn_is_said(given: Any, words: str) -> None:
    with pytest.raises(ta.TensorAdaptError, match=re.compile(words, re.DOTALL)):
        given()
