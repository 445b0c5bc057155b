"""Runs as one HTML page that loads nothing: verdict, figures, tables that sort and filter, failures, provenance."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib import import_module, resources
from inspect import signature
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot
from pandas import DataFrame, notna

from tensoradapt.analysis import plots, results, svg
from tensoradapt.analysis.facts import how_chosen, how_unequal, named, reported, size
from tensoradapt.analysis.names import display, looks
from tensoradapt.analysis.tables import summarise
from tensoradapt.analysis.verdict import MARGIN, Compared, compared, sentences, times
from tensoradapt.errors import TensorAdaptError
from tensoradapt.files import replace_file
from tensoradapt.records import toml_of
from tensoradapt.runs.store import Failure, load_failures, load_runs
from tensoradapt.sweeps import record
from tensoradapt.sweeps.due import Due
from tensoradapt.sweeps.spec import table_of
from tensoradapt.text import count_text, duration_text, plain

FIGURES = ("frontier", "differences", "learning")
WIDTHS = {"broad": 6.0, "slim": 3.5}  # inches of a figure on a page of two columns, and on a telephone
MADE = ("commit", "python", "platform", "cpu")
# columns of the page's tables: title, column of the rows, and how a value is written; a number unless it is "{}", and
# HTML where it is ""
NAMED = (("Method", "method", "{}"), ("Size", "size", "{}"))  # what a telephone shows of a row begins with these
COUNT = ("Parameters", "n_params", "{:,.0f}")
MEASURED = (("Time", "seconds", "{:,.0f} s"), ("Memory", "memory", "{:,.2f} GB"), ("GPU memory", "gpu", "{:,.2f} GB"))
MEANS = (
    *NAMED,
    *(("Mean", "mean", "{:.4f}"), ("95 % from", "low", "{:.4f}"), ("to", "high", "{:.4f}"), COUNT),
    *(("Lost", "n_lost", "{:.0f}"), ("On frontier", "on_frontier", "{}"), ("P(frontier)", "p_frontier", "{:.3f}")),
    *(("Rate", "lr", "{:g}"), *MEASURED, ("Runs by seed", "links", "")),
)
DIFFERENCES = (
    *NAMED,
    *(("Difference", "difference", "{:+.4f}"), ("95 % from", "low", "{:+.4f}"), ("to", "high", "{:+.4f}")),
    *(("p", "p", "{:.4f}"), ("p (Holm)", "p_holm", "{:.4f}"), ("Decided", "decided", "{}"), COUNT),
    *(("Within margin", "within", "{}"), ("Against", "against", "{}"), ("Times fewer", "times_fewer", "{:,.2f}")),
    *(("Seeds needed", "seeds_needed", "{:.0f}"), ("Runs by seed", "links", "")),
)
RUNS = (
    *(("Run", "links", ""), ("Task", "task", "{}"), *NAMED, ("Seed", "seed", "{:.0f}"), ("Test", "score", "{:.4f}")),
    *(("Validation", "validation", "{:.4f}"), COUNT, ("Rate", "lr", "{:g}"), ("Steps", "steps", "{:,.0f}")),
    *(("Status", "status", "{}"), ("Tuning", "tuning", "{}"), *MEASURED),
)


@dataclass(frozen=True)
class Found:
    """What a page is about: a row for each run, failed ones too, and what a folder says of failures and sweeps."""

    title: str
    runs: DataFrame
    where: str = ""
    failures: Mapping[str, Failure] = field(default_factory=dict)
    sweeps: Sequence[record.Recorded] = ()
    plans: Sequence[Due] = ()
    made: Sequence[tuple[str, int]] = ()  # versions and machine, and how many runs they made


def write_report(
    source: Any,
    path: Path | str,
    *,
    where: Sequence[str] = (),
    spec: Path | None = None,
    reference: str | None = None,
    margin: float = MARGIN,
    title: str | None = None,
) -> Path:
    """Write a page about runs, whole or not at all, and return its path.

    Args:
        source: a folder of runs, of whose failures and sweeps the page tells too; or runs, or a DataFrame.
        path: of the page. Links to the folders of runs are relative to it.
        where: conditions that the runs meet, such as "task=sst2".
        spec: only the runs of this sweep.
        reference: method that others are compared with; None is LoRA.
        margin: difference in score that a method may lose and still be within the reference.
        title: None: the name of the folder.

    Raises:
        TensorAdaptError: where no run is left, for a condition that cannot be read, a sweep that was not run into the
            folder, an unknown reference, and runs that do not compare.
    """
    found = (
        _folder(Path(source), spec)
        if isinstance(source, str | os.PathLike)
        else Found("Runs", results.table_of(source))
    )
    runs = results.meeting(found.runs, where)
    if runs.empty:
        raise TensorAdaptError(
            f"{source if isinstance(source, str | os.PathLike) else 'the table'} holds no run"
            f"{' with ' + ' and '.join(where) if where else ''}; expected a folder of runs: run a sweep into it first, "
            "or ask for others"
        )
    failures = {name: one for name, one in found.failures.items() if name in set(runs["id"])}
    kept = Found(title or found.title, runs, " and ".join(where), failures, found.sweeps, found.plans, found.made)
    text = page(kept, Path(path).parent, reference, margin)
    return replace_file(Path(path), text.encode(errors="backslashreplace"))


def _folder(root: Path, spec: Path | None) -> Found:
    loaded, failures, sweeps = load_runs(root), load_failures(root), record.read_all(root, spec)
    plans = [sweep.due(root) for sweep in sweeps]
    runs = results.frame(loaded, failures.values())
    if spec:  # another sweep may have run them under other names
        own = {config.id: config.method for plan in plans for config in plan.configs}
        runs = runs[runs["id"].isin(list(own))]
        runs = runs.assign(method=runs["id"].map(own))
    made = Counter(_machine(run.provenance) for run in loaded if run.name in set(runs["id"]))
    return Found(root.resolve().name, runs, "", failures, sweeps, plans, made.most_common())


def _machine(provenance: Mapping[str, Any]) -> str:
    said = {key: provenance.get(key) for key in MADE} | dict(provenance.get("packages") or {})
    return "\n".join(f"{key}: {value}" for key, value in said.items() if value is not None)


def page(found: Found, folder: Path, reference: str | None = None, margin: float = MARGIN) -> str:
    """Return the page as text; ``folder``: where it will be."""
    shown = reported(found.runs)
    tasks = compared(shown, reference, margin) if len(shown) else []
    several = len(tasks) > 1
    parts = [
        f"<header><h1>{_text(found.title)}</h1>{_about(found)}{_nav(tasks)}</header>\n<main>",
        *(_verdict(one, several) for one in tasks),
        _cards(_overall(found)),
        *(_task(one, found.runs, several) for one in tasks),
        _runs(found, folder),
        *_lost(found),
        *_made(found),
    ]
    body = "\n".join(parts)
    head = '<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, initial-scale=1">'
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n<title>{_text(found.title)}</title>\n'
        f"<style>\n{_file('report.css')}{svg.css(body)}</style>\n</head>\n<body>\n{body}\n</main>\n"
        f"<script>\n{_file('report.js')}</script>\n</body>\n</html>\n"
    )


def _file(name: str) -> str:
    return resources.files("tensoradapt.analysis").joinpath(name).read_text(encoding="utf-8")


def _text(value: Any) -> str:
    return escape(plain(str(value)))


def _id(kind: str, name: Any) -> str:
    return f"{kind}-{re.sub(r'[^A-Za-z0-9_-]', '-', str(name))}"


def _about(found: Found) -> str:
    models = ", ".join(sorted(map(str, found.runs["model"].dropna().unique())))
    only = f"only runs with {found.where}" if found.where else ""
    return f'<p class="soft">{_text(" · ".join(filter(None, (models, only))))}</p>'


def _nav(tasks: Sequence[Compared]) -> str:
    places = [(_id("task", one.task), one.task) for one in tasks] if len(tasks) > 1 else []
    places += [("runs", "runs"), ("lost", "lost and failed"), ("made", "how it was made")]
    return "<nav>" + "".join(f'<a href="#{place}">{_text(name)}</a>' for place, name in places) + "</nav>"


def _verdict(one: Compared, several: bool) -> str:
    task = f'<h3><a href="#{_id("task", one.task)}">{_text(one.task)}</a></h3>' if several else ""
    return f'<div class="verdict">{task}{"".join(f"<p>{_text(said)}</p>" for said in sentences(one))}</div>'


def _cards(cards: Iterable[tuple[str, str, str]]) -> str:
    """Return cards: of each a title, the number, and what it is of."""
    form = '<div class="card"><span>{}</span><b>{}</b><span>{}</span></div>'
    return '<div class="cards">' + "".join(form.format(*map(_text, card)) for card in cards) + "</div>"


def _overall(found: Found) -> Iterator[tuple[str, str, str]]:
    """Yield what matters of all runs."""
    runs = found.runs
    done, total = runs[runs["status"] != "failed"], None if found.where else record.total(found.plans)
    tuning = int(done["tuning"].sum())
    of = f"{tuning:,} of them chose learning rates" if tuning else f"over {count_text(done['seed'].nunique(), 'seed')}"
    yield "Runs with a result", f"{len(done):,} of {total:,}" if total else f"{len(done):,}", of
    counts = {status: int((runs["status"] == status).sum()) for status in ("at chance", "diverged", "failed")}
    yield "Lost", f"{sum(counts.values()):,}", ", ".join(f"{n:,} {status}" for status, n in counts.items())
    if done["seconds"].notna().any():
        yield (
            "Time",
            duration_text(done["seconds"].sum()),
            f"{duration_text(done['seconds'].median())} a run, the median",
        )
    for name, where in (("peak_device_bytes", "on the GPU"), ("peak_memory_bytes", "resident")):
        if done[name].notna().any():
            yield "Peak memory", f"{done[name].max() / 1e9:,.2f} GB", where
            return


def _of_task(one: Compared) -> Iterator[tuple[str, str, str]]:
    """Yield what matters of one task, all of it decided by comparisons."""
    if len(one.base):
        above = one.base["decided"] & (one.base["difference"] > 0)
        yield "Above the frozen base", f"{above.sum()} of {len(above)}", "configurations, decided after correction"
    if len(one.fixed):
        first, inside = one.fixed.iloc[0], one.fixed[one.fixed["within"]].sort_values("n_params")
        against = named({"method": first["reference"], "rank": first["reference_rank"], "budget": None})
        title, best = f"Fewest parameters within {one.margin:g} of {against}", next(inside.iterrows(), (0, None))[1]
        said = "none is decided" if best is None else f"{named(best)}, {times(best['times_fewer'])}"
        yield title, "–" if best is None else f"{best['n_params']:,.0f}", said
    if len(one.paired):
        held = one.paired[one.paired["decided"]]["difference"]
        of = f"of {count_text(len(one.paired), 'difference')} to {display(one.reference)}, decided"
        yield "Better and worse", f"{(held > 0).sum()} and {(held < 0).sum()}", of


def _task(one: Compared, every: DataFrame, several: bool) -> str:
    own = every[(every["status"] != "failed") & (every["task"].fillna("") == one.task)]
    options = {"reference": one.reference or None, "margin": one.margin, "looks": looks(every["method"])}
    drawn = "".join(_figure(name, own, one.task, options) for name in FIGURES)
    means, runs = _written(summarise(one.runs)), _written(one.runs).set_index("id")
    for name in ("seconds", "memory", "gpu"):
        means[name] = [runs[name].astype(float).reindex(list(names)).median() for names in means["runs"]]
    means["links"] = [_links(names, runs["seed"]) for names in means["runs"]]
    rates = f"Learning rates {how_chosen(own)}." if own["tuning"].any() else ""
    about = " ".join(filter(None, (rates, how_unequal(one.runs))))
    tables = [_table("Means over seeds", means, MEANS, about)]
    if len(one.paired):
        gaps = _written(one.paired)
        gaps["against"] = [
            f"{display(row['reference'])} ({row['reference_n_params']:,.0f})" for _, row in gaps.iterrows()
        ]
        gaps["links"] = [" – ".join(_links(names[i::2], runs["seed"]) for i in (0, 1)) for names in gaps["runs"]]
        title = f"Differences to {display(one.reference)}, paired over {gaps['over'].iloc[0]}"
        tables.append(_table(title, gaps, DIFFERENCES))
    heading = f'<h2 id="{_id("task", one.task)}">{_text(one.task)}</h2>' if several else ""
    return "\n".join([heading, _cards(_of_task(one)), f'<div class="grid">{drawn}</div>', *tables])


def _figure(name: str, runs: DataFrame, task: str, options: Mapping[str, Any]) -> str:
    """Return a figure at two widths, of which a page shows one; or why the runs do not allow it."""
    figure, module = plots.figure(name), import_module(f"tensoradapt.analysis.plots.{name}")
    given, of_rows = ({k: v for k, v in options.items() if k in signature(f).parameters} for f in (figure, module.rows))
    drawings = []
    try:
        rows = module.rows(runs, **of_rows)
        for kind, width in WIDTHS.items():
            with pyplot.style.context("default"), mpl.rc_context(svg.DRAWN):
                drawn = np.ravel(figure(runs, figsize=width, **given))[0].get_figure(root=True)
                drawings.append((kind, svg.inline(drawn, f"{_id(name, task)}-{kind[0]}")))
                pyplot.close(drawn)
    except TensorAdaptError as error:
        return f'<figure class="soft">No figure of {_text(name)}: {_text(error)}</figure>'
    said = _text(module.headline(rows))
    svgs = "".join(f'<svg class="{kind}" role="img" aria-label="{said}"{drawing}' for kind, drawing in drawings)
    tall = ' class="tall"' if name == "differences" else ""
    return f"<figure{tall}><h3>{said}</h3>{svgs}<figcaption>{_text(module.caption(runs, rows))}</figcaption></figure>"


def _written(rows: DataFrame) -> DataFrame:
    """Return rows with the columns that tables write: names as papers have them, sizes, and memory in GB."""
    found = rows.assign(size=[size(row) for _, row in rows.iterrows()], method=rows["method"].map(display))
    for name, column in (("memory", "peak_memory_bytes"), ("gpu", "peak_device_bytes")):
        found[name] = rows[column] / 1e9 if column in rows and rows[column].notna().any() else None
    return found


def _links(names: Iterable[str], seeds: Mapping[str, Any]) -> str:
    return " ".join(f'<a href="#{_id("run", name)}">{_text(seeds[name])}</a>' for name in names)


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
    texts = {name: [_cell(value, form) for value in rows[column]] for name, column, form in columns if column in rows}
    alike = {
        name: own[0] for name, own in texts.items() if len(own) > 1 and len(set(own)) == 1 and name != columns[0][0]
    }
    kept = [(name, form) for name, _, form in columns if any(texts.get(name, ())) and name not in alike]
    side = {name: "" if form in ("", "{}") else ' class="n"' for name, form in kept}
    head = "".join(f'<th scope="col"{side[name]}><button>{name}</button></th>' for name in side)
    places = [f' id="{_id("run", one)}"' for one in ids] or [""] * len(rows)
    body = "\n".join(
        f"<tr{place}>{''.join(f'<td{side[name]}>{texts[name][i]}</td>' for name in side)}</tr>"
        for i, place in enumerate(places)
    )
    same = ", ".join(f"{name.lower()} {text}" for name, text in alike.items() if text)
    said = " ".join(filter(None, (f"In every row: {same}." if same else "", _text(about))))
    below = f'<p class="about">{said}</p>' if said else ""
    return (
        f'<section class="table"><div class="top"><h3>{_text(title)}</h3>'
        f'<input type="search" placeholder="filter {len(rows):,} rows" aria-label="filter rows"></div>'
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'
        f"{below}</section>"
    )


def _runs(found: Found, folder: Path) -> str:
    rows = _written(found.runs)
    rows["links"] = [_folder_link(row, folder) for _, row in rows.iterrows()]
    about = "A link is the folder of the run, with its config, result, measurements, provenance and predictions."
    linked = about if rows["path"].notna().any() else ""
    return f'<h2 id="runs">Runs</h2>\n{_table("All runs", rows, RUNS, linked, list(rows["id"]))}'


def _folder_link(row: Any, folder: Path) -> str:
    if not notna(row["path"]):
        return _text(row["id"])
    return f'<a href="{escape(Path(os.path.relpath(row["path"], folder)).as_posix())}/">{_text(row["id"])}</a>'


def _lost(found: Found) -> Iterator[str]:
    """Yield runs that failed, with their errors, those with a note, and what a sweep could not run."""
    yield '<h2 id="lost">Lost and failed</h2>'
    for one in found.failures.values():
        error = {key: plain(str(one.error.get(key) or ""), "\n") for key in ("kind", "error", "traceback")}
        who = f"{_who(one.row | {'id': one.name})}: {escape(error['kind'])}: {escape(error['error'])}"
        yield f"<details><summary>{who}</summary><pre>{escape(error['traceback'])}</pre></details>"
    noted = found.runs[(found.runs["status"] != "failed") & (found.runs["lost"] | found.runs["note"].fillna("").ne(""))]
    items = [
        f"{_who(row)}: {_text(': '.join(filter(None, (row['status'], row['note']))))}" for _, row in noted.iterrows()
    ]
    items += [f"not run: {_text(reason)}" for plan in found.plans for reason in plan.blocked]
    for cell in (cell for sweep in found.sweeps for cell in sweep.cells if cell.empty):
        asked = ", ".join(f"{what} {value}" for what, value in cell.size.items())
        items.append(f"{_text(display(cell.method))}, {_text(asked)}: {_text(cell.empty)}")
    if items or not found.failures:
        yield f"<ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>" if items else "<p>None.</p>"


def _who(row: Any) -> str:
    who = f"{named(row)}, {row['task']}, seed {row['seed']}"
    return f'<a href="#{_id("run", row["id"])}">{_text(row["id"])}</a> {_text(who)}'


def _made(found: Found) -> Iterator[str]:
    """Yield the specifications as TOML, and versions and machines."""
    yield '<h2 id="made">How it was made</h2>'
    for sweep, plan in zip(found.sweeps, found.plans, strict=True):
        added = "".join(
            f"<p>Grid extended, as its best rate was at the edge: {_text(text)}</p>" for text in plan.extended
        )
        own = escape(toml(table_of(sweep.spec)))
        yield f"<details open><summary>Specification</summary><pre>{own}</pre>{added}</details>"
    for text, n in found.made:
        title = f"Versions and machine of {count_text(n, 'run')}"
        yield f"<details><summary>{title}</summary><pre>{escape(text)}</pre></details>"
    if not found.sweeps and not found.made:
        yield "<p>Neither a sweep nor versions are recorded with these runs.</p>"


def toml(table: Mapping[str, Any]) -> str:
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
