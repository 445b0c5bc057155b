"""Draw the figures of docs/results and docs/examples anew from the CSV files that are beside them.

    python docs/make/draw_figures.py            # all of them
    python docs/make/draw_figures.py vision     # those whose path has "vision" in it

A figure is drawn where its file is there, and is called KIND.png or TASK-KIND.png; nothing is trained.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

DOCS = Path(__file__).parents[1]
sys.path.append(str(DOCS.parent / "benchmarks" / "paper"))

import report  # noqa: E402  # which is in the folder above

TABLES = (
    "results/figures/frontier*.csv",
    "examples/*/means.csv",
    "examples/*/runs.csv",
    "results/**/records.csv",
)
REFERENCES = {"layouts": "cp over layer proj : head dim : model"}  # by kind of figure; others: LoRA


def tables() -> list[Path]:
    """Return the tables that figures are drawn from."""
    return sorted(path for pattern in TABLES for path in DOCS.glob(pattern))


def read(path: Path) -> pd.DataFrame:
    """Return the runs of a table: of means those of its column ``scores``, else a run for each row."""
    table = pd.read_csv(path)
    return report.runs_of_means(table) if "scores" in table else table


def drawn() -> Iterator[tuple[Path, str, pd.DataFrame]]:
    """Yield each figure that is there: its files' path without an ending, its kind and its runs."""
    for path in tables():
        pictures = (
            sorted(path.parent.glob("*.png"))
            if path.stem in ("means", "runs", "records")
            else [path.with_suffix(".png")]
        )
        for picture in (picture for picture in pictures if picture.is_file()):
            whole = path.stem.startswith("frontier")  # a table of one figure has its name
            task, _, kind = ("", "", "frontier") if whole else picture.stem.rpartition("-")
            if kind == "differences" and path.with_name("within.csv").is_file():
                continue  # it is of the scores of test examples too, which runs have: run.py --report draws it
            if kind in report.FIGURES:
                runs = read(path)
                yield picture.with_suffix(""), kind, runs[runs["task"] == task] if task else runs


def main(wanted: str = "") -> None:
    """Draw the figures whose path has ``wanted`` in it, each in the kinds of files that there are."""
    for stem, kind, runs in drawn():
        if wanted in str(stem.relative_to(DOCS)):
            formats = [ending for ending in ("png", "pdf") if stem.with_name(f"{stem.name}.{ending}").is_file()]
            options = {"reference": REFERENCES[kind]} if kind in REFERENCES else {}
            print(*(file.relative_to(DOCS) for file in report.draw(runs, kind, stem, formats, **options)))


if __name__ == "__main__":
    main(*sys.argv[1:2])
