"""Means of runs as a table for a paper, in LaTeX (booktabs) or Markdown.

A cell has mean and interval; the best of a group is bold where it is decided.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tensoradapt.analysis.figures.captions import how_unequal
from tensoradapt.analysis.names import displayed
from tensoradapt.analysis.old_tables.comparable import by_task, metric_name, reported, score_range
from tensoradapt.analysis.old_tables.contrasts import decided_best
from tensoradapt.analysis.old_tables.frontier import Point, points, reference_points
from tensoradapt.errors import TensorAdaptError
from tensoradapt.runs.store import Run
from tensoradapt.text import plain, prose, size_text

LATEX = {ord(character): f"\\{character}" for character in "&%$#_{}"}
LATEX |= {ord("~"): r"\textasciitilde{}", ord("^"): r"\textasciicircum{}", ord("\\"): r"\textbackslash{}"}
LATEX |= {ord("≤"): r"$\leq$", ord("±"): r"$\pm$", ord("×"): r"$\times$", ord("−"): "$-$", ord("†"): r"$^\dagger$"}
LATEX |= {ord("<"): "$<$", ord(">"): "$>$"}
SIZE = "Size"
MARKDOWN = {ord(character): f"\\{character}" for character in "\\|*_`<>"}


@dataclass(frozen=True)
class TextCell:
    """The text of a cell, and whether it is bold."""

    text: str
    bold: bool = False


@dataclass(frozen=True)
class PaperTable:
    """A head, groups of rows between rules, and a caption; the first column holds names, the others numbers."""

    head: tuple[str, ...]
    groups: tuple[tuple[tuple[TextCell, ...], ...], ...]
    caption: str


def paper_table(runs: Sequence[Run]) -> PaperTable:
    """Return the means over seeds of methods and sizes (rows) on tasks (columns), with half of the 95 % t interval.

    Sizes that are budgets are groups of rows; references come last. Bold: the best of a group on a task, where its
    paired differences to all others of the group hold (``contrasts.decided_best``). Raises TensorAdaptError without a
    reported run, and for runs that do not compare.
    """
    shown = reported(runs)
    if not shown:
        raise TensorAdaptError("there is no reported run; expected one or more finished runs: run the sweep first")
    tasks = by_task(shown)
    of_task = {task: _points(own) for task, own in tasks.items()}
    by_name = {run.name: run for run in shown}
    best = {point.runs for found in of_task.values() for point in _decided(found, by_name)}
    keys = list(dict.fromkeys(key for found in of_task.values() for key in found))
    sized = any(size for _, size in keys)
    counts = {key: next(found[key].n_params for found in of_task.values() if key in found) for key in keys}
    names = displayed({method for method, _ in keys})
    hundredfold = {task: all(map(math.isfinite, score_range(own[0]))) for task, own in tasks.items()}
    rows: dict[str, list[tuple[TextCell, ...]]] = {}
    for key in sorted(keys, key=lambda key: counts[key] if key[1] else math.inf):  # references last, as they come
        cells = [_cell(found.get(key), best, hundredfold[task]) for task, found in of_task.items()]
        row = (TextCell(names[key[0]]), *((TextCell(key[1]),) if sized else ()), TextCell(f"{counts[key]:,}"), *cells)
        rows.setdefault(_group(key), []).append(row)
    units = [f"{task}, {_unit(own[0])}" for task, own in tasks.items()]
    head = ("Method", *((SIZE,) if sized else ()), "Parameters", *units)
    return PaperTable(head, tuple(map(tuple, rows.values())), _caption(shown, bool(best)))


Key = tuple[str, str]  # method, size


def _points(runs: Sequence[Run]) -> dict[Key, Point]:
    adapters = points(runs, compare=False)
    found = {(point.method, size_text(point.rank, point.budget, short=True)): point for point in adapters}
    return found | {(point.method, ""): point for point in reference_points(runs, compare=False).values()}


def _group(key: Key) -> str:
    """Return the group of rows of a method at a size: each budget is one, and all other sizes are one."""
    return key[1] if not key[1].startswith("r") else "r"


def _decided(found: dict[Key, Point], by_name: dict[str, Run]) -> list[Point]:
    groups: dict[str, list[Point]] = {}
    for key, point in found.items():
        if key[1]:
            groups.setdefault(_group(key), []).append(point)
    winners = [decided_best(group, by_name) for group in groups.values()]
    return [point for point in winners if point is not None]


def _cell(point: Point | None, best: set[tuple[str, ...]], hundredfold: bool) -> TextCell:
    if point is None:
        return TextCell("")
    scale, digits = (100, 1) if hundredfold else (1, 3)
    interval = point.interval
    half = scale * (interval.high - interval.low) / 2
    text = f"{scale * interval.mean:.{digits}f}".replace("-", "−")
    text += f" ± {half:.{digits}f}" if half == half else ""
    text += "†" if point.n_at_chance + point.n_diverged else ""
    return TextCell(text, point.runs in best)


def _unit(run: Run) -> str:
    """Return the metric with its unit: shares are in percent, what goes from -1 to 1 a hundredfold."""
    name, (low, high) = metric_name(run).replace("_", " "), score_range(run)
    if not math.isfinite(low) or not math.isfinite(high):
        return name
    return f"{name} (%)" if low == 0 else f"{name} (×100)"


def _caption(runs: Sequence[Run], bold: bool) -> str:
    seeds = sorted({run.row["seed"] for run in runs})
    models = " and ".join(sorted({plain(str(run.row["model"])) for run in runs}))
    several = f"means over {len(seeds)} seeds ± half of the 95 % t interval" if len(seeds) > 1 else "one seed"
    said = [f"Test scores of {models}: {several}."]
    if bold:
        said.append("Bold: the best of its group, where its paired differences to all others hold (p < 0.05, Holm).")
    if any(run.row["status"] != "finished" for run in runs):
        said.append("†: a run ended at chance or diverged.")
    return " ".join(filter(None, (*said, how_unequal(runs))))


def to_latex(table: PaperTable, label: str = "tab:results", caption: str | None = None) -> str:
    """Return the table as a ``table`` environment for the package booktabs."""
    kinds = "l" * (2 if SIZE in table.head else 1)
    kinds += "r" * (len(table.head) - len(kinds))
    body = [[" & ".join(map(_latex, row)) + r" \\" for row in group] for group in table.groups]
    lines = [
        *(r"\begin{table}", r"\centering", rf"\caption{{{_escaped(caption or table.caption)}}}", rf"\label{{{label}}}"),
        *(rf"\begin{{tabular}}{{{kinds}}}", r"\toprule"),
        " & ".join(map(_escaped, table.head)) + r" \\",
        *(line for group in body for line in (r"\midrule", *group)),
        *(r"\bottomrule", r"\end{tabular}", r"\end{table}"),
    ]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return plain(text).translate(LATEX)


def _latex(cell: TextCell) -> str:
    text = _escaped(cell.text)
    return rf"\textbf{{{text}}}" if cell.bold else text


def to_markdown(table: PaperTable, caption: str | None = None) -> str:
    """Return the table in GitHub's Markdown, its caption below."""
    names = 2 if SIZE in table.head else 1
    rule = [":--"] * names + ["--:"] * (len(table.head) - names)
    rows = [[_markdown(cell) for cell in row] for group in table.groups for row in group]
    lines = [[_marked(text) for text in table.head], rule, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{prose(_marked(caption or table.caption))}\n"


def _marked(text: str) -> str:
    return plain(text).translate(MARKDOWN)


def _markdown(cell: TextCell) -> str:
    return f"**{_marked(cell.text)}**" if cell.bold else _marked(cell.text)
