"""The commands that read a folder of runs: ``tensoradapt watch``, ``results``, ``plot`` and ``report``."""

from __future__ import annotations

import argparse
import contextlib
from typing import Any

from tensoradapt.cli.options import DEFAULT_OUT, add_selection, path
from tensoradapt.cli.output import show

FIGURES = "such as frontier (default), ranks or grid, or all; an unknown name is answered with the list of them"


def add_parsers(commands: Any) -> None:
    """Add the commands to those of a parser (``add_subparsers``)."""
    p = commands.add_parser("watch", help="show how far the sweeps of a folder are, live; reads only")
    p.set_defaults(command=watch)
    p.add_argument("runs", type=path, help="folder of runs")
    p.add_argument("--once", action="store_true", help="print what there is now and stop")
    p.add_argument("--every", type=float, default=2.0, metavar="SECONDS", help="default: %(default)s")

    p = commands.add_parser("results", help="show the runs of a folder as a table, or write it to a file")
    p.set_defaults(command=results)
    p.add_argument("runs", type=path, help="folder of runs")
    add_selection(p)
    p.add_argument(
        "--means", action="store_true", help="a row for each configuration: its mean and interval over seeds"
    )
    for kind in ("csv", "parquet", "latex", "markdown"):
        p.add_argument(f"--{kind}", type=path, metavar="FILE", help=f"write the table as {kind} and do not show it")
    p.add_argument("--caption", metavar="TEXT", help="of the means in LaTeX and Markdown (default: what they are)")
    p.add_argument("--label", default="tab:results", help="of the means in LaTeX (default: %(default)s)")

    _add_plot(commands)

    p = commands.add_parser(
        "report",
        help="write a folder of runs as one HTML page",
        description="One file that needs nothing else: tables that sort, figures, what failed, specification and "
        "provenance; every number leads back to its runs.",
    )
    p.set_defaults(command=report)
    p.add_argument("runs", type=path, help="folder of runs")
    p.add_argument("--out", type=path, metavar="FILE", help="default: report.html in the folder of runs")
    _add_comparison(p)


def _add_plot(commands: Any) -> None:
    p = commands.add_parser(
        "plot",
        help="draw the figures of a folder of runs",
        description="Writes each figure as PNG and PDF, the CSV behind it and its caption as text; one for each task.",
    )
    p.set_defaults(command=plot)
    p.add_argument("runs", type=path, nargs="?", default=DEFAULT_OUT, help="folder of runs (default: %(default)s)")
    p.add_argument("figures", nargs="*", metavar="FIGURE", default=["frontier"], help=FIGURES)
    p.add_argument(
        "--x",
        default="n_params",
        metavar="COST",
        help="of frontiers: n_params, adapter_bytes, peak_memory_bytes, peak_device_bytes, step_seconds_median or "
        "seconds",
    )
    p.add_argument("--out", type=path, metavar="DIR", help="folder for the files (default: that of the runs)")
    p.add_argument("--format", default="png,pdf", metavar="KINDS", help="of pdf, svg and png (default: %(default)s)")
    p.add_argument("--width", metavar="LENGTH", help="of the figures, as 3.3in, 84mm or 8.4cm (default: their own)")
    p.add_argument("--no-caption", dest="caption", action="store_false", help="leave the text below figures out")
    p.add_argument("--style", metavar="NAME", help="a style sheet of matplotlib, or its file")
    _add_comparison(p)


def _add_comparison(p: argparse.ArgumentParser) -> None:
    add_selection(p)
    p.add_argument("--reference", metavar="METHOD", help="what others are compared with (default: LoRA)")


def watch(args: argparse.Namespace) -> int:
    """Show the folder until nothing is left to run or it is interrupted."""
    from tensoradapt.sweeps.reports.watch import show

    with contextlib.suppress(KeyboardInterrupt):
        show(args.runs, args.once, args.every)
    return 0


