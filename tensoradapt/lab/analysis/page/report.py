"""Runs as one HTML page that loads nothing: verdict, figures, tables that sort and filter, then how it was made."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from importlib import import_module, resources
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot
from pandas import DataFrame, notna

from tensoradapt.checks import strings
from tensoradapt.errors import TensorAdaptError
from tensoradapt.files import replace_file
from tensoradapt.lab.analysis import results
from tensoradapt.lab.analysis.descriptions import how_chosen, how_unequal, listed, named, reported
from tensoradapt.lab.analysis.names import display, looks
from tensoradapt.lab.analysis.page import svg
from tensoradapt.lab.analysis.plots import _call
from tensoradapt.lab.analysis.rates import at_edges, edge_text
from tensoradapt.lab.analysis.results import LOST
from tensoradapt.lab.analysis.tables import summarise
from tensoradapt.lab.analysis.verdict import Judged, judge, lost_of, summary
from tensoradapt.lab.runs.store import ADAPTERS, Failure
from tensoradapt.planning.size import Size
from tensoradapt.text import count_text, duration_text, plain

FIGURES, LOSSES = ("frontier", "differences"), ("learning",)  # above and below the tables
WIDTHS = {"broad": 6.0, "slim": 3.5}  # inches of a figure on a page of two columns, and on a telephone
# columns of the page's tables: title, column of the rows, and how a value is written; a number unless it is "{}", and
# HTML where it is ""
NAMED = (("Method", "method", "{}"), ("Size", "size", "{}"))  # what a telephone shows of a row begins with these
COUNT = ("Parameters", "n_params", "{:,.0f}")
MEASURED = (("Time", "seconds", "{:,.0f} s"), ("Memory", "memory", "{:,.2f} GB"), ("GPU memory", "gpu", "{:,.2f} GB"))
MEANS = (
    *NAMED,
    *(("Mean", "mean", "{:.4f}"), ("95 % from", "low", "{:.4f}"), ("to", "high", "{:.4f}"), COUNT),
    *(("Validation", "validation", "{:.4f}"), ("Lost", "n_lost", "{:.0f}")),
    *(("On frontier", "on_frontier", "{}"), ("Chance of that", "p_frontier", "{:.3f}")),
    *(("Rate", "lr", "{:g}"), *MEASURED, ("Runs by seed", "links", "")),
)
DIFFERENCES = (
    *NAMED,
    *(("Verdict", "verdict", "{}"), ("Difference", "difference", "{:+.4f}")),
    *(("95 % from", "low", "{:+.4f}"), ("to", "high", "{:+.4f}"), COUNT, ("Times fewer", "times_fewer", "{:,.2f}")),
    *(("p", "p", "{:.4f}"), ("p (Holm)", "p_holm", "{:.4f}"), ("Against", "against", "{}")),
    *(("On validation", "validation_difference", "{:+.4f}"), ("Of the gain", "share", "{:.0%}")),
    *(("Control", "control", "{}"), ("To the control", "control_difference", "{:+.4f}")),
    *(("p of that (Holm)", "control_p_holm", "{:.4f}"), ("Seeds to settle it", "seeds_settle", "{:.0f}")),
    ("Runs by seed", "links", ""),
)
FAMILY = (
    "Holm's correction is over the {n} of this task. Rates were chosen on validation by other seeds; nothing "
    "that validation contradicts is said. The control is the reference's method at the nearest count."
)
RUNS = (
    *(("Run", "links", ""), ("Task", "task", "{}"), *NAMED, ("Seed", "seed", "{:.0f}"), ("Test", "score", "{:.4f}")),
    *(("Validation", "validation", "{:.4f}"), COUNT, ("Rate", "lr", "{:g}"), ("Steps", "steps", "{:,.0f}")),
    *(("Status", "status", "{}"), ("Tuning", "tuning", "{}"), *MEASURED),
)


@dataclass(frozen=True)
class Told:
    """What a folder of runs tells beside its finished runs.

    ``failures``: runs that failed, by name; ``total``: how many runs there will be; ``specifications``: of sweeps, as
    TOML; ``remarks``: what sweeps could not run, and grids that they extended; ``made``: versions and machines, and how
    many runs each made.
    """

    failures: Mapping[str, Failure] = field(default_factory=dict)
    total: int | None = None
    specifications: Sequence[str] = ()
    remarks: Sequence[str] = ()
    made: Sequence[tuple[str, int]] = ()


def write_page(
    runs: DataFrame,
    path: Path | str,
    *,
    title: str = "Runs",
    told: Told = Told(),
    where: Sequence[str] | str = (),
    reference: str | None = None,
    margin: float | None = None,
) -> Path:
    """Write a page about runs, whole or not at all, and return its path.

    Args:
        runs: a row for each run, with those that tuned and those that failed.
        path: of the page. Links to the folders of runs are relative to it.
        title: what the runs are called, below the question that is the page's title.
        told: what else is known of the runs.
        where: conditions that the runs meet, such as "task=sst2".
        reference: method that others are compared with; None is LoRA.
        margin: loss of score that hardly matters; by default one point where the metric is a share, else 0.01.

    Raises:
        TensorAdaptError: where no run is left, for a condition that cannot be read, an unknown reference, and runs that
            do not compare.
    """
    where = strings(where, "where")
    kept = results.meeting(runs, where)
    if kept.empty:
        raise TensorAdaptError(
            f"{title} holds no run{' with ' + ' and '.join(where) if where else ''}; expected a folder of runs: run a "
            "sweep into it first, or ask for others"
        )
    failures = {name: one for name, one in told.failures.items() if name in set(kept["id"])}
    told = replace(told, failures=failures, total=None if where else told.total)
    tasks = judge(scored, reference, margin=margin) if len(scored := reported(kept)) else []
    several, question = len(tasks) > 1, _question(tasks)
    heading = f"<h1>{_text(question)}</h1>{_about(kept, title, where)}{_nav(tasks)}"
    parts = [
        f"<header>{heading}</header>\n<main>",
        *(_verdict(one, several) for one in tasks),
        *(_task(one, kept, several) for one in tasks),
        *_edges(kept),
        _cards(_overall(kept, told.total)),
        _runs(kept, Path(path).parent),
        *_lost(kept, told),
        *_made(told),
    ]
    return replace_file(
        Path(path), _document(f"{question} {title}", "\n".join(parts)).encode(errors="backslashreplace")
    )


def _document(title: str, body: str) -> str:
    head = '<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, initial-scale=1">'
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n<title>{_text(title)}</title>\n'
        f"<style>\n{_file('report.css')}{svg.css(body)}</style>\n</head>\n<body>\n{body}\n</main>\n"
        f"<script>\n{_file('report.js')}</script>\n</body>\n</html>\n"
    )


def _file(name: str) -> str:
    return resources.files("tensoradapt.lab.analysis.page").joinpath(name).read_text(encoding="utf-8")


def _text(value: Any) -> str:
    return escape(plain(str(value)))


def _id(kind: str, name: Any) -> str:
    return f"{kind}-{re.sub(r'[^A-Za-z0-9_-]', '-', str(name))}"


def _question(tasks: Sequence[Judged]) -> str:
    named_tasks = listed(one.task for one in tasks if one.task)
    return f"Which adapter is small and good enough{f' on {named_tasks}' if named_tasks else ''}?"


def _about(runs: DataFrame, title: str, where: Sequence[str]) -> str:
    models = ", ".join(sorted(map(str, runs["model"].dropna().unique())))
    only = f"only runs with {' and '.join(where)}" if where else ""
    return f'<p class="soft">{_text(" · ".join(filter(None, (title, models, only))))}</p>'


def _nav(tasks: Sequence[Judged]) -> str:
    anchors = [(_id("task", one.task), one.task) for one in tasks] if len(tasks) > 1 else []
    anchors += [("runs", "runs"), ("lost", "lost and failed"), ("made", "how it was made")]
    return "<nav>" + "".join(f'<a href="#{anchor}">{_text(name)}</a>' for anchor, name in anchors) + "</nav>"


def _verdict(one: Judged, several: bool) -> str:
    task = f'<h3><a href="#{_id("task", one.task)}">{_text(one.task)}</a></h3>' if several else ""
    return f'<div class="verdict">{task}{"".join(f"<p>{_text(said)}</p>" for said in summary(one))}</div>'


def _edges(runs: DataFrame) -> Iterator[str]:
    """Yield a paragraph about best learning rates that are at an end of those that were tried."""
    if cells := at_edges(runs):
        said = edge_text(cells)
        yield f'<div class="verdict"><p>{_text(said[:1].upper() + said[1:])}.</p></div>'


def _cards(cards: Iterable[tuple[str, str, str]]) -> str:
    """Return cards: of each a title, the number, and what it is of."""
    form = '<div class="card"><span>{}</span><b>{}</b><span>{}</span></div>'
    return '<div class="cards">' + "".join(form.format(*map(_text, card)) for card in cards) + "</div>"


def _overall(runs: DataFrame, total: int | None) -> Iterator[tuple[str, str, str]]:
    """Yield what matters of all runs."""
    done, lost = runs[runs["status"] != "failed"], lost_of(reported(runs))
    tuning, seeds = int(done["tuning"].sum()), count_text(max(done["seed"].nunique(), 1), "seed")
    of = f"{tuning:,} of them chose learning rates" if tuning else f"over {seeds}"
    yield "Runs with a result", f"{len(done):,} of {total:,}" if total else f"{len(done):,}", of
    counts = {status: int((lost["status"] == status).sum()) for status in LOST} | {"failed": len(runs) - len(done)}
    yield "Lost", f"{sum(counts.values()):,}", ", ".join(f"{n:,} {status}" for status, n in counts.items())
    if done["seconds"].notna().any():
        each = f"{duration_text(done['seconds'].median())} a run, the median"
        yield "Time", duration_text(done["seconds"].sum()), each
    for name, where in (("peak_device_bytes", "on the GPU"), ("peak_memory_bytes", "resident")):
        if done[name].notna().any():
            yield "Peak memory", f"{done[name].max() / 1e9:,.2f} GB", where
            return


def _task(one: Judged, every: DataFrame, several: bool) -> str:
    own, means = results.table_of(every[every["task"].fillna("") == one.task]), _written(summarise(one.runs))
    margin = {"margin": float(one.verdicts["margin"].iloc[0])} if len(one.verdicts) else {}
    options = {"reference": one.reference or None, **margin, "looks": looks(every["method"])}
    drawn, losses = ("".join(_figure(name, own, one.task, options) for name in some) for some in (FIGURES, LOSSES))
    runs = _written(one.runs).set_index("id")
    for name in ("seconds", "memory", "gpu"):
        means[name] = [runs[name].astype(float).reindex(list(names)).median() for names in means["runs"]]
    means["links"] = [_links(names, runs["seed"]) for names in means["runs"]]
    rates = f"Learning rates {how_chosen(own)}." if own["tuning"].any() else ""
    tables = [_table("Means over seeds", means, MEANS, f"{rates} {how_unequal(one.runs)}".strip()), losses]
    if n := len(one.verdicts):
        gaps, against = _written(one.verdicts), display(one.reference)
        gaps["against"] = [f"{against} ({count:,.0f})" for count in gaps["reference_n_params"]]
        gaps["links"] = [" – ".join(_links(names[i::2], runs["seed"]) for i in (0, 1)) for names in gaps["runs"]]
        title = f"Differences to {against}, paired over {gaps['over'].iloc[0]}"
        tables.insert(0, _table(title, gaps, DIFFERENCES, FAMILY.format(n=count_text(n, "comparison"))))
    heading = f'<h2 id="{_id("task", one.task)}">{_text(one.task)}</h2>' if several else ""
    return "\n".join([heading, f'<div class="grid">{drawn}</div>', *tables])


def _figure(name: str, runs: DataFrame, task: str, options: Mapping[str, Any]) -> str:
    """Return a figure at two widths, of which a page shows one; or why the runs do not allow it."""
    module, drawings = import_module(f"tensoradapt.lab.analysis.plots.{name}"), ""
    try:
        rows = _call(module.rows, runs, **options)
        said = _text(module.headline(rows))
        for kind, width in WIDTHS.items():
            with pyplot.style.context("default"), mpl.rc_context(svg.DRAWN):
                drawn, ax = pyplot.subplots(figsize=module.size(rows, width=width), layout="constrained")
                _call(module.draw, rows, ax, **options)
                drawing = svg.inline(drawn, f"{_id(name, task)}-{kind[0]}")
                drawings += f'<svg class="{kind}" role="img" aria-label="{said}"{drawing}'
                pyplot.close(drawn)
    except TensorAdaptError as error:
        return f'<figure class="soft">No figure of {_text(name)}: {_text(error)}</figure>'
    return f"<figure><h3>{said}</h3>{drawings}<figcaption>{_text(module.caption(runs, rows))}</figcaption></figure>"


def _written(rows: DataFrame) -> DataFrame:
    """Return rows with the columns that tables write: names as papers have them, sizes, and memory in GB."""
    found = rows.assign(size=[Size.of(row).short for _, row in rows.iterrows()], method=rows["method"].map(display))
    for name, column in (("memory", "peak_memory_bytes"), ("gpu", "peak_device_bytes")):
        found[name] = rows[column] / 1e9 if column in rows and rows[column].notna().any() else None
    return found


def _links(names: Iterable[str], seeds: Mapping[str, Any]) -> str:
    texts = {name: seeds[name] if notna(seeds[name]) else name for name in names}
    return " ".join(f'<a href="#{_id("run", name)}">{_text(text)}</a>' for name, text in texts.items())


def _cell(value: Any, form: str) -> str:
    if not notna(value) or (isinstance(value, bool | np.bool_) and not value):
        return ""
    if isinstance(value, bool | np.bool_):
        return "yes"
    return str(value) if not form else _text(form.format(value)).replace("-", "−" if form != "{}" else "-")


def _table(
    title: str, rows: DataFrame, columns: Sequence[tuple[str, str, str]], about: str = "", ids: Sequence[str] = ()
) -> str:
    """Return a table without its empty columns; a column that is the same in every row is said once, below."""
    forms = {name: (column, form) for name, column, form in columns if column in rows}
    texts = {name: [_cell(value, form) for value in rows[column]] for name, (column, form) in forms.items()}
    alike = {name: own[0] for name, own in [*texts.items()][1:] if len(own) > 1 and len(set(own)) == 1}
    side = {name: "" if form in ("", "{}") else ' class="n"' for name, (_, form) in forms.items()}
    kept = [name for name, own in texts.items() if any(own) and name not in alike]
    head = "".join(f'<th scope="col"{side[name]}><button>{name}</button></th>' for name in kept)
    anchors = [f' id="{_id("run", one)}"' for one in ids] or [""] * len(rows)
    cells = ("".join(f"<td{side[name]}>{texts[name][i]}</td>" for name in kept) for i in range(len(rows)))
    body = "\n".join(f"<tr{anchor}>{row}</tr>" for anchor, row in zip(anchors, cells, strict=True))
    same = ", ".join(f"{name.lower()} {text}" for name, text in alike.items() if text)
    below = " ".join(filter(None, (f"In every row: {same}." if same else "", _text(about))))
    paragraph = f'<p class="about">{below}</p>' if below else ""
    return (
        f'<section class="table"><div class="top"><h3>{_text(title)}</h3>'
        f'<input type="search" placeholder="filter {len(rows):,} rows" aria-label="filter rows"></div>'
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'
        f"{paragraph}</section>"
    )


def _runs(runs: DataFrame, folder: Path) -> str:
    rows = _written(runs)
    roots = dict.fromkeys(Path(path).parent for path in rows["path"].dropna())
    kept = {path.name: path for root in roots for path in (root / ADAPTERS).glob("*/*")}
    rows["links"] = [_folder_link(row, folder, kept) for _, row in rows.iterrows()]
    about = "A link is the folder of the run, with its config, result, measurements, provenance and predictions."
    about += " ta.load_run(folder, run) loads a run whose adapter was kept." if kept else ""
    linked = about if rows["path"].notna().any() else ""
    table = _table("All runs", rows, RUNS, linked, list(rows["id"]))
    return f'<details id="runs"><summary>Runs</summary>\n{table}</details>'


def _folder_link(row: Any, folder: Path, kept: Mapping[str, Path]) -> str:
    if not notna(row["path"]):
        return _text(row["id"])
    targets = {row["id"]: row["path"], **({"adapter": kept[row["id"]]} if row["id"] in kept else {})}
    return " ".join(
        f'<a href="{escape(Path(os.path.relpath(path, folder)).as_posix())}/">{_text(name)}</a>'
        for name, path in targets.items()
    )


def _lost(runs: DataFrame, told: Told) -> Iterator[str]:
    """Yield runs that failed, with their errors, those with a note, and what a sweep could not run."""
    yield '<h2 id="lost">Lost and failed</h2>'
    for one in told.failures.values():
        kind, error, trace = (escape(plain(str(one.error.get(k) or ""), "\n")) for k in ("kind", "error", "traceback"))
        who = _who(one.row | {"id": one.name})
        yield f"<details><summary>{who}: {kind}: {error}</summary><pre>{trace}</pre></details>"
    noted = runs[(runs["status"] != "failed") & (runs["lost"] | runs["note"].fillna("").ne(""))]
    why = [": ".join(filter(None, (row["status"], row["note"]))) for _, row in noted.iterrows()]
    items = [f"{_who(row)}: {_text(text)}" for (_, row), text in zip(noted.iterrows(), why, strict=True)]
    items += map(_text, told.remarks)
    if items or not told.failures:
        yield f"<ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>" if items else "<p>None.</p>"


def _who(row: Any) -> str:
    seed = f"seed {row['seed']}" if notna(row["seed"]) else ""
    who = ", ".join(filter(None, (named(row), row["task"], seed)))
    return f'<a href="#{_id("run", row["id"])}">{_text(row["id"])}</a> {_text(who)}'


def _made(told: Told) -> Iterator[str]:
    """Yield the specifications as TOML, and versions and machines."""
    yield '<h2 id="made">How it was made</h2>'
    for text in told.specifications:
        yield f"<details><summary>Specification</summary><pre>{escape(text)}</pre></details>"
    for text, n in told.made:
        title = f"Versions and machine of {count_text(n, 'run')}"
        yield f"<details><summary>{title}</summary><pre>{escape(text)}</pre></details>"
    if not told.specifications and not told.made:
        yield "<p>Neither a sweep nor versions are recorded with these runs.</p>"
