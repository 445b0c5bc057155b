"""The tiles of docs/results/README.md: for each experiment a picture, a sentence of verdict and the command.

A sentence is the headline of the picture, written anew from the table beside it, and how many differences are decided.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pandas as pd
import report

from tensoradapt.analysis.names import display
from tensoradapt.analysis.results import table_of
from tensoradapt.analysis.tables import reported
from tensoradapt.analysis.verdict import compared

FAMILY = "python benchmarks/paper/run.py --family {} --scale here"


@dataclass(frozen=True)
class Tile:
    """An experiment: its page, picture and table, which stand in ``folder`` below docs/results."""

    folder: str
    picture: str
    table: str
    command: str
    task: str = ""
    on: str = ""  # the task as readers know it, where a page has several
    figure: str = "frontier"


TILES = (
    Tile("headline", "differences.png", "records.csv", FAMILY.format("headline"), "snippets"),
    Tile("glue", "differences.png", "records.csv", FAMILY.format("glue"), "sst2"),
    Tile("cola", "differences.png", "records.csv", FAMILY.format("cola"), "cola"),
    Tile("vision", "differences.png", "records.csv", FAMILY.format("vision"), "cifar10"),
    Tile("instruct", "differences.png", "records.csv", FAMILY.format("instruct"), "alpaca-answers"),
    Tile("figures", "frontier.png", "frontier.csv", "tensoradapt frontier --full --precision bf16"),
    Tile(
        "../examples/minilm-sweep",
        "stsb-frontier.png",
        "means.csv",
        "tensoradapt sweep docs/examples/minilm-sweep/spec.toml",
        "stsb",
        "STS-B",
    ),
    Tile(
        "../examples/layouts",
        "layouts.png",
        "means.csv",
        "tensoradapt sweep docs/examples/layouts/spec.toml",
        figure="layouts",
    ),
    Tile(
        "../examples/around",
        "frontier.png",
        "means.csv",
        "tensoradapt sweep docs/examples/around/spec.toml",
    ),
)


def tiles(folder: Path) -> str:
    """Return the grid of all experiments that have a page in or beside a folder of results."""
    lines = ["::::{grid} 1 1 2 2", ":gutter: 3", ""]
    for tile in TILES:
        page = folder / tile.folder / "README.md"
        if page.is_file():
            lines += _card(tile, page, folder)
    return "\n".join([*lines, "::::"])


def _card(tile: Tile, page: Path, folder: Path) -> Iterator[str]:
    title = page.read_text().partition("\n")[0].lstrip("# ")
    link = f"{tile.folder}/README.md"
    yield from (f":::{{grid-item-card}} [{title}]({link})", "")
    yield from (f"[![{title}]({tile.folder}/{tile.picture})]({link})", "")
    said = f"{tile.on}: {sentence(tile, folder)}" if tile.on else sentence(tile, folder)
    yield from (textwrap.fill(said, 120), "", f"    {tile.command}", ":::", "")


def sentence(tile: Tile, folder: Path) -> str:
    """Return what the picture says and, where that is no decision, how many differences are decided."""
    runs = read(folder / tile.folder / tile.table)
    own = runs[runs["task"] == tile.task] if tile.task else runs
    if (path := folder / tile.folder / "within.csv").is_file():
        rows = report.read(path)
        _, _, reference = decided(own, path.with_name("differences.csv"), tile.task)
        return f"{smallest_within(rows, reference)}; {either_way(rows)}."
    figure = import_module(f"tensoradapt.analysis.plots.{tile.figure}")
    said = str(figure.headline(figure.rows(reported(table_of(own))))).rstrip(".")
    if "decided" in said:
        return f"{said}."
    n, k, reference = decided(own, folder / tile.folder / "differences.csv", tile.task)
    return f"{said}; {k or 'none'} of {n} differences to {reference} {'is' if k < 2 else 'are'} decided."


def smallest_within(rows: Sequence[Mapping[str, str]], reference: str) -> str:
    """Return for each margin which size is decided to be within it with fewest parameters, from ``within.csv``."""
    said = []
    for margin in dict.fromkeys(row["margin"] for row in rows):
        inside = [row for row in rows if row["margin"] == margin and row["within"] == "True"]
        least = min(inside, key=lambda row: int(row["n_params"]), default=None)
        if least is None:
            said.append(f"no size is decided to be within {margin} of {reference}")
        else:
            one = f"{display(least['method'])} with {int(least['n_params']):,} parameters"
            said.append(f"the smallest decided to be within {margin} of {reference} is {one}")
    text = "; ".join(said)
    return text[0].upper() + text[1:]


def either_way(rows: Sequence[Mapping[str, str]]) -> str:
    """Return how many sizes of ``within.csv`` are decided to be worse, and how many to be within the least margin."""
    least = min((row["margin"] for row in rows), key=float)
    own = [row for row in rows if row["margin"] == least]
    worse = sum(row["decided"] == "True" and float(row["difference"]) < 0 for row in own)
    inside = sum(row["within"] == "True" for row in own)
    are = "are" if worse > 1 else "is"
    return f"of {len(own)} sizes {worse or 'none'} {are} decided to be worse, {inside or 'none'} to be within {least}"


def decided(runs: pd.DataFrame, path: Path, task: str) -> tuple[int, int, str]:
    """Return how many sizes were compared, how many differences are decided, and with what: of a file, else of runs."""
    if path.is_file():
        rows = [row for row in report.read(path) if row["task"] == task]
        method, _, size = rows[0]["reference"].partition(" ")
        return len(rows), sum(row["decided"] == "True" for row in rows), f"{display(method)} {size}"
    (one,) = compared(runs)
    row = one.paired.iloc[0]
    size = "at the same budget" if one.paired["budget"].notna().any() else f"r={row['reference_rank']:.0f}"
    return len(one.paired), int(one.paired["decided"].sum()), f"{display(one.reference)} {size}"


def read(path: Path) -> pd.DataFrame:
    """Read the runs of a table: a row for each, or rows of means whose column ``scores`` has those of the seeds."""
    table = pd.read_csv(path)
    return report.runs_of_means(table) if "scores" in table else table
