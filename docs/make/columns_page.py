"""The page docs/reference/columns.md, the columns of every table; ``site_pages.py`` writes it."""

from __future__ import annotations

from collections.abc import Mapping

from tensoradapt.lab.analysis.results import COSTS, RUN
from tensoradapt.lab.analysis.tables import COMPARED, MEANS

HEAD = """# Columns

Made from the declarations. A column has this name in DataFrames, in
CSV and Parquet files, and in conditions (`--where "n_params<=5000"`). Scores are in the unit of their metric, and more
is better.
"""
TABLES: tuple[tuple[str, str, Mapping[str, str]], ...] = (
    (
        "ta.results",
        "A row for each run. Behind these are all [fields](fields.md) of the adapter, its training and its data, as\n"
        "they were when it ran. A table of one's own needs `method`, `score` and a cost; all else may be missing.",
        RUN,
    ),
    (
        "Costs",
        "What a frontier can be drawn over: `ta.frontier(runs, cost)`, `ta.plots.frontier(runs, x=cost)`. Any other\n"
        "column of numbers does as well.",
        COSTS,
    ),
    ("ta.summarise", "A row for each configuration and reference; `ta.frontier` has those on the frontier.", MEANS),
    ("ta.compare", "A row for each comparison with the reference.", COMPARED),
)


def page() -> str:
    """Return the page as Markdown."""
    sections = [f"## {name}\n\n{about}\n\n{table(columns)}\n" for name, about, columns in TABLES]
    return "\n".join([HEAD, *sections])


def table(columns: Mapping[str, str]) -> str:
    """Return names and meanings as a table."""
    return "\n".join(
        ["| column | meaning |", "|---|---|", *(f"| `{name}` | {text} |" for name, text in columns.items())]
    )
