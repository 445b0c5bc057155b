"""Draw the figures of docs/figures, docs/examples and docs/results anew from the CSV files that are beside them.

    python docs/make/draw_figures.py            # all of them
    python docs/make/draw_figures.py vision     # those whose path has "vision" in it

A figure is drawn where its file is there; nothing is trained. What a table does not say, such as the precision, is in
the specification beside it, or in ``ABOUT``.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from tensoradapt.analysis.figures.canvas import write
from tensoradapt.analysis.figures.catalogue import Figured, figures
from tensoradapt.analysis.old_tables.frames import as_runs
from tensoradapt.runs.store import Run

DOCS = Path(__file__).parents[1]
TABLES = ("figures/frontier*.csv", "examples/*/means.csv", "results/**/records.csv")
KINDS = ("frontier", "ranks", "contrasts", "layouts")
REFERENCES = {"layouts": "cp over layer proj : head dim : model"}  # by folder; others: LoRA
ABOUT = {  # tables without a specification: all are of one model and one task
    "frontier": {"precision": "bf16"},
    "frontier-all": {"precision": "bf16"},
    "frontier-all-0.0015": {},
    "frontier-default": {},
}
MODEL, TASK = "all-minilm-l6-v2", "snippets"


def tables() -> list[Path]:
    """The tables that figures are drawn from."""
    return sorted(path for pattern in TABLES for path in DOCS.glob(pattern))


def read(path: Path) -> list[Run]:
    """The runs of a table: of means those of its column ``scores``, else a run for each row."""
    table = pd.read_csv(path, dtype={"rank": object})
    if "scores" in table:
        table = pd.DataFrame([run for _, row in table.iterrows() for run in _seeds(row.to_dict())])
    said = about(path)
    known = {"model": said["model"], "task": TASK, "optimizer": "equal_steps", "precision": "fp32"}
    for column, value in {**known, **{key: said[key] for key in ("precision",) if key in said}}.items():
        table[column] = table.get(column, value)
    return as_runs(table)


def about(path: Path) -> dict[str, Any]:
    """What the runs of a table have in common: model and settings of training."""
    specifications = sorted(path.parent.glob("*.toml"))
    if not specifications:
        return {"model": MODEL, **ABOUT[path.stem]}
    return tomllib.loads(specifications[0].read_text())


def _seeds(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A row of means as a row for each seed; a star marks a score at chance or of a run that diverged."""
    lost = ["at chance"] * row["n_at_chance"] + ["diverged"] * row["n_diverged"]
    for seed, text in enumerate(row["scores"].split()):
        score = float(text.rstrip("*"))
        ended = {"status": lost.pop(0), "chance": score} if text.endswith("*") else {}
        yield {**row, "seed": seed, "test": score, **ended}


def drawn(path: Path) -> Iterator[tuple[Path, Figured]]:
    """The figures of a table that are there, each with its files' path without an ending; a table that is called
    frontier has one.
    """
    alone = path.stem.startswith("frontier")
    for figure in figures(read(path), kinds=KINDS[:1] if alone else KINDS, reference=REFERENCES.get(path.parent.name)):
        stem = path.with_suffix("") if alone else path.with_name(figure.name)
        if stem.with_name(f"{stem.name}.png").is_file():
            yield stem, figure


def main(wanted: str = "") -> None:
    """Draw the figures whose path has ``wanted`` in it, each in the kinds of files that there are."""
    for path in tables():
        for stem, figure in drawn(path):
            if wanted in str(stem.relative_to(DOCS)):
                kinds = [kind for kind in ("png", "pdf") if stem.with_name(f"{stem.name}.{kind}").is_file()]
                print(*(file.relative_to(DOCS) for file in write(figure.draw(figure.caption), stem, kinds)))


if __name__ == "__main__":
    main(*sys.argv[1:2])
