"""A folder of runs as one HTML page: figures, sortable tables, failures, and the runs behind every number."""

from __future__ import annotations

import base64
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tensoradapt.analysis.figures.canvas import rendered
from tensoradapt.analysis.figures.captions import how_chosen, how_unequal
from tensoradapt.analysis.figures.catalogue import CATALOGUE, Figured, figures
from tensoradapt.analysis.names import display, displayed
from tensoradapt.analysis.old_tables.comparable import methods, tuned
from tensoradapt.analysis.old_tables.contrasts import named_reference
from tensoradapt.analysis.old_tables.over_tasks import volume_rows
from tensoradapt.errors import TensorAdaptError, missing_extra
from tensoradapt.files import replace_file
from tensoradapt.runs.row import COLUMNS
from tensoradapt.runs.store import Run
from tensoradapt.sweeps import record
from tensoradapt.sweeps.reports.findings import findings
from tensoradapt.sweeps.reports.results import rows_of, select, sweeps
from tensoradapt.text import size_text

Row = Mapping[str, Any]
DOTS = 110  # per inch: as wide as the page's text
ROUNDING = 1e-15  # below it a difference is 0 but for rounding
LINKED = ("id", "runs", "run")
METHODS = ("method", "parameterization", "first", "second", "reference")  # columns that name methods
# columns as a reader would say them; the others are said as they are, without underscores
NAMES = {
    **{"id": "run", "n_params": "parameters", "lr": "learning rate", "n_seeds": "seeds", "sd": "standard deviation"},
    **{"low": "95 % from", "high": "to", "drawn_low": "bootstrap from", "drawn_high": "to (bootstrap)"},
    **{"diff_head": "over frozen base", "diff_head_low": "over base, from", "diff_head_high": "over base, to"},
    **{"diff_full": "over full fine-tuning", "diff_full_low": "over full, from", "diff_full_high": "over full, to"},
    **{"above_head": "above frozen base", "p_frontier": "P(on frontier)", "adjusted": "p, corrected"},
    **{"first": "method", "second": "against", "n_at_chance": "at chance", "n_diverged": "diverged"},
    **{"peak_memory_bytes": "peak memory (bytes)", "scores": "score of each seed"},
}


def write_report(
    root: Path, path: Path, *, where: Sequence[str] = (), spec: Path | None = None, reference: str | None = None
) -> Path:
    """Write the report of the runs in ``root``, whole or not at all; returns its path.

    Args:
        where: conditions that the runs meet, such as "task=sst2" (``results``).
        spec: only the runs of this sweep.
        reference: method that others are compared with; None means LoRA.

    Raises:
        TensorAdaptError: where no run is left, for a condition that cannot be read, a sweep that was not run into the
            folder, an unknown reference, runs that do not compare, and where jinja2 is not installed.
    """
    return replace_file(
        Path(path), report(root, where=where, spec=spec, reference=reference).encode(errors="backslashreplace")
    )


def report(root: Path, *, where: Sequence[str] = (), spec: Path | None = None, reference: str | None = None) -> str:
    """Return the page as text."""
    try:
        import jinja2
    except ImportError:
        raise missing_extra("jinja2", "report", "the HTML report") from None
    runs, failed = select(root, where, spec)
    if not runs and not failed:
        raise TensorAdaptError(
            f"{root} holds no run{' with ' + ' and '.join(where) if where else ''}; expected a folder of runs: run a "
            "sweep into it first, or ask for others"
        )
    if reference is not None:
        reference = named_reference(reference, methods(runs))
    recorded = sweeps(root, spec)
    plans = [sweep.due(root) for sweep in recorded]
    counted = [] if where else plans
    page = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    page.filters.update(cell=cell_text, key=_key, names=str.split, column=column_text, method=display)
    source = resources.files("tensoradapt.sweeps.reports").joinpath("report.html.j2").read_text(encoding="utf-8")
    tasks = {one.path: one.row["task"] for one in failed.values()}
    drawn = figures(runs, reference=reference, totals=record.totals(counted), failed=tasks)
    return page.from_string(source).render(
        title=Path(root).resolve().name,
        where=" and ".join(where),
        counts=_counts(runs, failed, record.total(counted), sum(plan.more for plan in counted)),
        **_results(runs, failed, drawn, reference),
        empty=[cell for sweep in recorded for cell in sweep.cells if cell.empty],
        blocked=[reason for plan in plans for reason in plan.blocked],
        extended=[text for plan in plans for text in plan.extended],
        specs=[json.dumps(_said(asdict(sweep.spec)), indent=2) for sweep in recorded],
        made=_made(runs),
    )


