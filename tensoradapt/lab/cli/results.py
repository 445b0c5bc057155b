"""The commands that read a folder of runs: ``tensoradapt results``, ``plot`` and ``report``."""

from __future__ import annotations

import argparse
import inspect
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensoradapt.checks import shown
from tensoradapt.errors import TensorAdaptError, closest
from tensoradapt.lab.cli.options import add_runs, add_selection, path, runs_folder
from tensoradapt.lab.cli.output import show, show_json, show_text
from tensoradapt.lab.cli.parser import add_command

if TYPE_CHECKING:
    from pandas import DataFrame

    from tensoradapt.lab.cli import views

OUT = "write the table by each file's ending, .csv, .parquet, .md, .tex or .html, and do not show it"
FIGURES = "such as frontier (default), differences or curves, or all; an unknown name is answered with the list of them"


def add_parsers(commands: Any) -> None:
    """Add the commands to those of a parser (``add_subparsers``)."""
    p = add_command(
        commands,
        "results",
        results,
        "show the runs of a folder as a table, or write it to files",
        "[RUNS] [options]",
        "Shows what the runs say, in a few sentences for each task, and a table of them.",
    )
    add_runs(p)
    what = p.add_argument_group("which table (default: a row for each run)").add_mutually_exclusive_group()
    for name, text in (
        ("means", "a row for each configuration: its mean and interval over seeds"),
        ("compare", "a row for each configuration: its verdict, and its difference to the reference"),
        ("status", "how many runs are finished, failed, running and waiting, and the time left"),
    ):
        what.add_argument(f"--{name}", action="store_true", help=text)
    _add_comparison(p)
    files = p.add_argument_group("files")
    added = files.add_argument("--out", type=path, nargs="+", default=(), metavar="FILE", help=OUT)
    added.former = ("csv", "save", "output", "file")  # type: ignore[attr-defined]
    files.add_argument("--caption", metavar="TEXT", help="of the table in .md, .tex and .html")
    files.add_argument("--label", default="tab:results", help="of the table in .tex (default: %(default)s)")
    _add_plot(commands)
    p = add_command(
        commands,
        "report",
        report,
        "write a folder of runs as one HTML page",
        "[RUNS] [options]",
        "One file that needs nothing else: the verdict, figures, tables that sort, what failed, "
        "specification and provenance; every number leads back to its runs.",
    )
    add_runs(p)
    p.add_argument_group("files").add_argument(
        "--out", type=path, metavar="FILE", help="default: report.html in the folder of runs"
    )
    _add_reference(add_selection(p))


def _add_plot(commands: Any) -> None:
    p = add_command(
        commands,
        "plot",
        plot,
        "draw the figures of a folder of runs",
        "[RUNS] [FIGURE ...] [options]",
        "Writes each figure as PNG and PDF, the CSV behind it, and its headline and caption as text.",
    )
    add_runs(p)
    p.add_argument("figures", nargs="*", metavar="FIGURE", default=[], help=FIGURES)
    _add_comparison(p)
    group = p.add_argument_group("figures and files")
    group.add_argument(
        "--x",
        metavar="COLUMN",
        help="of frontiers a cost, such as seconds; of curves rank, budget, steps, seconds or lr",
    )
    group.add_argument("--out", type=path, metavar="DIR", help="folder for the files (default: that of the runs)")
    group.add_argument(
        "--format", default="png,pdf", metavar="KINDS", help="of pdf, svg and png (default: %(default)s)"
    )
    group.add_argument("--width", metavar="LENGTH", help="of the figures, as 3.3in, 84mm or 8.4cm (default: their own)")
    switch = argparse.BooleanOptionalAction
    group.add_argument("--headline", action=switch, default=True, help="what the figure says, above it (default: yes)")
    group.add_argument("--caption", action=switch, default=False, help="what its marks are, below it (default: no)")
    group.add_argument("--style", metavar="NAME", help="a style sheet of matplotlib, or its file")


def _add_comparison(p: argparse.ArgumentParser) -> None:
    group = add_selection(p)
    _add_reference(group)
    group.add_argument(
        "--at",
        metavar="SIZE",
        help="of the reference: a rank, budget, size, n_params or auto (default: 8, or its largest)",
    )


def _add_reference(p: Any) -> None:
    p.add_argument("--reference", metavar="METHOD", help="what others are compared with (default: LoRA)")


def results(args: argparse.Namespace) -> int:
    """Show the table of runs, means, comparisons or states, or write it."""
    from tensoradapt.lab.analysis.edges import at_edges
    from tensoradapt.lab.cli import views
    from tensoradapt.lab.sweeps.results import results as read

    args.runs = runs_folder(args.runs)
    if args.status:
        return _status(args)
    runs = read(args.runs, tuning=True, where=args.where, spec=args.spec)
    if args.out:
        _print_files([_write(runs, args, out) for out in args.out], args)
    elif args.json:
        verdict = [] if runs.empty else views.verdict(runs, args.reference)
        rows = [] if runs.empty else _table(runs, args).to_dict("records")
        show_json({"folder": args.runs, "verdict": verdict, "at_edge": at_edges(runs), "rows": rows})
    elif runs.empty:
        show(_no_run(args))
    else:
        views.print_verdict(runs, args.reference)
        views.print_edges(runs)
        _view(runs, args).print()
    return 0


