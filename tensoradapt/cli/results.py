"""The commands that read a folder of runs: ``tensoradapt results``, ``plot`` and ``report``."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensoradapt.cli.options import DEFAULT_OUT, add_selection, path
from tensoradapt.cli.output import show

if TYPE_CHECKING:
    from pandas import DataFrame

    from tensoradapt.cli import views

OUT = "write the table by each file's ending, .csv, .parquet, .md, .tex or .html, and do not show it"
FIGURES = "such as frontier (default), differences or curves, or all; an unknown name is answered with the list of them"


def add_parsers(commands: Any) -> None:
    """Add the commands to those of a parser (``add_subparsers``)."""
    p = commands.add_parser(
        "results",
        help="show the runs of a folder as a table, or write it to files",
        description="Shows what the runs say, in a few sentences for each task, and a table of them.",
    )
    p.set_defaults(command=results)
    p.add_argument("runs", type=path, help="folder of runs")
    what = p.add_mutually_exclusive_group()
    for name, text in (
        ("means", "a row for each configuration: its mean and interval over seeds"),
        ("compare", "a row for each configuration: its difference to the reference, with Holm's p"),
        ("status", "how many runs are finished, failed, running and waiting, and the time left"),
    ):
        what.add_argument(f"--{name}", action="store_true", help=text)
    _add_comparison(p)
    p.add_argument("--out", type=path, nargs="+", default=(), metavar="FILE", help=OUT)
    p.add_argument("--caption", metavar="TEXT", help="of the table in .md, .tex and .html")
    p.add_argument("--label", default="tab:results", help="of the table in .tex (default: %(default)s)")
    _add_plot(commands)
    p = commands.add_parser(
        "report",
        help="write a folder of runs as one HTML page",
        description="One file that needs nothing else: the verdict, figures, tables that sort, what failed, "
        "specification and provenance; every number leads back to its runs.",
    )
    p.set_defaults(command=report)
    p.add_argument("runs", type=path, help="folder of runs")
    p.add_argument("--out", type=path, metavar="FILE", help="default: report.html in the folder of runs")
    add_selection(p)
    _add_reference(p)


def _add_plot(commands: Any) -> None:
    p = commands.add_parser(
        "plot",
        help="draw the figures of a folder of runs",
        description="Writes each figure as PNG and PDF, the CSV behind it, and its headline and caption as text.",
    )
    p.set_defaults(command=plot)
    p.add_argument("runs", type=path, nargs="?", default=DEFAULT_OUT, help="folder of runs (default: %(default)s)")
    p.add_argument("figures", nargs="*", metavar="FIGURE", default=["frontier"], help=FIGURES)
    p.add_argument("--x", metavar="COLUMN", help="of frontiers a cost, such as seconds; of curves rank, steps or lr")
    p.add_argument("--out", type=path, metavar="DIR", help="folder for the files (default: that of the runs)")
    p.add_argument("--format", default="png,pdf", metavar="KINDS", help="of pdf, svg and png (default: %(default)s)")
    p.add_argument("--width", metavar="LENGTH", help="of the figures, as 3.3in, 84mm or 8.4cm (default: their own)")
    switch = argparse.BooleanOptionalAction
    p.add_argument("--headline", action=switch, default=True, help="what the figure says, above it (default: yes)")
    p.add_argument("--caption", action=switch, default=False, help="what its marks are, below it (default: no)")
    p.add_argument("--style", metavar="NAME", help="a style sheet of matplotlib, or its file")
    _add_comparison(p)


def _add_comparison(p: argparse.ArgumentParser) -> None:
    add_selection(p)
    _add_reference(p)
    p.add_argument("--at", metavar="SIZE", help="of the reference: a rank, or budget, size, n_params or auto (default)")


def _add_reference(p: argparse.ArgumentParser) -> None:
    p.add_argument("--reference", metavar="METHOD", help="what others are compared with (default: LoRA)")


def results(args: argparse.Namespace) -> int:
    """Show the table of runs, means, comparisons or states, or write it."""
    from tensoradapt.cli import views
    from tensoradapt.sweeps.results import results as read

    if args.status:
        return _status(args)
    runs = read(args.runs, tuning=True, where=args.where, spec=args.spec)
    if args.out:
        show(*(_write(runs, args, out) for out in args.out))
    elif runs.empty:
        show(f"no run in {args.runs}{' meets ' + ' and '.join(args.where) if args.where else ''}")
    else:
        views.print_verdict(runs, args.reference)
        _view(runs, args).print()
    return 0


def _status(args: argparse.Namespace) -> int:
    from tensoradapt.analysis.paper import write
    from tensoradapt.cli import views
    from tensoradapt.sweeps.status import status

    states = status(args.runs, args.spec)
    if args.out:
        show(*(write(states, out) for out in args.out))
    else:
        views.print_status(states)
    return 0


def _table(runs: DataFrame, args: argparse.Namespace) -> DataFrame:
    """Return the table that was asked for."""
    from tensoradapt.analysis.tables import compare, summarise

    if args.means:
        return summarise(runs)
    return compare(runs, **_comparison(args)) if args.compare else runs


def _view(runs: DataFrame, args: argparse.Namespace) -> views.View:
    """Return the table that was asked for as people read it."""
    from tensoradapt.cli import views

    of = views.of_means if args.means else views.of_comparisons if args.compare else views.of_runs
    return of(_table(runs, args))


def _comparison(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options of a comparison that were given."""
    at = int(args.at) if args.at is not None and args.at.isdecimal() else args.at
    return {key: value for key, value in (("reference", args.reference), ("at", at)) if value is not None}


