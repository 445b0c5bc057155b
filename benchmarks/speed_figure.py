"""The figure of `speed.py`'s records, each row's step over the frozen model's, and the page of their tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import speed_table
import speed_ways
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from speed_rows import GROUPS, USUAL

from tensoradapt import parameterizations
from tensoradapt.analysis.figures import ink
from tensoradapt.analysis.figures.canvas import DPI, RC
from tensoradapt.analysis.figures.styles import Style, marker_look, styles_of

RECORDS = Path(__file__).parent / "records"
FIGURES = Path(__file__).parent.parent / "docs" / "figures"
TICKS = (1, 1.1, 1.2, 1.4, 1.6, 2, 3, 4, 6)
WIDE = 5  # a largest ratio from which ticks would touch: there are fewer of them
ROW, GAP = 0.17, 1.6  # inches of a row, rows between groups
FACES = {"PEFT": "white", "LyCORIS": "#d0d0d0"}  # faces of markers; ours have the method's colour
Key = tuple[str, str]  # group and label


def recorded() -> list[dict[str, Any]]:
    """The records that there are, by name."""
    return [json.loads(path.read_text()) for path in sorted(RECORDS.glob("speed-*.json"))]


def write(records: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Write speed.png and speed.md."""
    steps, ways = ([r for r in records if key in r] for key in ("competitors", "ways"))
    if steps:
        draw(steps, folder / "speed.png")
    (folder / "speed.md").write_text("\n".join(page(steps, ways)) + "\n")


def page(steps: Sequence[Mapping[str, Any]], ways: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The page of tables."""
    yield from ("# What an adapter costs", "", "Written by `python benchmarks/speed.py --figure` from the records.", "")
    if steps:
        yield from ("![steps](speed.png)", "", LEGEND, "What the columns are: [performance](../performance.md).", "")
    for record in steps:
        yield from (f"## {title(record)}", "", *speed_table.markdown(speed_table.of_steps(record)), "")
        yield from (*speed_table.markdown(speed_table.of_setup(record)), "")
        yield from (f"- left out: {name}: {why}" for name, why in record["refused"].items())
        yield ""
    for record in ways:
        yield from (f"## The exact ways through one layer, {machine(record)}", "")
        yield from (
            *speed_table.markdown(speed_ways.crossings(record["ways"])),
            "",
            *speed_ways.losses(record["ways"]),
            "",
        )


LEGEND = (
    "Dot: median of the step's ratio to the frozen model's step before it; bar: quartiles; dotted: PEFT's LoRA r=8."
)


def title(record: Mapping[str, Any]) -> str:
    """The shape and the machine of a record."""
    return f"{record['shape']}, {machine(record)}"


def machine(record: Mapping[str, Any]) -> str:
    """Where a record was made."""
    where = record["provenance"]["cpu"] if record["device"] == "cpu" else record["device"]
    threads = f"{record['threads']} thread{'s' * (record['threads'] != 1)}"
    return f"{where}, {threads}, {record['dtype']}" if record["device"] == "cpu" else f"{where}, {record['dtype']}"


def draw(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write the PNG."""
    places = placed(records)
    lowest = max(places.values())
    with mpl.rc_context(RC):
        figure = Figure(figsize=(2.3 + 2.6 * len(records), ROW * (lowest + 4) + 0.9), dpi=DPI, layout="constrained")
        panels = figure.subplots(1, len(records), sharey=True, squeeze=False)[0]
        styles = styles_of(of["method"] for record in records for of in record["competitors"].values())
        for ax, record in zip(panels, records, strict=True):
            panel(ax, record, places, styles)
        panels[0].set_yticks(list(places.values()), [label for _, label in places])
        panels[0].set_ylim(lowest + 1, -2.2)
        for group in dict.fromkeys(group for group, _ in places):
            top = min(y for (of, _), y in places.items() if of == group)
            header = panels[0].text(0, top - 0.75, f" {group}", transform=panels[0].get_yaxis_transform(), fontsize=8)
            header.set(color=ink.dark(), bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})
        faces = {"ours": ink.dark(), **FACES}
        handles = [
            Line2D([], [], marker="o", linestyle="none", color=ink.dark(), markerfacecolor=face, label=name)
            for name, face in faces.items()
        ]
        figure.legend(handles=handles, loc="outside lower right", ncols=len(handles), frameon=False, fontsize=8)
        figure.suptitle("a training step over the frozen model's", x=0.02, ha="left", fontsize=10)
        figure.savefig(path, metadata={"Software": None})


def placed(records: Sequence[Mapping[str, Any]]) -> dict[Key, float]:
    """The height of each row that any record has, from the top, groups apart."""
    found = [key_of(name, of) for record in records for name, of in record["competitors"].items()]
    places: dict[Key, float] = {}
    y = 0.0
    for group in GROUPS:
        for key in sorted({key for key in found if key[0] == group}, key=found.index):
            places[key], y = y, y + 1
        y += GAP
    return places


def key_of(name: str, of: Mapping[str, Any]) -> Key:
    """A row over all shapes: at the parameters of a LoRA the count differs between them."""
    head, sep, rest = labelled(name, of).partition(" n≤")
    before = rest.partition(", ")[2]  # what it was measured without
    return of["group"], f"{head}, {before}" if sep and before else head if of["group"] != USUAL else labelled(name, of)


def labelled(name: str, of: Mapping[str, Any]) -> str:
    """A row's name with the label of its parameterization in place of its name in code."""
    labels = {
        "lotr": "LoTR",
        **{known: getattr(parameterizations.get(known), "label", known) for known in parameterizations.names()},
    }
    return name.replace(of["method"], labels[of["method"]], 1) if of["package"] == "tensoradapt" else name


def panel(ax: Axes, record: Mapping[str, Any], places: Mapping[Key, float], styles: Mapping[str, Style]) -> None:
    """The rows of one record."""
    ax.axvline(1, color=ink.grey(), linewidth=0.8)
    if "PEFT LoRA r=8" in record["competitors"]:
        ax.axvline(
            record["competitors"]["PEFT LoRA r=8"]["step"]["median"], color=ink.grey(), linewidth=0.8, linestyle=":"
        )
    for name, of in record["competitors"].items():
        style, y = styles[of["method"]], places[key_of(name, of)]
        ax.plot([of["step"]["low"], of["step"]["high"]], [y, y], color=style.colour, linewidth=1.1)
        look = marker_look(style) | {"markeredgecolor": style.colour, "fillstyle": "full", "markersize": 5}
        look |= {"markerfacecolor": FACES.get(of["package"], style.colour)}
        ax.plot(of["step"]["median"], y, linestyle="none", zorder=3, **look)
    ax.set_xscale("log")
    ends = [of["step"][end] for of in record["competitors"].values() for end in ("low", "high")]
    ax.set_xlim(min(0.97, *ends), max(1.25, *ends) * 1.03)
    ax.xaxis.set_major_locator(FixedLocator(TICKS if max(ends) < WIDE else (1, 1.4, 2, 3, 5, 8, 12, 16)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    threads = "" if record["device"] != "cpu" else f", {record['threads']} thread{'s' * (record['threads'] != 1)}"
    ax.set_title(record["shape"] + threads, fontsize=8.5)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0, labelsize=7.5)
    ax.tick_params(axis="x", labelsize=7.5)
    ax.grid(True, axis="x", color=ink.faint(), linewidth=0.6)
    ax.set_axisbelow(True)
