"""The pages docs/reference/fields.md and columns.md, made from declarations; ``site_pages.py`` writes them.

A new record has one line in ``RECORDS``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensoradapt.lab.analysis.results import COMPARED, COSTS, MEANS, RUN, VERDICTS
from tensoradapt.lab.runs.config import DataSpec, RunConfig
from tensoradapt.lab.sweeps.spec import Search, SweepSpec, Tuning
from tensoradapt.lab.tasks.own_settings import OwnData
from tensoradapt.planning.spec import AdapterSpec
from tensoradapt.records import markdown
from tensoradapt.training.options import Training

FIELDS = """# Fields

Made from the declarations. A field has this name everywhere: as an argument in Python, a key of TOML and JSON, and an
option of the command line (`--on-mismatch` for `on_mismatch`).
"""
RECORDS: dict[Any, str] = {  # in the order of the page, each with what stands above its table
    AdapterSpec: "An adapter: what `ta.plan(model, ...)` takes, as arguments or as an `AdapterSpec`. Where no default\n"
    "is named, it is the method's, or none.",
    Training: "A training: what `ta.fit` takes besides model, batches, heads and callbacks.",
    DataSpec: "How much of its task's data a run has.",
    RunConfig: "A run: `config.json` of its folder, beside the format. A sweep makes one for each method, size,\n"
    "task and seed. The id is a hash of what differs from the defaults, in these records too.",
    SweepSpec: "A sweep: the keys of a [specification](../guides/sweeps/specification.md) beside those of\n"
    "`AdapterSpec`, `Training` and `DataSpec`. The last two fields are no keys: reading fills them in.",
    Tuning: "`[tuning]` of a specification ([how](../guides/sweeps/tuning.md)).",
    Search: "`[search]` of a specification, in place of grids of `lr`.",
    OwnData: "A task of own data: what `ta.register_task(name, ...)`, a table under `task` of a specification and an\n"
    "entry point take ([your data](../start/your-data.md)).",
}
COLUMNS = """# Columns

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
    ("ta.verdict", "A row for each size, with the columns of ta.compare and what is shown of it.", VERDICTS),
)


def fields() -> str:
    """Return the page of fields as Markdown."""
    sections = [f"## {record.__name__}\n\n{about}\n\n{markdown(record)}\n" for record, about in RECORDS.items()]
    return "\n".join([FIELDS, *sections])


def columns() -> str:
    """Return the page of columns as Markdown."""
    sections = [f"## {name}\n\n{about}\n\n{table(columns)}\n" for name, about, columns in TABLES]
    return "\n".join([COLUMNS, *sections])


def table(columns: Mapping[str, str]) -> str:
    """Return names and meanings as a table."""
    return "\n".join(
        ["| column | meaning |", "|---|---|", *(f"| `{name}` | {text} |" for name, text in columns.items())]
    )
