"""The page docs/reference/fields.md, the fields of every record; ``site_pages.py`` writes it.

A new record has one line in ``RECORDS``.
"""

from __future__ import annotations

from typing import Any

from tensoradapt.lab.runs.config import DataSpec, RunConfig
from tensoradapt.lab.sweeps.spec import Search, SweepSpec, Tuning
from tensoradapt.lab.tasks.own_settings import OwnData
from tensoradapt.planning.spec import AdapterSpec
from tensoradapt.records import markdown
from tensoradapt.training.options import Training

HEAD = """# Fields

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


def page() -> str:
    """Return the page as Markdown."""
    sections = [f"## {record.__name__}\n\n{about}\n\n{markdown(record)}\n" for record, about in RECORDS.items()]
    return "\n".join([HEAD, *sections])