def _no_run(args: argparse.Namespace) -> str:
    return f"no run in {args.runs}{' meets ' + ' and '.join(args.where) if args.where else ''}"


def _status(args: argparse.Namespace) -> int:
    from tensoradapt.lab.analysis.paper import write
    from tensoradapt.lab.cli import views
    from tensoradapt.lab.sweeps.status import status

    states = status(args.runs, args.spec)
    if args.out:
        _print_files([write(states, out) for out in args.out], args)
    elif args.json:
        show_json({"folder": args.runs, **states.attrs, "rows": states.to_dict("records")})
    else:
        views.print_status(states)
    return 0


def _print_files(files: Sequence[Path], args: argparse.Namespace, **more: Any) -> None:
    """Print the paths of files that were written."""
    if args.json:
        show_json({"folder": args.runs, "files": files, **more})
    else:
        show(*files)


def _table(runs: DataFrame, args: argparse.Namespace) -> DataFrame:
    """Return the table that was asked for."""
    from tensoradapt.lab.analysis.tables import summarise
    from tensoradapt.lab.analysis.verdict import verdict

    if args.means:
        return summarise(runs)
    return verdict(runs, **_comparison(args)) if args.compare else runs


def _view(runs: DataFrame, args: argparse.Namespace) -> views.View:
    """Return the table that was asked for as people read it."""
    from tensoradapt.lab.cli import views

    of = views.of_means if args.means else views.of_comparisons if args.compare else views.of_runs
    return of(_table(runs, args))


def _comparison(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options of a comparison that were given."""
    at = int(args.at) if args.at is not None and args.at.isdecimal() else args.at
    return {key: value for key, value in (("reference", args.reference), ("at", at)) if value is not None}


def _write(runs: DataFrame, args: argparse.Namespace, out: Path) -> Path:
    """Write the table that was asked for: all of it, or as people read it, and means as in a paper."""
    from tensoradapt.lab.analysis.paper import paper, write

    if out.suffix.lower() in (".csv", ".parquet"):
        table = _table(runs, args)
    else:
        table = paper(runs) if args.means else _view(runs, args).texts()
    return write(table, out, caption=args.caption, label=args.label)


def plot(args: argparse.Namespace) -> int:
    """Draw the figures and print the paths of their files; of ``all`` say which the runs do not allow."""
    from tensoradapt.lab.analysis import plots
    from tensoradapt.lab.sweeps.results import results as read

    _place_words(args)
    formats, width = [kind.strip() for kind in args.format.split(",")], _inches(args.width)
    runs = read(args.runs, tuning=True, where=args.where, spec=args.spec)
    if runs.empty:
        raise TensorAdaptError(f"{_no_run(args)}; expected the folder of a sweep or frontier")
    said = plots.allowed(runs) if "all" in args.figures else dict.fromkeys(args.figures)
    texts = {"headline": args.headline, "caption": args.caption}
    files: list[Path] = []
    with _styled(args.style):
        for name in [name for name, reason in said.items() if reason is None]:
            how = {**texts, **_options(name, args, several=len(said) > 1)}
            files += plots.save(runs, name, args.out or _beside(args.runs), formats, width, **how)
            if not args.json:
                show(*files[-len(formats) - 2 :])
    left = {name: reason for name, reason in said.items() if reason is not None}
    if args.json:
        _print_files(files, args, left_out=left)
    else:
        show_text(*(f"left out {name}: {reason}" for name, reason in left.items()))
    return 0


def _place_words(args: argparse.Namespace) -> None:
    """Tell the folder of runs from the names of figures: the first word is a figure where no folder has its name."""
    from tensoradapt.lab.analysis import plots

    known = (*plots.NAMES, "all")
    if args.runs is not None and not args.runs.exists():
        word = str(args.runs)
        if word in known:
            args.runs, args.figures = None, [word, *args.figures]
        elif not args.figures and (near := closest(word, known)):
            raise TensorAdaptError(f"{shown(word)} is no folder of runs and no figure; did you mean {near}?")
    args.runs = runs_folder(args.runs)
    args.figures = args.figures or ["frontier"]


def _options(name: str, args: argparse.Namespace, several: bool) -> Mapping[str, Any]:
    """Return the options of a figure that were given; of several figures each takes those that it has."""
    from tensoradapt.lab.analysis import plots

    given = _comparison(args) | ({} if args.x is None else {"x": args.x})
    taken = inspect.signature(plots.figure(name)).parameters
    return {key: value for key, value in given.items() if key in taken or not several}


def _beside(runs: Path) -> Path:
    """Return the folder where files about runs are written by default: their own, or that of their CSV file."""
    return runs.parent if os.path.isfile(runs) else runs  # noqa: PTH113  # Path.is_file raises for long names


def _styled(style: str | None) -> AbstractContextManager[Any]:
    """Return a context in which figures have a style sheet; raise TensorAdaptError for one that there is not."""
    from matplotlib import pyplot

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
    from tensoradapt.lab.sweeps.report import report as write_page

    args.runs = runs_folder(args.runs)
    out = args.out or _beside(args.runs) / "report.html"
    page = write_page(args.runs, out, where=args.where, spec=args.spec, reference=args.reference)
    _print_files([page], args)
    return 0