def results(args: argparse.Namespace) -> int:
    """Show the table of runs, or write it."""
    from tensoradapt.sweeps.reports import results as tables
    from tensoradapt.sweeps.reports.dataframe import write_parquet

    if args.means and (args.latex or args.markdown):
        written = _paper_tables(args)
    else:
        written = []
    if not written or args.csv or args.parquet:
        rows = (tables.means if args.means else tables.run_rows)(args.runs, args.where, args.spec)
        files = {tables.write_csv: args.csv, write_parquet: args.parquet}
        files |= {} if args.means else {tables.write_latex: args.latex, tables.write_markdown: args.markdown}
        written += [str(write(rows, path)) for write, path in files.items() if path is not None]
        written = written or [tables.shown(rows)]
    show(*written)
    return 0


def _paper_tables(args: argparse.Namespace) -> list[str]:
    """Write the means as tables for a paper and return the paths."""
    from tensoradapt.files import replace_file
    from tensoradapt.sweeps.reports import paper_tables
    from tensoradapt.sweeps.reports.results import select

    runs, _ = select(args.runs, args.where, args.spec)
    table = paper_tables.paper_table(runs)
    latex = paper_tables.to_latex(table, args.label, args.caption)
    texts = {args.latex: latex, args.markdown: paper_tables.to_markdown(table, args.caption)}
    return [str(replace_file(path, text.encode())) for path, text in texts.items() if path is not None]


def plot(args: argparse.Namespace) -> int:
    """Draw the figures and print the paths of their files."""
    from tensoradapt.analysis.figures import catalogue
    from tensoradapt.analysis.figures.page import styled
    from tensoradapt.errors import TensorAdaptError
    from tensoradapt.sweeps import record
    from tensoradapt.sweeps.reports.results import select, sweeps

    formats, width = _formats(args.format), None if args.width is None else _inches(args.width)
    runs, failed = select(args.runs, args.where, args.spec)
    kinds = list(catalogue.CATALOGUE) if "all" in args.figures else args.figures
    plans = [] if args.where else [sweep.due(args.runs) for sweep in sweeps(args.runs, args.spec)]
    tasks = {one.path: one.row["task"] for one in failed.values()}
    totals = record.totals(plans)
    figures = catalogue.figures(runs, kinds=kinds, cost=args.x, reference=args.reference, totals=totals, failed=tasks)
    if not figures:
        raise TensorAdaptError(
            f"the runs in {args.runs} allow no figure of {' '.join(kinds)}; expected finished runs of that kind: "
            "`plot RUNS all` draws what there is"
        )
    for figure in figures:
        with styled(args.style):
            show(*figure.save(args.out or args.runs, formats, width, args.caption))
    return 0


def _formats(text: str) -> list[str]:
    """Return the kinds of files that a text such as "pdf,svg" names."""
    from tensoradapt.analysis.figures.canvas import UNDATED
    from tensoradapt.checks import one_of

    return list(dict.fromkeys(one_of(list(UNDATED), kind.strip(), "--format") for kind in text.split(",")))


UNITS = {"in": 1.0, "mm": 1 / 25.4, "cm": 1 / 2.54, "pt": 1 / 72}
WIDTHS = (2.0, 40.0)  # inches


def _inches(text: str) -> float:
    """Return a length such as "8cm" in inches; a number alone is in inches."""
    from tensoradapt.checks import shown
    from tensoradapt.errors import TensorAdaptError

    number = text.strip().lower()
    unit = next((unit for unit in UNITS if number.endswith(unit)), "")
    try:
        length = float(number.removesuffix(unit)) * UNITS.get(unit, 1.0)
    except ValueError:
        length = 0.0
    if not WIDTHS[0] <= length <= WIDTHS[1]:
        raise TensorAdaptError(
            f"--width is {shown(text)}; expected a length from {WIDTHS[0]:g}in to {WIDTHS[1]:g}in, such as 3.3in or "
            "84mm"
        )
    return length


def report(args: argparse.Namespace) -> int:
    """Write the page and print its path."""
    from tensoradapt.sweeps.reports.html_report import write_report

    out = args.out or args.runs / "report.html"
    show(write_report(args.runs, out, where=args.where, spec=args.spec, reference=args.reference))
    return 0
