"""The drawings of the pages about concepts, docs/concepts/figures, from the code's own networks and plans."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import variants  # beside this file
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image  # which matplotlib brings

import tensoradapt as ta
from tensoradapt.lab.analysis.names import COLOURS, tone
from tensoradapt.lab.analysis.plots.network import draw, size
from tensoradapt.networks.layout import Layout, Pattern
from tensoradapt.parameterizations import dense

DPI, INKS = 110, 96  # dots per inch, and colours
RC: dict[Any, Any] = {"font.size": 9, "text.hinting": "none"}
BERT = SimpleNamespace(
    model_type="bert", hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072
)
SMALL = SimpleNamespace(
    model_type="bert", hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128
)
SIZES = {"layer": 12, "proj": 4, "head": 12, "dim": 64, "out": 768, "in": 768, "model": 768}
SPLIT = {"out1": 32, "out2": 24, "in1": 32, "in2": 24}
LAYOUTS = (
    ": out : in",
    "(layer proj) : out : in",
    "layer proj : out : in",
    "layer proj : head dim : model",
    ": out1 out2 : in1 in2",
)


def layouts() -> Figure:
    """The tensor of each layout: one node with all modes as legs."""
    figure, columns = _figure(6.4, 3.7), 3
    for k, text in enumerate(LAYOUTS):
        left, low = (k % columns) / columns, 0.5 * (k < columns)
        ax = figure.add_axes((left, low, 0.98 / columns, 0.42))
        layout = Layout.parse(Pattern.parse(text), {**SIZES, **SPLIT})
        ta.plots.network(dense.build(layout), ax)
        figure.text(left + 0.49 / columns, low + 0.44, text, fontsize=8, family="monospace", ha="center")
    return figure


def orientation() -> Figure:
    """q, k, v and o as they are stored, with the slices that the head factor writes, for both columns."""
    figure = _figure(7.4, 3.1)
    figure.subplots_adjust(left=0.17, right=0.99, top=0.99, bottom=0.01, wspace=0.05, hspace=0.05)
    for row, column in zip(figure.subplots(2, 4), ("in", "model"), strict=True):
        (group,) = ta.plan(SMALL, layout=f"layer proj : head dim : {column}", method="cp", rank=2).groups
        first = [member for member in group.members if member.site.coord["layer"] == 0]
        for ax, member in zip(row, first, strict=True):
            _matrix(ax, member.site.coord["proj"], member.transposed, SMALL.num_attention_heads)
        row[0].text(-0.35, 0.5, f"... : {column}", family="monospace", fontsize=9, ha="right", va="center")
    return figure


def _matrix(ax: Axes, name: Any, transposed: bool, heads: int) -> None:
    """A stored matrix, in stripes of one head each: rows, or columns where the layout transposes it."""
    for head in range(heads):
        corner, extent = (0.0, 1 - (head + 1) / heads), (1.0, 1 / heads)
        if transposed:
            corner, extent = (head / heads, 0.0), (1 / heads, 1.0)
        colour = COLOURS[1] if head == 1 else tone(1)
        ax.add_patch(Rectangle(corner, *extent, facecolor=colour, edgecolor=tone(0.25), linewidth=0.8))
    ax.set(xlim=(-0.25, 1.05), ylim=(-0.05, 1.25), aspect="equal")
    ax.set_axis_off()
    ax.text(0.5, 1.06, f"{name}: in", ha="center", fontsize=8, color=tone(0.75, COLOURS[0], ink=True))
    ax.text(-0.06, 0.5, "out", ha="right", va="center", rotation=90, fontsize=8, color=tone(0.75, COLOURS[1], ink=True))


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def network_figure(plan: ta.Plan, figsize: tuple[float, float] | None = None, **options: Any) -> Figure:
    """The drawing of a plan's tensor, in a figure of its own size or of this one."""
    shown = {name: value for name, value in options.items() if name != "cut"}
    figure = _figure(*(figsize or size(plan, **shown)))
    draw(plan, figure.add_axes((0, 0, 1, 1)), **options)
    return figure


def _cut(**arguments: Any) -> Callable[[], Figure]:
    return lambda: network_figure(ta.plan(BERT, rank=8, **arguments), cut=True)


def _plain(**arguments: Any) -> Callable[[], Figure]:
    return lambda: network_figure(ta.plan(BERT, rank=8, **arguments))


FIGURES: dict[str, Callable[[], Figure]] = {
    "layouts": layouts,
    "orientation": orientation,
    "cp": _plain(method="cp"),
    "tensor-train": _plain(method="tensor_train"),
    "cut-lora": _cut(method="lora"),
    "cut-tensor-train": _cut(method="tensor_train"),
    "cut-loha": _cut(method="loha"),
    "cut-tucker": _cut(method="lotr", paper=True),
    "plan-vera": _plain(method="vera"),
}


def small_png(figure: Figure) -> bytes:
    """A drawing as a PNG of few colours, which is a third as large."""
    whole, small = io.BytesIO(), io.BytesIO()
    figure.savefig(whole, dpi=DPI)
    image = Image.open(whole)
    image.convert("RGB").quantize(INKS).save(small, "png", optimize=True)
    return small.getvalue()


def write_figures(folder: Path, names: Sequence[str] = tuple(FIGURES)) -> list[Path]:
    """Write figures as PNG into a folder, light and dark; the same bytes with the same version of matplotlib."""
    import matplotlib as mpl

    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.png" for name in names]
    for path in paths:
        with mpl.rc_context(RC):
            variants.both(path, lambda one, draw=FIGURES[path.stem]: one.write_bytes(small_png(draw())))
    return paths


if __name__ == "__main__":
    write_figures(Path(__file__).parents[1] / "concepts" / "figures")
