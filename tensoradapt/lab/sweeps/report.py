"""The report of a folder of runs: what is on the page of its runs, and what the folder tells of failures and sweeps."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tensoradapt.errors import TensorAdaptError
from tensoradapt.habits import answers_keywords
from tensoradapt.lab.analysis.names import display
from tensoradapt.lab.analysis.page.report import Told, write_page
from tensoradapt.lab.analysis.results import frame, is_csv, table_of
from tensoradapt.lab.runs.store import load_failures, load_runs
from tensoradapt.lab.sweeps import record
from tensoradapt.lab.sweeps.due import Due, due
from tensoradapt.lab.sweeps.plan_sweep import Sweep
from tensoradapt.lab.sweeps.results import marked, of_sweeps
from tensoradapt.lab.sweeps.spec import table_of as specification
from tensoradapt.records import toml_of

MADE = ("commit", "python", "platform", "cpu")


@answers_keywords()
def report(
    source: Any,
    path: Path | str | None = None,
    *,
    where: Sequence[str] | str = (),
    spec: Path | None = None,
    reference: str | None = None,
    margin: float | None = None,
) -> Path:
    """Write a page about runs, whole or not at all; examples are in docs/guides/sweeps/results.md.

    Args:
        source: a folder of runs, of whose failures and sweeps the page tells too; or runs, a CSV file or a DataFrame.
        path: of the page; by default report.html in the folder of runs. Links to these are relative to it.
        where: conditions that the runs meet, such as "task=sst2".
        spec: only the runs of this sweep.
        reference: method that others are compared with; None is LoRA.
        margin: loss of score that hardly matters; by default one point where the metric is a share, else 0.01.

    Returns:
        The path of the page.

    Raises:
        TensorAdaptError: without a path for what is no folder, where no run is left, for a condition that cannot be
            read, a sweep that was not run into the folder, an unknown reference, and runs that do not compare.

    >>> import tempfile
    >>> import pandas as pd
    >>> import tensoradapt as ta
    >>> runs = pd.DataFrame({"method": ["lora", "cp"] * 3, "seed": [0, 0, 1, 1, 2, 2], "n_params": [9216, 1008] * 3})
    >>> runs["score"] = [0.81, 0.84, 0.83, 0.86, 0.82, 0.85]
    >>> ta.report(runs, f"{tempfile.mkdtemp()}/report.html").name
    'report.html'
    """
    if not isinstance(source, str | os.PathLike) or is_csv(source):
        if path is None:
            raise TensorAdaptError('the path of the page is missing; expected one, as in report(runs, "report.html")')
        return write_page(table_of(source), path, where=where, reference=reference, margin=margin)
    root = Path(source)
    path = root / "report.html" if path is None else path
    loaded, failures, sweeps = load_runs(root), load_failures(root), record.read_all(root, spec)
    plans = [due(sweep) for sweep in sweeps]
    runs = frame(loaded, failures.values())
    runs = marked(runs, {sweep.spec.id: plan for sweep, plan in zip(sweeps, plans, strict=True)}) if sweeps else runs
    runs = of_sweeps(runs, plans) if spec else runs
    made = Counter(_machine(run.provenance) for run in loaded if run.name in set(runs["id"]))
    told = Told(
        failures=failures,
        total=record.total(plans),
        specifications=[_toml(specification(sweep.spec)) for sweep in sweeps],
        remarks=[text for sweep, plan in zip(sweeps, plans, strict=True) for text in _remarks(sweep, plan)],
        made=made.most_common(),
    )
    title = root.resolve().name
    return write_page(runs, path, title=title, told=told, where=where, reference=reference, margin=margin)


def _machine(provenance: Mapping[str, Any]) -> str:
    said = {key: provenance.get(key) for key in MADE} | dict(provenance.get("packages") or {})
    return "\n".join(f"{key}: {value}" for key, value in said.items() if value is not None)


def _remarks(sweep: Sweep, plan: Due) -> Iterator[str]:
    """Yield what a sweep could not run, and the grids that it extended."""
    yield from (f"not run: {reason}" for reason in plan.blocked)
    for cell in sweep.cells:
        if cell.empty:
            yield f"{display(cell.method)} {cell.size.text}: {cell.empty}"
    yield from (f"grid extended, as its best rate was at the edge: {text}" for text in plan.extended)


def _toml(table: Mapping[str, Any]) -> str:
    """Return a table as TOML in which a table, and each of a list of tables, has a head of its own."""
    lines, tables = {}, []
    for key, value in table.items():
        if isinstance(value, Mapping):
            tables.append(f"\n[{key}]\n{toml_of(value)}")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            tables += [f"\n[[{key}]]\n{toml_of(item)}" for item in value]
        else:
            lines[key] = value
    return toml_of(lines) + "".join(tables)
