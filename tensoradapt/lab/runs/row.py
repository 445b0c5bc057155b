"""A run as a flat row: the columns of tables, of conditions such as ``--where`` and of DataFrames.

The columns are the fields of a run's records, as they were when it ran, what followed from them, and what its task
measured, by name. Rows are made here from the documents of a run's folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from tensoradapt import checks
from tensoradapt.checks import Check, is_number, shown
from tensoradapt.errors import TensorAdaptError, located
from tensoradapt.lab.runs.config import REFERENCES as REFERENCES
from tensoradapt.lab.runs.config import RunConfig
from tensoradapt.lab.tasks.splits import DataSpec
from tensoradapt.planning.resolve import resolve_known
from tensoradapt.planning.size import Size
from tensoradapt.planning.spec import AdapterSpec
from tensoradapt.records import as_json, names, read
from tensoradapt.training.options import Training

Row = dict[str, Any]
SETUP = ("projections", "scale", "optimizer", "layout")  # what adapters are given beside their method and size
STATUSES = ("finished", "at chance", "diverged")
FAILED = "failed"  # the status of a run without a result
COMPUTED = ("fp32", "bf16")  # what a precision was on the device of a run
GROUPS = {"attention": {"q", "k", "v", "o"}}  # projections that a word stands for
AGAIN = "no run wrote it so; delete the folder to run it again"
TITLES = ("run", "task", "method", "size", "seed", "status", "parameters", "score")  # columns of what is shown of runs


def words(value: Any, where: str) -> str:
    """Check a text, perhaps empty, and return it."""
    if not isinstance(value, str):
        raise TensorAdaptError(f"{where} is {shown(value)}; expected a text")
    return value


def score(value: Any, where: str) -> Any:
    """Check a finite number, and return it."""
    if not is_number(value):
        raise TensorAdaptError(f"{where} is {shown(value)}; expected a finite number")
    return value


count = partial(checks.whole, least=0, most=2**63 - 1)
RESULT: Mapping[str, Check] = {
    "status": partial(checks.one_of, STATUSES),
    "note": words,
    "n_params": count,
    "n_trained_base": checks.optional(count),
}
OPTIONAL = ("n_trained_base",)  # which runs of earlier versions have not
PARTS = ("metric", "validation", "test", "adapter", "n_train", "cut")  # of a result; all else in it is measured
METRIC: Mapping[str, Check] = {  # low or high is None where the metric has no such end
    "name": checks.text,
    "chance": score,
    "low": checks.optional(score),
    "high": checks.optional(score),
}
MEASURED: Mapping[str, Check] = {
    "seconds": score,
    "step_seconds_median": score,
    "adapter_bytes": count,
    "peak_memory_bytes": count,
    "peak_device_bytes": count,
    "threads": count,
    "begun": checks.text,
}
COLUMNS = tuple(
    dict.fromkeys(
        (
            *("id", "status", "model", "task", "method", *SETUP, "rank", "budget", "n_params", "lr", "seed", "steps"),
            *("tuning", "metric", "chance", "validation", "score", "seconds", "peak_memory_bytes", "kind"),
            *("parameterization", "note", *names(AdapterSpec), *names(Training), *names(DataSpec), "n_trained_base"),
            *("metric_low", "metric_high", *MEASURED),
        )
    )
)


def _typed(kinds: Sequence[str], *others: str) -> tuple[str, ...]:
    """Return the columns of numbers: the records' fields that are declared as one of some types, and ``others``."""
    every = (*fields(RunConfig), *fields(AdapterSpec), *fields(Training), *fields(DataSpec))
    return (*(f.name for f in every if str(f.type).removesuffix(" | None") in kinds), *others)


FLAGS = _typed(("bool",))
WHOLE = _typed(("int",), "n_params", "n_trained_base", "adapter_bytes", "threads")
NUMBERS = (
    *WHOLE,
    *_typed(("float",), "chance", "validation", "score", "metric_low", "metric_high"),
    *("seconds", "step_seconds_median", "peak_memory_bytes", "peak_device_bytes"),
)


def row_of(path: Path, config: RunConfig, result: Mapping[str, Any], measurements: Mapping[str, Any]) -> Row:
    """Return the row of a finished run in the folder ``path``; what it has no value for is None.

    Raises TensorAdaptError, naming file and key, for a value that is missing or that no run writes.
    """
    with located(f"{path / 'result.json'}: {AGAIN}"):
        found = reached(result)
    with located(f"{path / 'measurements.json'}: {AGAIN}"):
        measured = {key: checks.optional(check)(measurements.get(key), key) for key, check in MEASURED.items()}
        if (computed := measurements.get("precision")) is not None:  # a run of an earlier version has none
            measured["precision"] = checks.one_of(COMPUTED, computed, "precision")
    return {**dict.fromkeys(COLUMNS), "id": path.name, **asked(config), **found, **measured}


