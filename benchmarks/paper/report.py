"""What the runs of a family say, as files of docs/results/FAMILY.

``run.py --report`` writes them: its specification, ``records.csv`` with a row for each run, ``means.csv``,
``differences.csv`` (each size against LoRA r=8, paired, with p and Holm's p), ``table.md`` and a frontier for each
task.
"""

from __future__ import annotations

import csv
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tensoradapt.analysis.figures.catalogue import figures
from tensoradapt.analysis.old_tables.comparable import by_task, paired_scores, reported, score
from tensoradapt.analysis.old_tables.frontier import Point, points
from tensoradapt.analysis.statistics.intervals import Floats, paired_difference, t_interval
from tensoradapt.analysis.statistics.significance import crossed_paired_p, holm, paired_p
from tensoradapt.files import csv_bytes, replace_file
from tensoradapt.runs.store import Failure, Run
from tensoradapt.sweeps.reports import results
from tensoradapt.sweeps.reports.paper_tables import paper_table, to_markdown
from tensoradapt.text import size_text

RESULTS = Path(__file__).parents[2] / "docs" / "results"
REFERENCE = ("lora", 8)
REFERENCE_NAME = f"{REFERENCE[0]} r={REFERENCE[1]}"
MARGIN = 0.01  # one point; nats where the metric is a log-likelihood
LEVEL = 0.05  # a difference with p below it, after Holm's correction, is decided; half of it for one side
Row = dict[str, Any]


def write(files: Sequence[Path], out: Path, folder: Path, figure: str = "frontier") -> Path:
    """Write a family's files into ``folder`` from the finished runs of ``out``; returns the former."""
    folder.mkdir(parents=True, exist_ok=True)
    runs, failed = results.select(out)
    for file in files:
        shutil.copy(file, folder / file.name)
    _write(folder / "records.csv", records(runs, failed))
    _write(folder / "means.csv", results.plain_rows(results.means_of(runs)))
    if rows := list(differences(runs)):
        _write(folder / "differences.csv", rows)
    replace_file(folder / "table.md", f"# Scores\n\n{to_markdown(paper_table(runs))}".encode())
    with_sizes = [run for run in runs if run.row["kind"] == "adapter"]
    for drawn in figures(runs if with_sizes else [], kinds=(figure,)):
        for path in drawn.save(folder, kinds=("png",)):
            if path.suffix != ".png":
                path.unlink()  # its rows are in means.csv, its caption is in the picture
    return folder


def records(runs: Sequence[Run], failed: Mapping[str, Failure]) -> list[Row]:
    """A row for each run, with all its test metrics, the machine that computed it and the numbers of its head."""
    more = {
        run.name: {"test_metrics": _metrics(run), "machine": machine(run), "n_head": run.result["n_trained_base"]}
        for run in runs
    }
    none = {"test_metrics": "", "machine": "", "n_head": ""}
    return results.plain_rows([{**row, **more.get(row["id"], none)} for row in results.rows_of(runs, failed)])


def _metrics(run: Run) -> str:
    return " ".join(f"{name}={value:.6g}" for name, value in sorted(run.result["test"].items()))


def machine(run: Run) -> str:
    """The card or processor of a run, and its threads."""
    measured = run.measurements
    return str(measured.get("device_name") or f"{run.provenance['cpu']}, {measured['threads']} thread(s)")


def differences(runs: Sequence[Run]) -> Iterator[Row]:
    """Each size's paired difference to LoRA r=8 on each task, or without one to the smallest size of its method.

    ``low`` and ``high``: its 95 % interval over seeds and, where a metric has scores of examples, test examples;
    ``low_seeds``: the lower limit over seeds alone; ``p``: the larger of the crossed model's and of the t test's over
    seeds; ``p_within``: the same, one-sided, that it is above minus one point. ``corrected`` adds what is decided.
    """
    for task, of_task in by_task(reported(runs)).items():
        by_name, sizes = {run.name: run for run in of_task}, points(of_task, compare=False)
        compared = [(point, _reference(point, sizes)) for point in sizes]
        rows = [_difference(*pair, by_name) for pair in compared if pair[0] is not pair[1]]
        yield from ({"task": task, **row} for row in corrected([row for row in rows if row]))


