"""The table of a paper: methods and sizes (rows) on tasks (columns); and one writer of tables of all kinds."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pandas import DataFrame, notna

from tensoradapt.checks import as_path, check_arguments, optional, text
from tensoradapt.errors import TensorAdaptError, did_you_mean, missing_extra
from tensoradapt.files import csv_bytes, replace_file
from tensoradapt.lab.analysis.cell_texts import cell_text
from tensoradapt.lab.analysis.comparisons import compared_rows
from tensoradapt.lab.analysis.descriptions import how_unequal, listed, reported
from tensoradapt.lab.analysis.names import displayed
from tensoradapt.lab.analysis.results import table_of
from tensoradapt.lab.analysis.tables import mean_rows, summarise
from tensoradapt.lab.runs.row import REFERENCES
from tensoradapt.planning.size import Size
from tensoradapt.text import plain, prose

LATEX = {ord(character): f"\\{character}" for character in "&%$#_{}"}
LATEX |= {ord("~"): r"\textasciitilde{}", ord("^"): r"\textasciicircum{}", ord("\\"): r"\textbackslash{}"}
LATEX |= {ord("≤"): r"$\leq$", ord("±"): r"$\pm$", ord("×"): r"$\times$", ord("−"): "$-$", ord("†"): r"$^\dagger$"}
LATEX |= {ord("<"): "$<$", ord(">"): "$>$"}
MARKDOWN = {ord(character): f"\\{character}" for character in "\\|*_`<>"}
BOLD = re.compile(r"\*\*(.*)\*\*", re.DOTALL)  # a cell of a paper's table that is decided to be the best
NUMBER = re.compile(r"[−+-]?[\d,]*\.?\d+(e[+-]\d+)?( ± [\d.]+)?†?")
HEAD = "With the head"
BEST = "the best of its group"  # a name that compare_means takes for the one configuration it stands for


def paper(source: Any) -> DataFrame:
    """Return means over seeds, ± half of the 95 % t interval, of methods and sizes on tasks, as texts.

    Sizes that are budgets are groups of rows, each least parameters first; references come last. A cell in ``**`` is
    the best of its group on a task, and better than each of the others by ``compare``, after Holm's correction over
    these; ``write`` makes it bold. Scores whose metric has both ends are hundredfold. A dagger: a run was lost.

    Args:
        source: a folder of runs, runs, or a DataFrame with a row for each run.

    Returns:
        Columns Method, Size (where there are sizes), Parameters, With the head (where one is trained; of the tasks'
        heads the largest) and one for each task. ``attrs["caption"]`` says of how many seeds the means are, and what
        methods do not have in common.

    Raises:
        TensorAdaptError: where there is no reported run, and as ``summarise`` does.
    """
    runs = reported(table_of(source))
    if runs.empty:
        raise TensorAdaptError("there is no reported run; expected one or more finished runs: run the sweep first")
    means = summarise(runs)
    means = means.assign(Parameters=means["n_params"], task=means["task"].fillna(""))
    most = means.groupby("method")["n_params"].transform("max")  # full fine-tuning's differ by the tasks' heads
    means["Parameters"] = means["n_params"].where(means["kind"] == "adapter", most)
    means["Method"] = means["method"].map(displayed(means["method"]))
    means["Size"] = [Size.of(row).short if row["kind"] == "adapter" else "" for _, row in means.iterrows()]
    means = means.sort_values(["Parameters", "Method"], kind="stable")
    means["group"] = [group(row["Size"]) if row["kind"] == "adapter" else row["kind"] for _, row in means.iterrows()]
    best = {own for _, every in means.groupby("task") for own in _decided(every, runs)}
    means["column"] = means["task"].map({task: _title(str(task), own) for task, own in means.groupby("task")})
    means["text"] = [_cell(row, row["runs"] in best) for _, row in means.iterrows()]
    means[HEAD] = means.groupby(["kind", "Method", "Size", "Parameters"])["n_trained"].transform("max")
    keys = ["group", "Method", "Size", "Parameters", HEAD]
    _check_once(means, [*keys, "column"])
    table = means.pivot(index=keys, columns="column", values="text").fillna("").reset_index()
    order = [*(name for name in means["group"].unique() if name not in REFERENCES), *REFERENCES]
    table["group"] = table["group"].map(order.index)
    table = table.sort_values(["group", "Parameters", "Method"], ignore_index=True).rename_axis(columns=None)
    told = {"Size": table["Size"].any(), HEAD: (table[HEAD] != table["Parameters"]).any()}
    table = table[[*keys[1:], *means.sort_values("task")["column"].unique()]]
    table.attrs["caption"] = _caption(runs, means, bool(best))
    return table.drop(columns=[name for name, differs in told.items() if not differs])


def paper_table(
    source: Any, path: Path | str | None = None, *, caption: str | None = None, label: str = "tab:results"
) -> DataFrame:
    """Return the table of a paper, and write it where a path is given (docs/guides/sweeps/results.md).

    Means over seeds ± half of the 95 % t interval, of methods and sizes (rows) on tasks (columns), as texts: in percent
    where the metric has both ends. What is decided to be the best of its group, after Holm's correction, is in ``**``,
    which a file shows as bold. A dagger: a run was lost.

    Args:
        source: a folder of runs, runs, or a DataFrame with a row for each run.
        path: ends with .tex (for the package booktabs), .md, .html, .csv or .parquet; replaced whole, or not at all.
        caption: of .tex, .md and .html; by default of how many seeds the means are, and what methods do not have in
            common.
        label: of .tex.

    Returns:
        A DataFrame with the columns Method, Size (where there are sizes), Parameters, With the head (where one is
        trained; of the tasks' heads the largest) and one for each task.

    Raises:
        TensorAdaptError: where there is no reported run or runs do not compare, and for a path with another ending or
            that cannot be written, and a caption or label that is no line of text.

    >>> import pandas as pd
    >>> import tensoradapt as ta
    >>> runs = pd.DataFrame({"method": ["lora", "cp"] * 3, "seed": [0, 0, 1, 1, 2, 2], "n_params": [9216, 1008] * 3})
    >>> runs["score"] = [0.81, 0.841, 0.83, 0.86, 0.82, 0.849]
    >>> ta.paper_table(runs).to_numpy().tolist()
    [['CP', 1008, '**0.850 ± 0.024**'], ['LoRA', 9216, '0.820 ± 0.025']]
    """
    check_arguments(locals(), path=optional(as_path), caption=optional(text), label=text)
    table = paper(source)
    if path is not None:
        write(table, path, caption=caption, label=label)
    return table


def _check_once(means: DataFrame, keys: Sequence[str]) -> None:
    """Raise TensorAdaptError where two configurations would have one row."""
    twice = means[means.duplicated(keys)]
    if len(twice):
        one = twice.iloc[0]
        raise TensorAdaptError(
            f"two configurations are {one['Method']} {one['Size']} with {one['Parameters']:,} parameters on "
            f"{one['task'] or 'one task'}; expected one for a row: give their methods names of their own, or select one"
        )


def group(name: str) -> str:
    """Return the group of rows of a size: each budget is one, and all other sizes are one."""
    return name if name.startswith("≤") or not name else "r"


def _decided(means: DataFrame, runs: DataFrame) -> list[tuple[str, ...]]:
    """Return the runs of the best configuration of each group of a task, where it is better than each of the others."""
    found = []
    for _, own in means[means["kind"] == "adapter"].groupby(means["Size"].map(group)):
        top = own.loc[own["mean"].idxmax()]
        if len(own) < 2:
            continue
        same = runs[runs["id"].isin([name for names in own["runs"] for name in names])].assign(budget=None)
        same["method"] = same["method"].where(~same["id"].isin(top["runs"]), BEST)
        gaps = compared_rows(mean_rows(same), BEST)
        if len(gaps) == len(own) - 1 and all(gap["decided"] and gap["difference"] < 0 for gap in gaps):
            found.append(top["runs"])
    return found


def _bounded(means: Any) -> bool:
    """Return whether a metric has both ends, as an accuracy has."""
    return bool(np.isfinite(np.asarray(means[["metric_low", "metric_high"]], float)).all())


def _title(task: str, means: DataFrame) -> str:
    """Return the title of a task's column: shares are in percent, what goes from -1 to 1 a hundredfold."""
    unit = (" (%)" if (means["metric_low"] == 0).all() else " (×100)") if _bounded(means) else ""
    return f"{task}, {listed(sorted(set(means['metric'])))}".removeprefix(", ").replace("_", " ") + unit


def _cell(row: Any, bold: bool) -> str:
    scale, digits = (100 / row["metric_high"], 1) if _bounded(row) else (1, 3)
    text = f"{scale * row['mean']:.{digits}f}".replace("-", "−")
    text += f" ± {scale * (row['high'] - row['low']) / 2:.{digits}f}" if row["n_seeds"] > 1 else ""
    text += "†" if row["n_lost"] else ""
    return f"**{text}**" if bold else text


def _caption(runs: DataFrame, means: DataFrame, bold: bool) -> str:
    models = sorted({plain(str(model)) for model in runs["model"].dropna()})
    least, most = means["n_seeds"].min(), means["n_seeds"].max()
    seeds = f"{most} seeds" if least == most else f"{least} to {most} seeds"
    several = f"means over {seeds} ± half of the 95 % t interval" if most > 1 else "one seed"
    said = [f"Test scores{f' of {listed(models)}' if models else ''}: {several}."]
    if bold:
        said.append("Bold: the best of its group, where its paired differences to all others hold (p < 0.05, Holm).")
    if runs["lost"].any():
        said.append("†: a run ended at chance or diverged.")
    return " ".join(filter(None, (*said, how_unequal(runs))))


def write(table: DataFrame, path: Path | str, *, caption: str | None = None, label: str = "tab:results") -> Path:
    """Write a table as its ending says, whole or not at all; return the path.

    Args:
        table: a DataFrame, such as that of ``results``, ``summarise``, ``compare`` or ``paper``.
        path: ends with .csv, .parquet, .md (GitHub's Markdown), .tex (for the package booktabs) or .html. CSV and
            Parquet have all digits, the others separators of thousands, and bold where a cell is in ``**``.
        caption: of .md, .tex and .html; None: that which ``paper`` says.
        label: of .tex.

    Raises:
        TensorAdaptError: for another ending, for what is no DataFrame, for .parquet without pyarrow, and where the file
            cannot be written.
    """
    if not isinstance(table, DataFrame):
        raise TensorAdaptError(f"the table is a {type(table).__name__}; expected a DataFrame, such as ta.results gives")
    ending = Path(path).suffix.lower()
    if ending not in WRITERS:
        raise TensorAdaptError(f"{path} ends with {ending!r}{did_you_mean(ending, WRITERS)}")
    said = table.attrs.get("caption", "") if caption is None else caption
    return replace_file(Path(path), WRITERS[ending](table, said, label))


def _values(table: DataFrame) -> DataFrame:
    """Return the table with texts in place of what a file has no type for: tuples, and ranks that are partly texts."""
    plainly = table.reset_index(drop=True).rename(columns=str)
    for name, column in plainly.items():
        if column.dtype == object:
            mixed = column.dropna().map(type).nunique() > 1
            plainly[name] = column.map(lambda value, mixed=mixed: _text(value, mixed))
    return plainly


def _text(value: Any, mixed: bool) -> Any:
    if isinstance(value, tuple | list):
        return " ".join(map(str, value))
    if value is None or not notna(value):
        return None
    return plain(str(value), "\n") if mixed or isinstance(value, str | Path) else value


def csv_of(table: DataFrame, caption: str = "", label: str = "") -> bytes:
    """Return a table as CSV, with all digits."""
    rows = _values(table).astype(object)
    return csv_bytes(list(rows), rows.where(rows.notna(), None).to_dict("records"))


def _parquet(table: DataFrame, caption: str, label: str) -> bytes:
    data, rows = io.BytesIO(), _values(table)
    rows.attrs = {}
    try:
        rows.to_parquet(data, index=False)
    except ImportError:
        raise missing_extra("pyarrow", "data", "a Parquet table") from None
    return data.getvalue()


Cells = tuple[list[str], list[bool], list[list[str]]]  # titles; whether each column is numbers; texts of cells


def _marked(table: DataFrame, escape: Callable[[str], str], bold: str) -> Cells:
    """Return the cells with what a language reads as markup escaped; ``bold`` has a place for a bold text."""
    texts = [[cell_text("", value) for value in column] for _, column in _values(table).items()]
    numbers = [all(NUMBER.fullmatch(text.strip("*")) for text in column if text) and any(column) for column in texts]

    def marked(text: str) -> str:
        is_bold = BOLD.fullmatch(text)
        return bold.format(escape(is_bold[1])) if is_bold else escape(text)

    titles = [escape(plain(str(title))) for title in table.columns]
    return titles, numbers, [list(map(marked, row)) for row in zip(*texts, strict=True)]


def _markdown(table: DataFrame, caption: str, label: str) -> bytes:
    titles, numbers, rows = _marked(table, lambda text: text.translate(MARKDOWN), "**{}**")
    lines = [titles, ["--:" if number else ":--" for number in numbers], *rows]
    below = f"\n{prose(plain(caption).translate(MARKDOWN))}\n" if caption else ""
    return ("\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n{below}").encode()


def _latex(table: DataFrame, caption: str, label: str) -> bytes:
    titles, numbers, rows = _marked(table, lambda text: text.translate(LATEX), r"\textbf{{{}}}")
    of, body = list(map(group, table["Size"])) if "Size" in table else [""] * len(rows), []
    for i, row in enumerate(rows):
        body += [r"\midrule"] if i > 0 and of[i] != of[i - 1] else []
        body.append(" & ".join(row) + r" \\")
    lines = [
        *(r"\begin{table}", r"\centering", *([rf"\caption{{{plain(caption).translate(LATEX)}}}"] if caption else [])),
        *(rf"\label{{{label}}}", rf"\begin{{tabular}}{{{''.join('r' if n else 'l' for n in numbers)}}}", r"\toprule"),
        *(" & ".join(titles) + r" \\", r"\midrule", *body),
        *(r"\bottomrule", r"\end{tabular}", r"\end{table}"),
    ]
    return ("\n".join(lines) + "\n").encode()


def _html(table: DataFrame, caption: str, label: str) -> bytes:
    titles, numbers, rows = _marked(table, html.escape, "<b>{}</b>")
    sides = [f'style="text-align:{"right" if number else "left"}"' for number in numbers]
    head, *body = (
        f"<tr>{''.join(f'<{tag} {side}>{cell}</{tag}>' for cell, side in zip(row, sides, strict=True))}</tr>"
        for tag, row in zip(("th", *["td"] * len(rows)), (titles, *rows), strict=True)
    )
    below = f"<caption>{html.escape(plain(caption))}</caption>\n" if caption else ""
    lines = ("<thead>", head, "</thead>", "<tbody>", *body, "</tbody>", "</table>", "")
    return (f"<table>\n{below}" + "\n".join(lines)).encode()


WRITERS: dict[str, Callable[[DataFrame, str, str], bytes]] = {
    ".csv": csv_of,
    ".parquet": _parquet,
    ".md": _markdown,
    ".tex": _latex,
    ".html": _html,
}
