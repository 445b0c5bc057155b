"""The tables of docs/results/README.md over all families.

    python benchmarks/paper/overview.py

They are made from the files that report.py and plateau.py wrote of each family.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import report

from tensoradapt.files import replace_file

BEGIN, END = "<!-- begin {} -->", "<!-- end {} -->"


def claim(folder: Path) -> str:
    """By task and method, how many times fewer parameters than LoRA r=8 the smallest size has that is within a point,
    and the smallest that is not decided to be worse; where none is, the size that comes nearest.
    """
    lines = [
        "| family | task | method | within a point: times fewer | size | not decided to be worse: times fewer | size |",
        "|---|---|---|--:|---|--:|---|",
    ]
    for family in sorted(path.parent.name for path in folder.glob("*/differences.csv")):
        rows = [
            row for row in report.read(folder / family / "differences.csv") if row["reference"] == report.REFERENCE_NAME
        ]
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
        known = report.read(path.parent / "records.csv")
        for row in report.read(path):
            run = next(r for r in known if r["id"] == row["runs"].split()[0])
            size = f"r={row['rank']}" if row["rank"] else row["budget"] and f"n={row['budget']}"
            interval = f"{float(row['low']):.3f} to {float(row['high']):.3f}" if row["low"] else ""
            family = path.parent.relative_to(folder).as_posix()
            cells = (family, row["task"], run["model"], row["method"], size, f"{int(row['n_params']):,}")
            scores = (row["metric"], f"{float(row['mean']):.3f}", interval, row["n_seeds"], run["machine"])
            lines.append(f"| {' | '.join((*cells, *scores))} |")
    return "\n".join(lines)


def steps(folder: Path) -> str:
    """LoRA r=8's mean score at half, as many and twice the steps of each task, from ``plateau.csv`` of plateau.py."""
    lines = ["| family | task | metric | half | the steps | twice | n |", "|---|---|---|---|---|---|--:|"]
    for path in sorted(folder.glob("*/plateau.csv")):
        rows = report.read(path)
        for task in dict.fromkeys(row["task"] for row in rows):
            own = [row for row in rows if row["task"] == task]
            scores = [f"{int(row['steps']):,}: {float(row['mean']):.3f}" for row in own]
            cells = (path.parent.name, task, own[0]["metric"], *scores, own[0]["n_seeds"])
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def fill(page: Path) -> None:
    """Write the tables over all families between the marks of a page."""
    text = page.read_text()
    for name, table in (("claim", claim), ("steps", steps), ("everything", everything)):
        begin, end = BEGIN.format(name), END.format(name)
        head, rest = text.split(begin)
        text = f"{head}{begin}\n\n{table(page.parent)}\n\n{end}{rest.split(end)[1]}"
    replace_file(page, text.encode())


if __name__ == "__main__":
    fill(report.RESULTS / "README.md")
