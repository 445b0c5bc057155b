"""The tiles of docs/results/README.md and the tables of docs/results/tables.md over all families.

    python benchmarks/paper/overview.py

They are made from the files that report.py wrote of each family.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import committed
import pandas as pd
import report
from tiles import tiles

from tensoradapt.analysis import facts
from tensoradapt.analysis.cells import p_text
from tensoradapt.analysis.names import display
from tensoradapt.analysis.tables import reported
from tensoradapt.files import replace_file

BEGIN, END = "<!-- begin {} -->", "<!-- end {} -->"
MARGIN = 0.01


def claim(folder: Path) -> str:
    """By task and method the smallest size that is within a point of LoRA r=8 and the smallest that is not decided to
    be worse, with how many times fewer parameters they have; where none is, the size that comes nearest.
    """
    fewer = "times fewer, adapter alone | with the head that is trained too"
    lines = [
        f"| family | task | method | within a point | p, Holm's | {fewer} "
        f"| not decided to be worse | p, Holm's | {fewer} |",
        "|---|---|---|---|--:|--:|--:|---|--:|--:|--:|",
    ]
    for family in sorted(path.parent.name for path in folder.glob("*/differences.csv")):
        rows = [
            row for row in report.read(folder / family / "differences.csv") if row["reference"] == report.REFERENCE_NAME
        ]
        for task, method in dict.fromkeys((row["task"], row["method"]) for row in rows):
            own = [row for row in rows if (row["task"], row["method"]) == (task, method)]
            within, size = _smallest([row for row in own if row["within"] == "True"], own)
            no_worse, other = _smallest([row for row in own if not decided_worse(row)], own)
            first = _gap(size, seeds=True), f"{size['p_within']}, {size['p_within_holm']}", *_fewer(size, within)
            second = _gap(other), f"{other['p']}, {other['p_holm']}", *_fewer(other, no_worse)
            lines.append(f"| {' | '.join((family, task, display(method), *first, *second))} |")
    return "\n".join(lines)


def decided_worse(row: Mapping[str, str]) -> bool:
    """Whether a row of differences is below its reference after Holm's correction."""
    return row["decided"] == "True" and float(row["difference"]) < 0


def _smallest(
    inside: Sequence[Mapping[str, str]], every: Sequence[Mapping[str, str]]
) -> tuple[bool, Mapping[str, str]]:
    """Whether a size passes, and the smallest that does, or else the nearest."""
    if inside:
        return True, min(inside, key=lambda row: int(row["n_params"]))
    return False, max(every, key=lambda row: float(row["low"]))


def _fewer(row: Mapping[str, str], passes: bool) -> tuple[str, str]:
    return (row["times_fewer"], row["times_fewer_trained"]) if passes else ("none", "none")


def _gap(row: Mapping[str, str], seeds: bool = False) -> str:
    """The size, its difference and limits, to the digits that are compared with a margin."""
    alone = f"; seeds alone from {float(row['low_seeds']):+.4f}" if seeds else ""
    return f"{row['size']}: {_gap_of(row).removesuffix(')')}{alone})"


def everything(folder: Path) -> str:
    """Every mean of every folder of runs: score, 95 % interval, number of seeds and machine."""
    lines = [
        "| family | task | model | method | size | adapter's parameters | trained with the head | metric | mean "
        "| 95 % interval | n | machine |",
        "|---|---|---|---|---|--:|--:|---|--:|---|--:|---|",
    ]
    for path in sorted(folder.rglob("means.csv")):
        known = report.read(path.parent / "records.csv")
        for row in report.read(path):
            run = next(r for r in known if r["id"] == row["runs"].split()[0])
            size = _size(row, len({one["steps"] for one in known if one["task"] == row["task"]}) > 1)
            interval = f"{float(row['low']):.3f} to {float(row['high']):.3f}" if row["low"] else ""
            family = path.parent.relative_to(folder).as_posix()
            n_params, n_trained = int(row["n_params"]), int(row["n_params"]) + int(run["n_head"])
            cells = (family, row["task"], run["model"], display(row["method"]), size, f"{n_params:,}", f"{n_trained:,}")
            scores = (row["metric"], f"{float(row['mean']):.3f}", interval, row["n_seeds"], run["machine"])
            lines.append(f"| {' | '.join((*cells, *scores))} |")
    return "\n".join(lines)