def _difference(point: Point, reference: Point, by_name: Mapping[str, Run]) -> Row:
    """The row of a size without its task; empty where no seed is common."""
    seeds = [seed for seed in point.seeds if seed in reference.seeds]
    pairs = [(by_name[point.run_of(seed)], by_name[reference.run_of(seed)]) for seed in seeds]
    if not pairs:
        return {}
    over_seeds = t_interval(apart := np.array([score(own) - score(other) for own, other in pairs]))
    answers = paired_scores(pairs)
    gap = paired_difference(*answers) if answers else over_seeds
    p, p_above = (_p(apart, answers, shift) for shift in (0.0, MARGIN))
    head = pairs[0][0].result["n_trained_base"]
    return {
        "method": point.method,
        "size": size_text(point.rank, point.budget, short=True),
        "n_params": point.n_params,
        "n_head": head,
        "reference": f"{reference.method} {size_text(reference.rank, reference.budget, short=True)}",
        "times_fewer": rounded(reference.n_params / point.n_params),
        "times_fewer_trained": rounded((reference.n_params + head) / (point.n_params + head)),
        "metric": point.metric,
        "difference": round(gap.mean, 4),
        "low": round(gap.low, 4),
        "high": round(gap.high, 4),
        "low_seeds": round(over_seeds.low, 4),
        "n_seeds": gap.n,
        "p": p,
        "p_within": one_sided(p_above, gap.mean + MARGIN),
    }


def _p(apart: Floats, answers: tuple[Floats, Floats] | None, shift: float) -> float:
    """Two-sided p that a difference is not minus ``shift``; NaN for one seed."""
    if len(apart) < 2:
        return math.nan
    return crossed_paired_p(answers[0] + shift, answers[1]) if answers else paired_p(apart + shift)


def one_sided(p: float, distance: float) -> float:
    """The p that a distance is above 0, of the two-sided p that it is not 0."""
    return p / 2 if distance > 0 else 1 - p / 2


def corrected(rows: Sequence[Row]) -> list[Row]:
    """The rows of a task with Holm's corrections over all of them and what these decide: a difference (``decided``), or
    that less than a point is lost (``within``). One seed has no p and decides nothing.
    """
    held, above = (_holm([row[key] for row in rows]) for key in ("p", "p_within"))
    plain = [{**row, "p": rounded(row["p"]), "p_within": rounded(row["p_within"])} for row in rows]
    return [
        {**row, "p_holm": rounded(a), "decided": a < LEVEL, "p_within_holm": rounded(b), "within": b < LEVEL / 2}
        for row, a, b in zip(plain, held, above, strict=True)
    ]


def _holm(p: Sequence[float]) -> list[float]:
    known = [value for value in p if math.isfinite(value)]
    adjusted = iter(holm(known))
    return [float(next(adjusted)) if math.isfinite(value) else math.nan for value in p]


def rounded(value: float) -> float:
    """To three digits."""
    return float(f"{value:.3g}")


def is_reference(row: Mapping[str, Any]) -> bool:
    """Whether a row of records is of a run of LoRA r=8 that is reported; values may be text, as in ``records.csv``."""
    return (row["method"], str(row["rank"])) == (REFERENCE[0], str(REFERENCE[1])) and str(row["tuning"]) == "False"


def _reference(point: Point, sizes: Sequence[Point]) -> Point:
    lora = [p for p in sizes if (p.method, p.rank) == REFERENCE]
    return lora[0] if lora else min((p for p in sizes if p.method == point.method), key=lambda p: p.n_params)


def _write(path: Path, rows: Sequence[Row]) -> None:
    replace_file(path, csv_bytes(list(rows[0]) if rows else (), rows))


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
