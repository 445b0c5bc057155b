"""Laws of drawn networks: every factor and index is there once, inside the figure, and no name touches anything else;
arms of a hub are equal, chains are straight, and lines cross in no drawing of the gallery."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from transformers import BertConfig, LlamaConfig

import tensoradapt as ta
from tensoradapt import parameterizations, published
from tensoradapt.lab.analysis.plots.network import described, draw, size
from tensoradapt.lab.methods import paper_arguments, usual_arguments
from tensoradapt.networks.layout import Layout
from tensoradapt.networks.network import Factor, Network

BERT = BertConfig()
LLAMA = LlamaConfig(hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, intermediate_size=11008)
TIED = {"layer": 12, "proj": 4, "out": 768, "in": 768, "out1": 32, "out2": 24, "in1": 32, "in2": 24}


def plans() -> dict[str, Any]:
    usual = {name: (BERT, usual_arguments(name, BERT)) for name in parameterizations.names()}
    rows = {row.name: (BERT, paper_arguments(row)) for row in published.every()}
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


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (lambda: ta.plots.network("cp"), "'cp'; expected a plan, or a network"),
        (
            lambda: ta.plots.network(ta.plan(BERT, method="lora", paper=True, rank=1), tensor=24),
            "tensor is 24, .* has 24",
        ),
        (lambda: ta.plots.network(NETWORKS["cp tied"], ax=3), "ax"),
        (lambda: ta.plots.network(NETWORKS["cp tied"], caption="yes"), "caption"),
    ],
)
def test_what_cannot_be_drawn_is_said(given: Any, words: str) -> None:
    with pytest.raises(ta.TensorAdaptError, match=re.compile(words, re.DOTALL)):
        given()