def _write(runs: DataFrame, args: argparse.Namespace, out: Path) -> Path:
    """Write the table that was asked for: all of it, or as people read it, and means as in a paper."""
    from tensoradapt.analysis.paper import paper, write

    if out.suffix.lower() in (".csv", ".parquet"):
        table = _table(runs, args)
    else:
        table = paper(runs) if args.means else _view(runs, args).texts()
    return write(table, out, caption=args.caption, label=args.label)


def plot(args: argparse.Namespace) -> int:
    """Draw the figures and print the paths of their files; of ``all`` say which the runs do not allow."""
    from tensoradapt.analysis import plots
    from tensoradapt.sweeps.results import results as read

    formats, width = [kind.strip() for kind in args.format.split(",")], _inches(args.width)
    runs = read(args.runs, tuning=True, where=args.where, spec=args.spec)
    said = plots.allowed(runs) if "all" in args.figures else dict.fromkeys(args.figures)
    texts = {"headline": args.headline, "caption": args.caption}
    with _styled(args.style):
        for name in [name for name, reason in said.items() if reason is None]:
            how = {**texts, **_options(name, args, several=len(said) > 1)}
            show(*plots.save(runs, name, args.out or args.runs, formats, width, **how))
    if left := [f"left out {name}: {reason}" for name, reason in said.items() if reason is not None]:
        show(*left)
    return 0


def _options(name: str, args: argparse.Namespace, several: bool) -> Mapping[str, Any]:
    """Return the options of a figure that were given; of several figures each takes those that it has."""
    from tensoradapt.analysis import plots

    given = _comparison(args) | ({} if args.x is None else {"x": args.x})
    taken = inspect.signature(plots.figure(name)).parameters
    return {key: value for key, value in given.items() if key in taken or not several}


def _styled(style: str | None) -> AbstractContextManager[Any]:
    """Return a context in which figures have a style sheet; raise TensorAdaptError for one that there is not."""
    from matplotlib import pyplot

    from tensoradapt.checks import shown
    from tensoradapt.errors import TensorAdaptError

    if style is None:
        return nullcontext()
    try:
        context = pyplot.style.context(style)
        with context:
            pass
    except (OSError, ValueError):
        few = ", ".join(pyplot.style.available[:3])
        raise TensorAdaptError(
            f"--style is {shown(style)}; expected a style sheet of matplotlib, such as {few}, or the path of one"
        ) from None
    return pyplot.style.context(style)


UNITS = {"in": 1.0, "mm": 1 / 25.4, "cm": 1 / 2.54, "pt": 1 / 72}
WIDTHS = (2.0, 40.0)  # inches


def _inches(text: str | None) -> float | None:
    """Return a length such as "8cm" in inches; a number alone is in inches."""
    from tensoradapt.checks import shown
    from tensoradapt.errors import TensorAdaptError

    if text is None:
        return None
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
    from tensoradapt.sweeps.report import report as write_page

    out = args.out or args.runs / "report.html"
    show(write_page(args.runs, out, where=args.where, spec=args.spec, reference=args.reference))
    return 0
