"""What notebooks show of plans, adapters, sites, runs, tasks, methods and verdicts: the facts of their text form.

Ink and paper are those of the page that a display is on. There is no script, and nothing is loaded.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

from tensoradapt.lab.analysis import plots
from tensoradapt.lab.analysis.descriptions import named
from tensoradapt.lab.analysis.names import display
from tensoradapt.lab.analysis.plots._parts import GOOD
from tensoradapt.lab.analysis.verdict import amount, answer, fewer
from tensoradapt.lab.methods import KINDS as METHODS
from tensoradapt.lab.runs.row import TITLES, shown_cells
from tensoradapt.networks.layout import Layout
from tensoradapt.networks.network import Network
from tensoradapt.planning.plan import KINDS, Plan, needed, plan_head, site_rows, skipped_rows, tensor_rows
from tensoradapt.planning.size import Size
from tensoradapt.sites.site import folded_reasons, site_table
from tensoradapt.text import LINES, count_text, plain

# the paper of JupyterLab, VS Code, Colab and the documentation, else of the browser
PAPER = (
    "var(--jp-layout-color0,var(--vscode-editor-background,var(--colab-primary-surface-color,"
    "var(--color-background-primary,Canvas))))"
)
SETTINGS: dict[Any, Any] = {
    **{"text.color": "black", "axes.facecolor": "white", "figure.facecolor": "white"},
    **{"svg.fonttype": "none", "svg.hashsalt": "tensoradapt"},  # text is text, and the same plan gives the same SVG
}
COLOUR = re.compile(r"(?<=: )#([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})\b")
COLOURED = 80  # percent of a colour that is no grey; ink takes the rest, which sets it off from any paper
# the file's head, its date, a style that would hold for the whole page, and fonts that a reader may not have
REMOVED = re.compile(r"^.*?(?=<svg)|<metadata>.*?</metadata>|<style.*?</style>|font-family:[^;]*;\s*", re.DOTALL)
STYLE = f"--paper:{PAPER};stroke-linejoin:round;stroke-linecap:butt;max-width:100%;height:auto"
WIDE, HIGH = 130, 14  # pixels of the interval of a verdict
SHOWN = 3  # examples of a split
ORDER = [TITLES.index(n) for n in ("method", "size", "score", "seed", "task", "status", "parameters", "run")]


class Html(str):
    """A text that is HTML already; every other one is escaped."""


def html(of: Any) -> str:
    """Return what a notebook shows of an object: the display of the first of its classes that has one."""
    return next(DISPLAYS[kind.__name__] for kind in type(of).__mro__ if kind.__name__ in DISPLAYS)(of)


# What displays are made of.


@cache
def _css() -> str:
    return (files("tensoradapt.lab") / "notebook.css").read_text()


def page(title: str, note: str, *parts: str) -> str:
    """Return a display: a line that says what it is, then its parts. Its style holds for displays alone."""
    head = f"<header><b>{text(title)}</b><span>{text(note)}</span></header>"
    return f'<div class="tensoradapt"><style>{_css()}</style>{head}{"".join(parts)}</div>'


def text(of: Any) -> Html:
    """Return a text as HTML."""
    return of if isinstance(of, Html) else Html(escape(plain(str(of))))


def big(of: str, below: str = "", share: float = math.nan) -> str:
    """Return a large number, a bar of a share from 0 to 1 where there is one, and what it means."""
    return f'<div class="big">{text(of)}</div>{bar(share)}<small>{text(below)}</small>'


def bar(share: float) -> Html:
    """Return a bar that is filled to a share; nothing for nan."""
    width = 100 * min(max(share, 0), 1) if not math.isnan(share) else math.nan
    return Html("" if math.isnan(width) else f'<div class="bar"><i style="width:{width:.1f}%"></i></div>')


def facts(pairs: Iterable[tuple[str, Any]]) -> str:
    """Return names with what they are, a line each; those without a value are left out."""
    return f"<dl>{''.join(f'<dt>{text(name)}</dt><dd>{text(value)}</dd>' for name, value in pairs if value)}</dl>"


def section(title: str, note: str, *parts: str, opened: bool = False) -> str:
    """Return parts that open with a click on their title."""
    head = f"<summary><b>{text(title)}</b> {text(note)}</summary>"
    return f"<details{' open' * opened}>{head}{''.join(parts)}</details>"


def table(rows: Sequence[Sequence[Any]], numbers: Sequence[int] = (), words: Sequence[int] = ()) -> str:
    """Return a table, the first row its head; columns of numbers are right-aligned, and those of words wrap."""
    kinds = dict.fromkeys(numbers, ' class="n"') | dict.fromkeys(words, ' class="words"')

    def row(cells: Sequence[Any], tag: str) -> str:
        return "".join(f"<{tag}{kinds.get(i, '')}>{text(cell)}</{tag}>" for i, cell in enumerate(cells))

    lines = [f"<tr>{row(cells, 'td' if i else 'th')}</tr>" for i, cells in enumerate(rows)]
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def coloured(words: str, layout: Layout) -> Html:
    """Return a text in which modes have the colour that they have in the drawing: index modes, rows and columns."""
    roles = {"index": layout.index, "row": layout.rows, "col": layout.cols}
    known = {name: role for role, modes in roles.items() for m in modes for name in (m.name, *m.parts)}
    parts = re.split(r"([^\s:()=]+)", plain(words))
    return Html("".join(f'<span class="{known[p]}">{escape(p)}</span>' if p in known else escape(p) for p in parts))


# The displays.


def plan(of: Plan) -> str:
    """Return a plan: the drawing of its first tensor, what it changes and costs, its factors, tensors and matrices."""
    return page(f"Plan: {_method(of)}", of.source or "given sites", *_planned(of))


def adapter(of: Any) -> str:
    """Return an adapter: what became of it, and its plan."""
    return page(f"Adapter: {_method(of.plan)}", of.state, *_planned(of.plan))


def _method(of: Plan) -> str:
    paper = "as in its paper" if of.paper else ""
    return " ".join(filter(None, (display(of.spec.name), Size.of(of.spec).text, paper)))


def _planned(of: Plan) -> Iterable[str]:
    first, share, n = of.groups[0].network, of.n_params / of.n_dense, len(of.groups)
    layout, alpha = first.layout, f" (alpha {of.spec.alpha:g})" if of.spec.alpha is not None else ""
    rows, left = tensor_rows(of.groups, KINDS)
    lines = (
        ("layout", Html(f"<code>{coloured(str(layout), layout)}</code>")),
        ("sizes", coloured(" ".join(f"{name}={size}" for name, size in first.sizes.items()), layout)),
        ("as LoRA", f"rank {first.cut.rank}"),
        *(("scale", f"{of.scale}{alpha}"), ("start", of.start), ("rule", of.spec.rule), ("weights", needed(of))),
    )
    below = f"<figcaption><small>the first of {n:,} tensors</small></figcaption>" if n > 1 else ""
    said = "".join(f"<p><small>{text(note)}</small></p>" for note in plan_head(of)[2:])
    compared = f"{100 * share:.3g} % of the {of.n_dense:,} weights in {len(of.sites):,} matrices"
    number = big(f"{of.n_params:,} parameters", compared, share)
    yield f'<div class="beside"><figure>{drawing(of)}{below}</figure><div>{number}{facts(lines)}{said}</div></div>'
    yield section("Factors", "of the first tensor" if n > 1 else "", _factors(of), opened=True)
    yield section("Tensors", f"({n:,})", table(rows, (0, 4, 5)), f"<small>{left}</small>", opened=n > 1)
    yield _matrices(of)
    if skipped := skipped_rows(of):
        yield section("Left out", "and why", table([("module", "why"), *skipped]))


def _factors(of: Plan) -> str:
    """Return a table of the factors of the first tensor: their axes, what they are shared over, and how they start."""
    network = of.groups[0].network
    counts = {f.name: math.prod(network.sizes[label] for label in f.labels) for f in network.factors}
    rows: list[Sequence[Any]] = [("factor", "axes", "shared over", "starts", "entries")]
    for factor in network.factors:
        axes = coloured(" ".join(f"{label}={network.sizes[label]}" for label in factor.labels), network.layout)
        over = " ".join(mode.name for mode in network.layout.index if mode.name not in factor.labels)
        entries = bar(counts[factor.name] / max(sum(counts.values()), 1))
        rows.append((factor.name, axes, coloured(over or "-", network.layout), _start(of, network, factor), entries))
    return table(rows)


def _start(of: Plan, network: Network, factor: Any) -> str:
    if not factor.trainable:
        return "frozen"
    zero = of.begins.update == "zero" and not of.begins.nearest and factor.name == network.zero.name
    return "zero" if zero else of.start if of.begins.reads else "random"


def _matrices(of: Plan) -> str:
    head, *rows = site_rows(of)
    layout = of.groups[0].network.layout
    shown = [(name, size, coloured(at, layout), *others) for name, size, at, *others in rows]
    return section("Matrices", f"({len(of.sites):,})", table([head, *shown], (4,)))


def drawing(of: Any) -> str:
    """Return what ``tensoradapt.plots.network`` draws as an SVG element, for light and dark pages.

    Text is text, in the font of the page.
    """
    from matplotlib import pyplot, rc_context

    written = io.StringIO()
    with rc_context(SETTINGS), pyplot.ioff():
        figure = plots.network(of, caption=False).figure
        figure.savefig(written, format="svg", transparent=True)
        pyplot.close(figure)
    svg = COLOUR.sub(_inked, REMOVED.sub("", written.getvalue()))
    return svg.replace("<svg ", f'<svg role="img" fill="currentColor" style="{STYLE}" ', 1)


def _inked(colour: re.Match[str]) -> str:
    """Return a colour of a drawing on white as a mixture with the ink of the page, a grey as one of ink and paper."""
    red, green, blue = colour.groups()
    if red != green or green != blue:
        return f"color-mix(in srgb, {colour[0]} {COLOURED}%, currentColor)"
    return f"color-mix(in srgb, currentColor {round(100 * (1 - int(red, 16) / 255))}%, var(--paper))"


def sites(of: Any) -> str:
    """Return the matrices that can be adapted, and what was left out."""
    skipped = folded_reasons(of.skipped)
    left = section("Left out", "and why", table([("module", "why"), *skipped])) if skipped else ""
    return page(count_text(len(of), "site"), of.source, table(site_table(of)), left)


def run(of: Any) -> str:
    """Return a run: its score between the ends of its metric, and what it was."""
    cells = dict(zip(TITLES, shown_cells(of.row), strict=True))
    low, high, score = (of.row.get(name) for name in ("metric_low", "metric_high", "score"))
    known = None not in (low, high, score) and all(map(math.isfinite, (low, high, score))) and high > low
    share = (score - low) / (high - low) if known else math.nan
    head = f"{cells['method']} {cells['size']}".strip() or of.name
    lines = [(name, cells[name]) for name in TITLES if name not in ("method", "size", "status", "score")]
    return page(f"Run: {head}", cells["status"], big(cells["score"] or "no score", share=share), facts(lines))


def runs(of: Any) -> str:
    """Return the first runs of a list as a table; runs that failed are grey."""
    first = [shown_cells(one.row) for one in of[: LINES - 2]]
    tones = ["" if cells[TITLES.index("status")] == "finished" else "failed" for cells in first]
    rows = [[_toned(tone, cells[i]) for i in ORDER] for tone, cells in zip(tones, first, strict=True)]
    left = f"<small>... and {count_text(len(of) - len(first), 'more run')}</small>" if len(of) > len(first) else ""
    return page(count_text(len(of), "run"), "", table([[TITLES[i] for i in ORDER], *rows], (3, 6)), left)


def _toned(outcome: str, words: str) -> Html:
    return Html(f'<span class="{outcome}">{text(words)}</span>')


def task(of: Any) -> str:
    """Return a task: what it is scored by, and where its data comes from. No data is loaded."""
    return page(f"Task: {of.name}", "", facts(_task_facts(of)))


def _task_facts(of: Any) -> list[tuple[str, Any]]:
    given = (of.metrics,) if not isinstance(of.metrics, tuple) else of.metrics
    metrics = ", ".join(str(getattr(metric, "name", metric)) for metric in given)
    return [("metric", metrics), ("labels", of.n_labels), ("source", of.source), ("licence", of.licence)]


def data(of: Any) -> str:
    """Return the splits of a task with their sizes as bars, what is known of it, and the first examples."""
    parts = dict(zip(("train", "validation", "test"), of.parts, strict=True))
    most = max(map(len, of.parts), default=0) or 1
    sizes = [("split", "examples", ""), *((name, f"{len(s):,}", bar(len(s) / most)) for name, s in parts.items())]
    lines = [*_task_facts(of.task), ("chance", "" if math.isnan(of.chance) else f"{of.chance:.3f}")]
    notes = "".join(f"<p><small>{text(note)}</small></p>" for note in of.notes)
    rows = [(" | ".join(texts), of.train.labels[i]) for i, texts in enumerate((of.train.texts or ())[:SHOWN])]
    some = section("Examples", "the first to train on", table([("text", "label"), *rows], words=(0,))) if rows else ""
    return page(f"Task: {of.task.name}", "with its data", table(sizes, (1,)), facts(lines), notes, some)


def methods(of: Any) -> str:
    """Return methods: their purpose and size first, then what they are, which opens."""
    parts: list[str] = []
    for kind in METHODS:
        if len(own := of[of["kind"] == kind]):
            rows = [(r["name"], _number(r["n_params"]), r["when"]) for _, r in own.iterrows()]
            shown = table([("method", "parameters", "choose it"), *rows], (1,), (2,))
            parts.append(section(kind.capitalize(), f"({len(own):,})", shown, opened=not parts))
    every = [(r["name"], _number(r["lora_rank"]), r["layout"], r["formula"], r["source"]) for _, r in of.iterrows()]
    shown = table([("method", "rank as LoRA", "layout", "formula", "source"), *every], (1,), (3,))
    return page(count_text(len(of), "method"), "", *parts, section("Layouts, formulas, sources", "", shown))


def _number(value: Any) -> str:
    return "-" if str(value) == "<NA>" else f"{value:,}"


def verdicts(of: Any) -> str:
    """Return verdicts: the answer of each task, then its sizes with their words and intervals, then sentences."""
    parts = [part for name, own in of.groupby(of["task"].fillna("")) for part in _judged(str(name or ""), own)]
    return page("Verdict", count_text(len(of), "size"), *parts)


def _judged(name: str, own: Any) -> Iterable[str]:
    yield f"<p><b>{text(f'{name}: ' if name else '')}{text(answer(own))}.</b></p>"
    rows = own.sort_values("n_params").to_dict("records")
    ends = [*own.loc[own["outcome"] != "failed", ["low", "high"]].stack().dropna(), *-own["margin"], 0.0]
    shown: list[Sequence[Any]] = [("size", "verdict", "difference", "parameters", "")]
    for r in rows:
        drawn = "" if r["outcome"] == "failed" else _interval(r, min(ends), max(ends))
        told = (_toned(r["outcome"], r["verdict"]), drawn, f"{r['n_params']:,.0f}", fewer(r["times_fewer"]))
        shown.append((named(r), *told))
    margin = amount(rows[0]["margin"], rows[0]["points"])
    zone = f"Difference: mean and 95 % interval. The line is the reference; green is less than {margin} below it."
    yield f"{table(shown, (3,), (1,))}<small>{text(zone)}</small>"
    yield section("In sentences", "", *(f"<p>{text(r['sentence'])}</p>" for r in rows))


def _interval(row: Mapping[str, Any], least: float, most: float) -> Html:
    """Return a difference with its interval, beside 0 and the zone of what hardly matters."""

    def x(value: float) -> float:
        return 4 + (WIDE - 8) * (value - least) / ((most - least) or 1)

    zone, zero, mean = x(-row["margin"]), x(0), x(row["difference"])
    path = f'<path d="M{x(row["low"]):.1f} 7H{x(row["high"]):.1f}" stroke="currentColor" stroke-width="1.5"/>'
    line = path if math.isfinite(row["low"] + row["high"]) else ""  # one seed has no interval
    return Html(
        f'<svg role="img" width="{WIDE}" height="{HIGH}" viewBox="0 0 {WIDE} {HIGH}" class="{row["outcome"]}">'
        f'<rect x="{zone:.1f}" width="{zero - zone:.1f}" height="{HIGH}" fill="{GOOD}" fill-opacity=".35"/>'
        f'<path d="M{zero:.1f} 0V{HIGH}" stroke="currentColor" stroke-opacity=".5"/>{line}'
        f'<circle cx="{mean:.1f}" cy="7" r="3" fill="currentColor"/></svg>'
    )


DISPLAYS: Mapping[str, Callable[[Any], str]] = {
    "Plan": plan,
    "Adapter": adapter,
    "Sites": sites,
    "Run": run,
    "Runs": runs,
    "Task": task,
    "Data": data,
    "Methods": methods,
    "Verdicts": verdicts,
}