def failed_row(path: Path, config: RunConfig, error: Mapping[str, Any]) -> Row:
    """Return the row of a run that failed in the folder ``path``.

    Raises TensorAdaptError for a value of its error that no run writes.
    """
    with located(f"{path / 'error.json'}: {AGAIN}"):
        kind, text = (words(error.get(key), key) for key in ("kind", "error"))
    note = f"{kind}: {text}"
    return {**dict.fromkeys(COLUMNS), "id": path.name, **asked(config), "status": FAILED, "note": note}


def asked(config: RunConfig) -> Row:
    """Return the part of a row that the config says."""
    own = {name: getattr(config, name) for name in ("model", "task", "method", "kind", "seed", "tuning")}
    adapter = adapter_cells(config.adapter) if config.adapter else {}
    return {**as_json(config.training), **as_json(config.data), **adapter, **own}


def shown_cells(row: Row) -> tuple[str, ...]:
    """Return what is shown of a run, a text for each of ``TITLES``; an empty one where the row has no value."""
    cells: Row = {name: row.get(name) for name in ("id", "task", "method", "size", "seed", "status", "n_params")}
    cells["size"] = Size.of(row).text
    if is_number(row.get("n_params")):
        cells["n_params"] = f"{row['n_params']:,}"
    part = next((part for part in ("score", "validation") if is_number(row.get(part))), None)
    judged = "validation " if part == "validation" else ""
    cells["score"] = f"{judged}{row.get('metric') or 'score'} {row[part]:.4g}" if part else None
    return tuple("" if cell is None else str(cell) for cell in cells.values())


def reached(result: Mapping[str, Any]) -> Row:
    """Return the part of a row that the result says, with the adapter as it was resolved.

    Raises TensorAdaptError for a value that is missing or that no run writes.
    """
    expected = (*RESULT, "metric", "validation", "test")
    if missing := [key for key in expected if key not in result and key not in OPTIONAL]:
        raise TensorAdaptError(f"{missing[0]} is missing")
    row = {key: check(result.get(key), key) for key, check in RESULT.items()}
    metric = checks.checked(checks.mapping(result["metric"], "metric"), METRIC, "metric.")
    if missing := [key for key in METRIC if key not in metric]:
        raise TensorAdaptError(f"metric.{missing[0]} is missing")
    scores = checks.optional(score)
    read_as = {"validation": "validation", "score": "test"}
    parts = {k: checks.named(scores, result[part], part).get(metric["name"]) for k, part in read_as.items()}
    adapter = adapter_cells(read(AdapterSpec, result["adapter"], "adapter")) if result.get("adapter") else {}
    ends = {f"metric_{end}": metric[end] for end in ("low", "high")}
    more = {key: item for key, item in result.items() if is_number(item) and key not in (*COLUMNS, *PARTS)}
    return {**more, **row, "metric": metric["name"], "chance": metric["chance"], **ends, **parts, **adapter}


def adapter_cells(spec: AdapterSpec) -> Row:
    """Return the columns of an adapter: numbers, and texts for what is neither a number nor a rank by bond.

    >>> cells = adapter_cells(AdapterSpec("cp", "layer proj : out : in", 4, options={"axis": 1}))
    >>> [cells[name] for name in ("parameterization", "projections", "scale", "layout", "rank", "options", "alpha")]
    ['cp', 'attention', 'matched', 'layer proj : out : in', 4, '{"axis": 1}', None]
    """
    resolved = resolve_known(spec)  # a plug-in that is not installed here may have trained the run
    spec = resolved.spec if resolved else spec
    cells = {name: _cell(item) for name, item in as_json(spec).items() if name not in ("method", "layout", "rank")}
    return {
        **cells,
        "rank": spec.rank,
        "projections": projections_text(spec.projections or ()) or None,
        "scale": f"{spec.scale:g}" if is_number(spec.scale) else spec.scale,
        # several layouts, of which each site takes the first that fits, are one choice
        "layout": spec.layout and " | ".join(one if isinstance(one, str) else one[0] for one in spec.layout),
        "parameterization": None if resolved and resolved.row else spec.name,
    }


def _cell(item: Any) -> Any:
    if isinstance(item, Mapping):
        return json.dumps(item, sort_keys=True) if item else None
    return (" ".join(map(str, item)) or None) if isinstance(item, list) else item


def projections_text(projections: str | Iterable[str]) -> str:
    """Return projections as text; a group that has a word of its own is that word.

    >>> projections_text(("q", "v")), projections_text(("o", "k", "q", "v"))
    ('q v', 'attention')
    """
    given = (projections,) if isinstance(projections, str) else tuple(projections)
    return next((word for word, group in GROUPS.items() if set(given) == group), " ".join(given))