def _size(row: Mapping[str, str], several_steps: bool) -> str:
    """The size of a row of means as the table has it, with its steps where its task has several numbers of them."""
    asked = facts.size({key: float(row[key]) if row[key] else None for key in ("rank", "budget")})
    return ", ".join(part for part in (asked, f"{row['steps']} steps" if several_steps else "") if part)


def sizes(folder: Path, inside: str = "") -> str:
    """Each size of a folder with ``within.csv``, or of one ``inside`` it, by task where it has several: mean,
    difference to LoRA r=8, whether it is within it.
    """
    path = folder / inside / "within.csv"
    rows = report.read(path) if path.is_file() else []
    margins = list(dict.fromkeys(row["margin"] for row in rows))
    several = len({row["task"] for row in rows}) > 1
    lines = [
        f"| {'| task ' if several else ''}| parameters | with the head | score | to LoRA r=8 | seeds | Holm's p "
        f"| {' | '.join(f'within {margin}' for margin in margins)} |",
        f"|---|{'---|' if several else ''}--:|--:|--:|---|--:|--:|{'---|' * len(margins)}",
    ]
    for row in rows[: len(rows) // max(1, len(margins))]:
        same = [one for one in rows if all(one[key] == row[key] for key in ("task", "method", "size"))]
        names = (f"{display(row['method'])} {row['size']}", *([row["task"]] if several else []))
        counts = [f"{n:,}" for n in (int(row["n_params"]), int(row["n_params"]) + int(row["n_head"]))]
        cells = (*names, *counts, f"{float(row['mean']):.3f}", _gap_of(row))
        p = f"{p_text(float(row['p_holm']))}{', decided' if row['decided'] == 'True' else ''}"
        lines.append(f"| {' | '.join((*cells, row['n_seeds'], p, *map(_within, same)))} |")
    return "\n".join(lines)


def alike(folder: Path) -> str:
    """Each pair of sizes of about as many parameters of a folder with ``pairs.csv``: how far apart they are, and
    whether they are decided to be within 0.01 of each other.
    """
    lines = ["| | parameters | beside | parameters | difference | seeds | Holm's p | alike |"]
    lines += ["|---|--:|---|--:|---|--:|--:|---|"]
    path = folder / "pairs.csv"
    if not path.is_file():
        return "\n".join(lines)
    pairs = committed.alike(pd.read_csv(path), reported(pd.read_csv(folder / "records.csv")), MARGIN)
    for row in pairs.to_dict("records"):
        counts = [f"{row[name]:,}" for name in ("n_params", "reference_n_params")]
        cells = (display(row["method"]), counts[0], display(row["reference"]), counts[1], _gap_of(row))
        told = (str(row["n_seeds"]), p_text(row["p_apart_holm"]), "yes" if row["alike"] else "not decided")
        lines.append(f"| {' | '.join((*cells, *told))} |")
    return "\n".join(lines)


def _within(row: Mapping[str, str]) -> str:
    """Say whether a row is within its margin, and else how many seeds would decide it."""
    if row["within"] == "True":
        return "yes"
    if float(row["difference"]) <= -float(row["margin"]):
        return "its mean is not"
    seeds = f"{float(row['seeds_within']):.0f}" if row["seeds_within"] else "above 200"
    return f"not decided; {seeds} seeds"


def smallest(folder: Path) -> str:
    """By method of ``within.csv`` the smallest size that is decided to be within each margin, or the seeds it takes."""
    rows = report.read(folder / "within.csv") if (folder / "within.csv").is_file() else []
    margins = list(dict.fromkeys(row["margin"] for row in rows))
    lines = [f"| | {' | '.join(f'within {margin}' for margin in margins)} |", f"|---|{'---|' * len(margins)}"]
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [[row for row in rows if (row["method"], row["margin"]) == (method, margin)] for margin in margins]
        lines.append(f"| {' | '.join((display(method), *map(_smallest_within, own)))} |")
    return "\n".join(lines)


def _smallest_within(rows: Sequence[Mapping[str, str]]) -> str:
    """The smallest size that is within the margin, or else the one of which the fewest seeds would decide it."""
    inside = [int(row["n_params"]) for row in rows if row["within"] == "True"]
    if inside:
        return f"{min(inside):,} parameters"
    seeds = [(float(row["seeds_within"]), int(row["n_params"])) for row in rows if row["seeds_within"]]
    least, n_params = min(seeds, default=(0, 0))
    return f"none; {least:.0f} seeds would decide {n_params:,}" if seeds else "none, nor with 200 seeds"


def by_steps(folder: Path) -> str:
    """Each size of a folder's ``steps`` at each number of steps: its mean, and its difference to LoRA r=8 there."""
    own = folder / "steps"
    lines = ["| | steps | seconds | learning rate | score | to LoRA r=8 | Holm's p |", "|---|--:|--:|--:|--:|---|--:|"]
    if not own.is_dir():
        return "\n".join(lines)
    runs, gaps = reported(pd.read_csv(own / "records.csv")), report.read(own / "differences.csv")
    for (n_params, method, steps), of in runs.groupby(["n_params", "method", "steps"]):
        row, key = of.iloc[0], (method, str(n_params), str(steps))
        gap = next((one for one in gaps if (one["method"], one["n_params"], one["steps"]) == key), None)
        told = f"{_gap_of(gap)} | {float(gap['p_holm']):.3f}" if gap else " | "
        each = seconds_of_step().get((display(method), int(n_params)))
        numbers = f"{steps} | {f'{steps * each:.0f}' if each else ''} | {row['lr']:.3g} | {of['score'].mean():.3f}"
        lines.append(f"| {facts.named(row)} | {numbers} | {told} |")
    return "\n".join(lines)


@cache
def seconds_of_step() -> dict[tuple[str, int], float]:
    """The median seconds of a step by method and parameters, of benchmarks/records/step_seconds.csv."""
    table = pd.read_csv(Path(__file__).parents[1] / "records" / "step_seconds.csv")
    return table.groupby(["method", "n_params"])["seconds"].median().to_dict()


def _gap_of(row: Mapping[str, Any]) -> str:
    return f"{float(row['difference']):+.4f} ({float(row['low']):+.4f} to {float(row['high']):+.4f})"


# what is written, by its marks
PARTS = {"tiles": tiles, "claim": claim, "everything": everything}
PARTS |= {"sizes": sizes, "smallest": smallest, "by steps": by_steps, "alike": alike}
# folders of one family
SIZES_OF = {"larger": "mpnet", "larger too": "mpnet-more", "larger on sentences": "mpnet-sentences"}
SIZES_OF |= {name: name for name in ("small", "others", "linear", "papers")}
PARTS |= {name: partial(sizes, inside=of) for name, of in SIZES_OF.items()}


def fill(page: Path) -> None:
    """Write the tiles and tables whose marks a page has between them."""
    before = text = page.read_text()
    for name, made in PARTS.items():
        begin, end = BEGIN.format(name), END.format(name)
        if begin in text:
            head, rest = text.split(begin)
            text = f"{head}{begin}\n\n{made(page.parent)}\n\n{end}{rest.split(end)[1]}"
    if text != before:
        replace_file(page, text.encode())


if __name__ == "__main__":
    for page in sorted(report.RESULTS.rglob("*.md")):
        fill(page)
