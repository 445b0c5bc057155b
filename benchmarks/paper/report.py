"""What the runs of a family say, as files of docs/results/FAMILY; and the tables over all families.

    python benchmarks/paper/report.py      # the tables of docs/results/README.md, from the files of each family

``run.py --report`` writes a family's: its specification, ``records.csv`` with a row for each run, ``means.csv``,
``differences.csv`` (each size against LoRA r=8, paired), ``table.md`` and a frontier for each task.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tensoradapt.analysis.figures.catalogue import figures
from tensoradapt.analysis.tables.comparable import by_task, reported, versus
from tensoradapt.analysis.tables.frontier import Point, points
from tensoradapt.files import csv_bytes, replace_file
from tensoradapt.runs.store import Run
from tensoradapt.sweeps.reports import results
from tensoradapt.sweeps.reports.paper_tables import paper_table, to_markdown
from tensoradapt.text import size_text

RESULTS = Path(__file__).parents[2] / "docs" / "results"
REFERENCE = ("lora", 8)
REFERENCE_NAME = f"{REFERENCE[0]} r={REFERENCE[1]}"
MARGIN = 0.01  # one point; nats where the metric is a log-likelihood
BEGIN, END = "<!-- begin {} -->", "<!-- end {} -->"
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
    with_sizes = [run for run in runs if run.config["kind"] == "adapter"]
    for drawn in figures(runs if with_sizes else [], kinds=(figure,)):
        for path in drawn.save(folder, kinds=("png",)):
            if path.suffix != ".png":
                path.unlink()  # its rows are in means.csv, its caption is in the picture
    return folder


def records(runs: Sequence[Run], failed: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """A row for each run, with all its test metrics and the machine that computed it."""
    more = {run.name: {"test_metrics": _metrics(run), "machine": machine(run)} for run in runs}
    none = {"test_metrics": "", "machine": ""}
    return results.plain_rows([{**row, **more.get(row["id"], none)} for row in results.rows_of(runs, failed)])


def _metrics(run: Run) -> str:
    return " ".join(f"{name}={value:.6g}" for name, value in sorted(run.result["test"].items()))


def machine(run: Run) -> str:
    """The card or processor of a run, and its threads."""
    measured = run.measurements
    return str(measured.get("device_name") or f"{run.provenance['cpu']}, {measured['threads']} thread(s)")


def differences(runs: Sequence[Run]) -> Iterator[Row]:
    """Each size's paired difference to LoRA r=8 on each task, or without one to the smallest size of its method, with a
    95 % interval over seeds and, where a metric has scores of examples, test examples; ``within``: whether its lower
    limit is above minus one point.
    """
    for task, of_task in by_task(reported(runs)).items():
        by_name, sizes = {run.name: run for run in of_task}, points(of_task, compare=False)
        for point in sizes:
            reference = _reference(point, sizes)
            if point is reference:
                continue
            gap = versus(*([by_name[name] for name in p.runs] for p in (point, reference)))
            if gap is None:
                continue
            yield {
                "task": task,
                "method": point.method,
                "size": size_text(point.rank, point.budget, short=True),
                "n_params": point.n_params,
                "reference": f"{reference.method} {size_text(reference.rank, reference.budget, short=True)}",
                "times_fewer": float(f"{reference.n_params / point.n_params:.3g}"),
                "metric": point.metric,
                "difference": round(gap.mean, 4),
                "low": round(gap.low, 4),
                "high": round(gap.high, 4),
                "n_seeds": gap.n,
                "within": gap.low > -MARGIN,
            }


def is_reference(row: Mapping[str, Any]) -> bool:
    """Whether a row of records is of a run of LoRA r=8 that is reported; values may be text, as in ``records.csv``."""
    return (row["method"], str(row["rank"])) == (REFERENCE[0], str(REFERENCE[1])) and str(row["tuning"]) == "False"


def _reference(point: Point, sizes: Sequence[Point]) -> Point:
    lora = [p for p in sizes if (p.method, p.rank) == REFERENCE]
    return lora[0] if lora else min((p for p in sizes if p.method == point.method), key=lambda p: p.n_params)


def _write(path: Path, rows: Sequence[Row]) -> None:
    replace_file(path, csv_bytes(list(rows[0]) if rows else (), rows))


def claim(folder: Path) -> str:
    """By task and method, how many times fewer parameters than LoRA r=8 the smallest size has that is within a point,
    and the smallest that is not decided to be worse; where none is, the size that comes nearest.
    """
    lines = [
        "| family | task | method | within a point: times fewer | size | not decided to be worse: times fewer | size |",
        "|---|---|---|--:|---|--:|---|",
    ]
    for family in sorted(path.parent.name for path in folder.glob("*/differences.csv")):
        rows = [row for row in read(folder / family / "differences.csv") if row["reference"] == REFERENCE_NAME]
        for task, method in dict.fromkeys((row["task"], row["method"]) for row in rows):
            own = [row for row in rows if (row["task"], row["method"]) == (task, method)]
            within = [row for row in own if row["within"] == "True"]
            no_worse = [row for row in own if float(row["high"]) >= 0]
            cells = (family, task, method, _smallest(within, own), _smallest(no_worse, own))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _smallest(inside: Sequence[Mapping[str, str]], every: Sequence[Mapping[str, str]]) -> str:
    row = min(inside, key=lambda r: int(r["n_params"])) if inside else max(every, key=lambda r: float(r["low"]))
    gap = f"{float(row['difference']):+.3f} ({float(row['low']):+.3f} to {float(row['high']):+.3f})"
    return f"{row['times_fewer'] if inside else 'none'} | {row['size']}: {gap}"


def everything(folder: Path) -> str:
    """Every mean of every folder of runs: score, 95 % interval, number of seeds and machine."""
    lines = [
        "| family | task | model | method | size | parameters | metric | mean | 95 % interval | n | machine |",
        "|---|---|---|---|---|--:|---|--:|---|--:|---|",
    ]
    for path in sorted(folder.rglob("means.csv")):
        known = read(path.parent / "records.csv")
        for row in read(path):
            run = next(r for r in known if r["id"] == row["runs"].split()[0])
            size = f"r={row['rank']}" if row["rank"] else row["budget"] and f"n={row['budget']}"
            interval = f"{float(row['low']):.3f} to {float(row['high']):.3f}" if row["low"] else ""
            family = path.parent.relative_to(folder).as_posix()
            cells = (family, row["task"], run["model"], row["method"], size, f"{int(row['n_params']):,}")
            scores = (row["metric"], f"{float(row['mean']):.3f}", interval, row["n_seeds"], run["machine"])
            lines.append(f"| {' | '.join((*cells, *scores))} |")
    return "\n".join(lines)


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def fill(page: Path) -> None:
    """Write the tables over all families between the marks of a page."""
    text = page.read_text()
    for name, table in (("claim", claim(page.parent)), ("everything", everything(page.parent))):
        begin, end = BEGIN.format(name), END.format(name)
        head, rest = text.split(begin)
        text = f"{head}{begin}\n\n{table}\n\n{end}{rest.split(end)[1]}"
    replace_file(page, text.encode())


if __name__ == "__main__":
    fill(RESULTS / "README.md")
