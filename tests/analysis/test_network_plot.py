"""Law of drawn networks: every factor and index is there once, inside the axes, and no name touches anything else."""

from __future__ import annotations

import re
from collections import Counter
from itertools import combinations
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
from tensoradapt.analysis.drawing.geometry import crosses
from tensoradapt.cli.methods import arguments_of, usual_arguments
from tensoradapt.networks.layout import Layout
from tensoradapt.networks.network import Factor, Network

BERT = BertConfig()
LLAMA = LlamaConfig(hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, intermediate_size=11008)
TIED = {"layer": 12, "proj": 4, "out": 768, "in": 768, "out1": 32, "out2": 24, "in1": 32, "in2": 24}


def plans() -> dict[str, Any]:
    usual = {name: (BERT, usual_arguments(name, BERT)) for name in parameterizations.names()}
    rows = {row.name: (BERT, arguments_of(row)) for row in published.ROWS}
    wide = {f"{name} at 4096": (LLAMA, arguments_of(published.get(name))) for name in ("quanta", "loretta-rep", "dota")}
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
CHECKED: set[Network] = set()  # rows share networks


def checked(ax: Axes, network: Network) -> None:
    """The law, on what matplotlib drew, in pixels."""
    figure = ax.figure.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    texts = {text.get_gid(): text.get_window_extent() for text in ax.texts}
    nodes = {patch.get_gid(): patch.get_window_extent() for patch in ax.patches}
    lines = [(line.get_gid(), ax.transData.transform(line.get_xydata())) for line in ax.lines]
    expected = {
        *(f"factor:{factor.name}" for factor in network.factors),
        *(f"index:{label}" for label in network.sizes),
    }
    assert Counter(text.get_gid() for text in ax.texts) == Counter(expected)
    assert {gid for gid in nodes if gid.startswith("node:")} == {f"node:{factor.name}" for factor in network.factors}
    for gid, box in {**texts, **nodes}.items():
        assert ax.bbox.padded(1).containsx(box.x0) and ax.bbox.padded(1).containsx(box.x1), gid
        assert ax.bbox.padded(1).containsy(box.y0) and ax.bbox.padded(1).containsy(box.y1), gid
    for gid, box in texts.items():
        kind, name = gid.split(":", 1)
        others = [other for other in nodes.items() if (kind, other[0]) != ("factor", f"node:{name}")]
        assert not [other for other, there in others if box.overlaps(there)], gid
        assert kind == "factor" or not [other for other, points in lines if touches(box, points)], gid
    assert not [pair for pair in combinations(texts, 2) if texts[pair[0]].overlaps(texts[pair[1]])]
    assert not [pair for pair in combinations(nodes, 2) if nodes[pair[0]].overlaps(nodes[pair[1]])]
    ends(network, nodes, lines)


def touches(box: Bbox, points: np.ndarray) -> bool:
    corners = box.corners()[[0, 1, 3, 2, 0]]
    inside = any(box.contains(*point) for point in points)
    return inside or any(crosses(points, corners[[k, k + 1]]) for k in range(4))


def ends(network: Network, nodes: dict[str, Bbox], lines: list[tuple[str, np.ndarray]]) -> None:
    """The lines of an index lead to every factor that has it, and to no other."""
    middles = {gid: (box.corners()[0] + box.corners()[3]) / 2 for gid, box in nodes.items()}
    reached: dict[str, set[str]] = {label: set() for label in network.sizes}
    for gid, points in lines:
        near = {name for name, middle in middles.items() for point in points if np.hypot(*(point - middle)) < 2}
        reached[gid.removeprefix("line:")] |= {name.removeprefix("node:") for name in near if name.startswith("node:")}
    assert reached == {label: {f.name for f in network.factors if label in f.labels} for label in network.sizes}


@pytest.mark.parametrize("name", PLANS)
def test_plans_are_drawn(name: str) -> None:
    config, given = PLANS[name]
    plan = ta.plan(config, rank=8, **given)
    for tensor in {group.network: k for k, group in enumerate(plan.groups)}.values():
        if (network := plan.groups[tensor].network) not in CHECKED:
            checked(ta.plots.network(plan, tensor=tensor, caption=False), network)
            CHECKED.add(network)
    plt.close("all")


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_drawn(name: str) -> None:
    checked(ta.plots.network(NETWORKS[name]), NETWORKS[name])
    plt.close("all")


@pytest.mark.parametrize("size", [(2, 1), (3, 6), (12, 9)])
def test_a_drawing_fits_the_axes_that_are_given(size: tuple[float, float]) -> None:
    figure = Figure(figsize=size)
    FigureCanvasAgg(figure)
    network = NETWORKS["tucker tied"]
    ax = ta.plots.network(network, figure.subplots(1, 2)[1], style={"font.size": 12})
    checked(ax, network)


def colours(ax: Axes) -> dict[str, Any]:
    return {patch.get_gid().removeprefix("node:"): patch.get_facecolor() for patch in ax.patches}


def test_what_is_frozen_zero_and_cut_is_seen() -> None:
    plan = ta.plan(BERT, method="vera", rank=8)
    plain = colours(ta.plots.network(plan))
    assert plain["A"] == plain["B"] and len({plain[name] for name in ("A", "b", "d")}) == 3  # frozen, zero, trained
    ax = ta.plots.network(plan, cut=True)
    network = plan.groups[0].network
    edges = {patch.get_gid()[5:]: patch.get_edgecolor() for patch in ax.patches if patch.get_gid().startswith("node:")}
    assert edges["A"] != edges["B"] and network.cut.crossing == ("r",)
    (name,) = {line.get_gid() for line in ax.lines if line.get_color() == "#882255"}
    assert name == "line:r" and "R = 8" in caption(ax)
    plt.close("all")


def test_no_factor_is_hollow_in_a_plan_that_does_not_start_at_zero() -> None:
    for name, hollow in (("lora", True), ("pissa", False), ("lora-xs", False)):
        assert ("Hollow" in caption(ta.plots.network(ta.plan(BERT, method=name, paper=True, rank=4)))) == hollow
    plt.close("all")


def caption(ax: Axes) -> str:
    return " ".join(" ".join(text.get_text() for text in ax.figure.texts).split())


def test_vectors_are_smaller() -> None:
    ax = ta.plots.network(ta.plan(BERT, method="vera", paper=True, rank=8))
    height = {patch.get_gid(): patch.get_height() for patch in ax.patches if hasattr(patch, "get_height")}
    assert height["node:d"] < height["node:A"]
    plt.close("all")


@pytest.mark.parametrize("kind", ["png", "pdf", "svg"])
def test_the_same_network_is_the_same_file(kind: str, tmp_path: Path) -> None:
    first, second = (ta.plots.save_network(NETWORKS["cp tied"], tmp_path / f"{k}.{kind}") for k in "ab")
    assert first.read_bytes() == second.read_bytes()
    assert not plt.get_fignums()


def test_the_command_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tensoradapt.cli.main import main

    assert main(["methods", "lorta", "--draw", str(tmp_path / "lorta.png")]) == 0
    assert str(tmp_path / "lorta.png") in capsys.readouterr().out and (tmp_path / "lorta.png").stat().st_size > 1000
    assert main(["methods", "--draw", "lorta.png"]) != 0


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
        (lambda: ta.plots.save_network(NETWORKS["cp tied"], Path("x.bmp")), r"x\.bmp .*\.png, \.pdf, \.svg"),
    ],
)
def test_what_cannot_be_drawn_is_said(given: Any, words: str) -> None:
    with pytest.raises(ta.TensorAdaptError, match=re.compile(words, re.DOTALL)):
        given()
