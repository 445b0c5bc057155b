"""The runs behind a CSV file of means, as docs has them: a complete table of runs."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import pandas as pd

from tensoradapt.lab.analysis.results import table_of

DOCS = Path(__file__).parents[2] / "docs"
sys.path.insert(0, str(DOCS / "make"))
import draw_figures  # noqa: E402


def runs_of(name: str, task: str | None = None) -> pd.DataFrame:
    """Return a row for each score in the column ``scores`` of a file below docs (a star: lost), of one task or all."""
    runs = _read(name)
    return runs.copy() if task is None else runs[runs["task"] == task].reset_index(drop=True)


@cache
def _read(name: str) -> pd.DataFrame:
    return table_of(draw_figures.read(DOCS / name))
