"""The commands that read a folder of runs: ``tensoradapt results``, ``plot`` and ``report``."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from tensoradapt.checks import shown
from tensoradapt.errors import TensorAdaptError, closest
from tensoradapt.lab.cli.options import METHODS, MORE, Json, Maybe, Places, Spec, Words, names_of, one_of, runs_folder
from tensoradapt.lab.cli.output import show, show_json, show_text

if TYPE_CHECKING:
    from pandas import DataFrame

TABLE = one_of()
Folder = Annotated[Path | None, *Maybe.__metadata__, Parameter(help="folder of runs (default: the newest in ./runs)")]
Where = Annotated[Words, Parameter(metavar="CONDITION", help='such as task=sst2 "n_params<=5000" tuning=false')]
Reference = Annotated[
    str | None, Parameter(metavar="METHOD", help="what others are compared with (default: LoRA)", completer=METHODS)
]
At = Annotated[
    str | None,
    Parameter(group=MORE, metavar="SIZE", help="of the reference: a rank, budget, size, n_params or auto"),
]
Flag = Annotated[bool, Parameter(group=TABLE)]
Read = Callable[["DataFrame"], "DataFrame"]


def results(
    folder: Folder = None,
    /,
    *,
    runs: Flag = False,
    means: Flag = False,
    compare: Flag = False,
    status: Flag = False,
    where: Where = None,
    reference: Reference = None,
    wide: bool = False,
    out: Places = None,
    at: At = None,
    spec: Spec = None,
    caption: Annotated[str | None, Parameter(group=MORE, metavar="TEXT")] = None,
    label: Annotated[str, Parameter(group=MORE)] = "tab:results",
    json: Json = False,
) -> None:
    """Show the verdict and the means of runs, or another table of them, or write one.

    Args:
        runs: a row for each run, as --json and --out have it by default
        means: a row for each size, its mean and interval over seeds
        compare: a row for each size, its verdict and its difference to the reference
        status: how many runs are finished, failed, running and waiting, and the time left
        wide: show all columns, whatever the width of the terminal
        out: write the table by each file's ending, .csv, .parquet, .md, .tex or .html, and do not show it
        caption: of the table in .md, .tex and .html
        label: of the table in .tex
    """
    from tensoradapt.lab.analysis.paper import paper, write
    from tensoradapt.lab.analysis.rates import at_edges
    from tensoradapt.lab.analysis.tables import summarise
    from tensoradapt.lab.analysis.verdict import verdict
    from tensoradapt.lab.cli import views
    from tensoradapt.lab.sweeps.results import results as read

    folder, of_reference = runs_folder(folder), _comparison(reference, at)
    if status:
        _status(folder, spec, out or (), json)
        return
    table = read(folder, tuning=True, where=where or (), spec=spec)
    titles = views.MEANS if means else views.COMPARED if compare else views.RUNS
    made = table
    if len(table) and (means or compare):
        made = summarise(table) if means else verdict(table, **of_reference)
    if out:
        whole = [path.suffix.lower() in (".csv", ".parquet") for path in out]
        texts = None if all(whole) else paper(table) if means else views.file_texts(made, titles)
        tables = [made if exact else texts for exact in whole]
        files = [write(each, path, caption=caption, label=label) for each, path in zip(tables, out, strict=True)]
        _print_files(folder, files, json)
    elif json:
        said = [] if table.empty else views.verdict(table, reference)
        show_json({"folder": folder, "verdict": said, "at_edge": at_edges(table), "rows": made.to_dict("records")})
    elif table.empty:
        show(_no_run(folder, where))
    elif means or compare or runs:
        if compare:
            show_text(*views.verdict(table, reference), "")
        else:
            views.print_answers(table, **of_reference)
        usual = views.of_runs if runs else views.of_means if means else lambda table: table
        views.print_table(usual(made), titles, wide)
        views.print_edges(table)
    else:
        views.print_verdicts(table, **of_reference, wide=wide)
        views.print_edges(table)


def _no_run(folder: Path, where: Sequence[str] | None) -> str:
    return f"no run in {folder}{' meets ' + ' and '.join(where) if where else ''}"


def _status(folder: Path, spec: Path | None, out: Sequence[Path], json: bool) -> None:
    from tensoradapt.lab.analysis.paper import write
    from tensoradapt.lab.cli import views
    from tensoradapt.lab.sweeps.status import status

    states = status(folder, spec)
    if out:
        _print_files(folder, [write(states, path) for path in out], json)
    elif json:
        show_json({"folder": folder, **states.attrs, "rows": states.to_dict("records")})
    else:
        views.print_status(states)


def _print_files(folder: Path, files: Sequence[Path], json: bool, **more: Any) -> None:
    """Print the paths of files that were written."""
    if json:
        show_json({"folder": folder, "files": files, **more})
    else:
        show(*files)


def _comparison(reference: str | None, at: str | None) -> dict[str, Any]:
    """Return the options of a comparison that were given."""
    size = int(at) if at is not None and at.isdecimal() else at
    return {key: value for key, value in (("reference", reference), ("at", size)) if value is not None}


Figures = Annotated[
    list[str], Parameter(negative="", completer=names_of("lab.cli.results:figure_names"), metavar="FIGURE")
]


def figure_names() -> tuple[str, ...]:
    """Return the names that ``plot`` takes."""
    from tensoradapt.lab.analysis import plots

    return (*plots.NAMES, "all")


def plot(
    folder: Folder = None,
    figures: Figures | None = None,
    /,
    *,
    where: Where = None,
    reference: Reference = None,
    out: Maybe = None,
    format: str = "png,pdf",
    width: Annotated[str | None, Parameter(metavar="LENGTH")] = None,
    x: Annotated[str | None, Parameter(group=MORE, metavar="COLUMN")] = None,
    at: At = None,
    spec: Spec = None,
    headline: Annotated[bool, Parameter(group=MORE, negative="--no-headline")] = True,
    caption: Annotated[bool, Parameter(group=MORE, negative="--no-caption")] = False,
    style: Annotated[str | None, Parameter(group=MORE, metavar="NAME")] = None,
    json: Json = False,
) -> None:
    """Draw the figures and print the paths of their files; of ``all`` say which the runs do not allow.

    Args:
        figures: such as frontier (default), differences or curves, or all
        out: folder for the files (default: that of the runs)
        format: of pdf, svg and png
        width: of the figures, as 3.3in, 84mm or 8.4cm (default: their own)
        x: of frontiers a cost, such as seconds; of curves rank, budget, steps, seconds or lr
        headline: what the figure says, above it
        caption: what its marks are, below it
        style: a style sheet of matplotlib, or its file
    """
    from tensoradapt.lab.analysis import plots
    from tensoradapt.lab.sweeps.results import results as read

    folder, names = _placed(folder, figures or [])
    kinds, inches = [kind.strip() for kind in format.split(",")], _inches(width)
    table = read(folder, tuning=True, where=where or (), spec=spec)
    if table.empty:
        raise TensorAdaptError(f"{_no_run(folder, where)}; expected the folder of a sweep or frontier")
    said = plots.allowed(table) if "all" in names else dict.fromkeys(names)
    asked = _comparison(reference, at) | ({} if x is None else {"x": x})
    files: list[Path] = []
    with _styled(style):
        for name in [name for name, why in said.items() if why is None]:
            how = {"headline": headline, "caption": caption, **_options(name, asked, several=len(said) > 1)}
            files += plots.save(table, name, out or _beside(folder), kinds, inches, **how)
            if not json:
                show(*files[-len(kinds) - 2 :])
    left = {name: why for name, why in said.items() if why is not None}
    if json:
        _print_files(folder, files, json, left_out=left)
    else:
        show_text(*(f"left out {name}: {why}" for name, why in left.items()))


def _placed(folder: Path | None, figures: list[str]) -> tuple[Path, list[str]]:
    """Tell the folder of runs from the names of figures: the first word is a figure where no folder has its name."""
    known = figure_names()
    if folder is not None and not folder.exists():
        word = str(folder)
        if word in known:
            folder, figures = None, [word, *figures]
        elif not figures and (near := closest(word, known)):
            raise TensorAdaptError(f"{shown(word)} is no folder of runs and no figure; did you mean {near}?")
    return runs_folder(folder), figures or ["frontier"]


def _options(name: str, asked: Mapping[str, Any], several: bool) -> Mapping[str, Any]:
    """Return the options of a figure that were given; of several figures each takes those that it has."""
    from tensoradapt.lab.analysis import plots

    taken = inspect.signature(plots.figure(name)).parameters
    return {key: value for key, value in asked.items() if key in taken or not several}


def _beside(runs: Path) -> Path:
    """Return the folder where files about runs are written by default: their own, or that of their CSV file."""
    return runs.parent if os.path.isfile(runs) else runs  # noqa: PTH113  # Path.is_file raises for long names


def _styled(style: str | None) -> AbstractContextManager[Any]:
    """Return a context in which figures have a style sheet; raise TensorAdaptError for one that there is not."""
    from matplotlib import pyplot

    if style is None:
        return nullcontext()
    try:
        with pyplot.style.context(style):
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


def report(
    folder: Folder = None,
    /,
    *,
    out: Maybe = None,
    where: Where = None,
    reference: Reference = None,
    spec: Spec = None,
    json: Json = False,
) -> None:
    """Write the page and print its path.

    Args:
        out: default report.html in the folder of runs
    """
    from tensoradapt.lab.sweeps.report import report as write_page

    folder = runs_folder(folder)
    page = write_page(folder, out or _beside(folder) / "report.html", where=where or (), spec=spec, reference=reference)
    _print_files(folder, [page], json)