def _results(
    runs: Sequence[Run], failed: Mapping[str, Any], drawn: Sequence[Figured], reference: str | None
) -> dict[str, Any]:
    tasks = sorted({figure.task for figure in drawn if figure.task})
    labels = {one.row["method"] for one in (*runs, *failed.values())}
    names = displayed(labels)
    return {
        "findings": findings(runs, reference),
        "about": {run.name: about(run) for run in runs},
        "names": names,
        "methods": sorted({names[run.row["method"]] for run in runs}),
        "models": sorted({str(run.row["model"]) for run in runs}),
        "rates": how_chosen(runs) if runs else "",
        "unequal": how_unequal(runs),
        "overall": [_figure(figure, names) for figure in drawn if figure.task is None],
        "volumes": _volumes(runs, names),
        "tasks": [(task, [_figure(figure, names) for figure in drawn if figure.task == task]) for task in tasks],
        "runs": _table("runs", "All runs", COLUMNS, rows_of(runs, failed), names),
        "noted": [run for run in runs if run.row["status"] != "finished" or run.row["note"]],
        "failed": failed,
    }


def _counts(runs: Sequence[Run], failed: Mapping[str, Any], total: int | None, more: int) -> list[tuple[str, str]]:
    statuses = Counter(run.row["status"] for run in runs)
    further = f", and at most {more} more to tune" if more else ""
    return [
        ("runs with a result", f"{len(runs)} of {total}{further}" if total else f"{len(runs)}"),
        ("of them to choose learning rates", f"{sum(map(tuned, runs))}"),
        ("at chance", f"{statuses['at chance']}"),
        ("diverged", f"{statuses['diverged']}"),
        ("failed", f"{len(failed)}"),
    ]


def _volumes(runs: Sequence[Run], names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the table of volumes; no table where moocore, an extra, is not installed."""
    if find_spec("moocore") is None:
        return []
    rows = volume_rows(runs)
    title = "Area under each method's frontier, in decades of parameters times score"
    return [_table("volumes", title, tuple(rows[0]), rows, names)] if rows else []


def _figure(one: Figured, names: Mapping[str, str]) -> dict[str, Any]:
    data = base64.b64encode(rendered(one.draw(""), "png", DOTS)).decode()
    kind = CATALOGUE[one.kind]
    columns = kind.columns or tuple(one.rows[0])
    behind = _table(f"{one.name}-table", kind.title, columns, one.rows, names) if kind.title else None
    return {"name": one.name, "caption": one.caption, "data": data, "table": behind}


def _table(
    name: str, title: str, columns: Sequence[str], rows: Iterable[Row], names: Mapping[str, str]
) -> dict[str, Any]:
    """Return a table without empty columns, in which methods have the names to show.

    Columns that are the same in all of several rows are said once, above it.
    """
    every = [{**row, **{key: _shown(row[key], names) for key in METHODS if key in row}} for row in rows]
    texts = {column: {cell_text(row.get(column)) for row in every} for column in columns}
    alike = {column: next(iter(texts[column])) for column in columns if len(every) > 1 and len(texts[column]) == 1}
    alike = {column: text for column, text in alike.items() if column not in (*LINKED, "method", "first")}
    kept = [column for column in columns if column not in alike and texts[column] != {""}]
    same = [f"{column_text(column)} {text}" for column, text in alike.items() if text]
    return {"name": name, "title": title, "columns": kept, "same": same, "rows": every, "linked": LINKED}


def _shown(value: Any, names: Mapping[str, str]) -> Any:
    """Return the name to show for a method; a value that is no name, such as whether a row is the reference, stays."""
    return names.get(value, display(value)) if isinstance(value, str) else value


def column_text(column: str) -> str:
    """Return the title of a column."""
    return NAMES.get(column, column.replace("_", " "))


def about(run: Run) -> str:
    """Return a line about a run, which is shown where the pointer is on a link to it."""
    row = run.row
    reached = "no score" if row["test"] is None else f"test {row['metric']} {row['test']:.4f}"
    named = " ".join(filter(None, (display(row["method"]), size_text(row["rank"], row["budget"]))))
    return f"{named}, seed {row['seed']}: {reached}, {row['n_params']:,} parameters"


def _made(runs: Sequence[Run]) -> list[tuple[int, str]]:
    """Return the versions and machines of the runs, and the number of runs with each."""
    keys = ("packages", "commit", "python", "platform", "cpu")
    counts = Counter(json.dumps({key: run.provenance.get(key) for key in keys}, indent=2) for run in runs)
    return [(n, text) for text, n in counts.most_common()]


def _said(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in spec.items() if value not in (None, [], {}, "")}


def cell_text(value: Any) -> str:
    """Return a value as a cell shows it."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        value = 0.0 if abs(value) < ROUNDING else value
        return f"{value:.4g}" if value and not 1e-3 <= abs(value) < 1e4 else f"{value:.4f}".rstrip("0").rstrip(".")
    return json.dumps(value) if isinstance(value, Mapping | list) else str(value)


def _key(value: Any) -> str:
    """Return the sort key of a cell: the number in full, or its text."""
    return repr(value) if isinstance(value, int | float) and not isinstance(value, bool) else cell_text(value)
