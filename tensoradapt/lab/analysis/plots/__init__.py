"""Figures of runs: ``plots.NAME(data, ax=None, ...)`` draws each, from a file of this folder with the same name.

A file has ``rows(runs, *, options)``, what is drawn; ``draw(rows, ax, *, options)``, into given axes;
``headline(rows)``, one sentence that answers; ``caption(runs, rows)``, what a reader needs to judge it; and
``size(rows)`` in inches (with an option ``width`` where the height hangs on it). Where the first argument of ``rows``
is called ``runs``, it is given a whole table of runs of one task (of several, where the file says ``over_tasks =
True``). Of ``draw`` an option ``looks`` is given the looks of all methods of the data, ``focus`` the method of a panel
of ``col="method"``, and ``names`` is False where a legend of the figure names the methods.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tensoradapt.checks import flag, is_number, of_kind, optional, shown, text
from tensoradapt.errors import TensorAdaptError, did_you_mean, few
from tensoradapt.files import replace_files
from tensoradapt.habits import FIGURES, OPTIONS
from tensoradapt.lab.analysis.descriptions import facts
from tensoradapt.lab.analysis.names import Look, looks, tone
from tensoradapt.lab.analysis.paper import csv_of
from tensoradapt.lab.analysis.plots import _help, _parts
from tensoradapt.lab.analysis.plots._files import UNDATED, rendered
from tensoradapt.lab.analysis.results import table_of
from tensoradapt.planning.size import Size
from tensoradapt.text import prose

NAMES = tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")))
Options = Mapping[str, Any]
COLS = ("task", "method", "model", "rank", "budget", "layout")  # what panels can be made of
PANEL = 7 / 3  # inches of the width of a panel


_FRAME: Options = {"figsize": None, "caption": False, "headline": False, "col": None}  # every figure has them
CHECKS: Mapping[str, Callable[[Any, str], object]] = {
    **dict.fromkeys(("caption", "headline", "names"), flag),
    **{"x": text, "col": optional(text), "focus": optional(text), "looks": optional(of_kind(Mapping))},
}


@dataclass(frozen=True)
class _Panel:
    """What one axes shows: its title, the data and rows made of them, and options of ``draw``."""

    title: str
    runs: Any
    rows: Any
    options: Options


def figure(name: str) -> Callable[..., Any]:
    """Return the function that draws a figure, as ``ta.plots.NAME`` is; examples are in docs/guides/sweeps/results.md.

    Args:
        name: of the figure, one of ``NAMES``.

    Returns:
        The function.

    Raises:
        TensorAdaptError: for an unknown name, with those that there are.

    >>> import tensoradapt as ta
    >>> ta.plots.figure("frontier") is ta.plots.frontier
    True
    """
    if name not in NAMES:
        raise TensorAdaptError(f"there is no figure {name!r}{did_you_mean(name, NAMES)}")
    return _FUNCTIONS[name]


def allowed(data: Any) -> dict[str, str | None]:
    """Return for each figure of runs None where the data allow it, else in one line why they do not.

    Of runs of several tasks, which are panels, it is enough that one task allows it. ``tensoradapt plot
    RUNS all`` says it (docs/guides/sweeps/results.md).

    Args:
        data: a folder of runs, runs, or a DataFrame.

    Returns:
        None or the reason, by the name of the figure.

    Raises:
        TensorAdaptError: for data that are no runs.

    >>> import pandas as pd
    >>> import tensoradapt as ta
    >>> runs = pd.DataFrame({"method": ["lora", "cp"] * 3, "seed": [0, 0, 1, 1, 2, 2], "n_params": [9216, 1008] * 3})
    >>> runs["score"] = [0.81, 0.84, 0.83, 0.86, 0.82, 0.85]
    >>> allowed = ta.plots.allowed(runs)
    >>> allowed["frontier"], allowed["aggregates"]
    (None, 'the runs are of None; expected those of two tasks or more')
    """
    runs, found = table_of(data), dict[str, str | None]()
    for name, module in _MODULES.items():
        if _of_runs(module):
            try:
                _panels(module, runs, _usual_col(module, runs), {})
                found[name] = None
            except TensorAdaptError as error:
                found[name] = str(error)
    return found


def save(
    data: Any,
    name: str,
    folder: str | Path,
    formats: Sequence[str] = ("png",),
    width: float | None = None,
    **options: Any,
) -> list[Path]:
    """Write a figure as pictures, what is drawn as CSV, and its headline and caption as TXT.

    All files are written or none is, and the same runs give the same bytes.
    ``tensoradapt plot`` does so from a terminal (docs/guides/sweeps/results.md).

    Args:
        data: a folder of runs, runs, or a DataFrame.
        name: of the figure, and of its files.
        folder: made where it does not exist.
        formats: of "png", "pdf" and "svg".
        width: inches; the height is what the figure asks for. None: the figure's own width.
        options: of the figure. Runs of several tasks are panels (``col="task"``) where none is given.

    Returns:
        The paths.

    Raises:
        TensorAdaptError: for an unknown figure, format or option, and for data that do not allow the figure.

    >>> import tempfile
    >>> import pandas as pd
    >>> import tensoradapt as ta
    >>> runs = pd.DataFrame({"method": ["lora", "cp"] * 3, "seed": [0, 0, 1, 1, 2, 2], "n_params": [9216, 1008] * 3})
    >>> runs["score"] = [0.81, 0.84, 0.83, 0.86, 0.82, 0.85]
    >>> [path.name for path in ta.plots.save(runs, "frontier", tempfile.mkdtemp(), ["png", "pdf"])]
    ['frontier.png', 'frontier.pdf', 'frontier.csv', 'frontier.txt']
    """
    if unknown := [one for one in formats if one not in UNDATED]:
        raise TensorAdaptError(f"unknown format {shown(unknown[0])}{did_you_mean(unknown[0], UNDATED)}")
    if (ending := Path(folder).suffix[1:]) in UNDATED and not Path(folder).is_dir():
        raise TensorAdaptError(
            f"the folder of figures is {shown(str(folder))}, the name of a picture; expected a folder, in which "
            f"{name}.{ending} and the files beside it are written"
        )
    plot, module = figure(name), _MODULES[name]
    if not hasattr(module, "rows"):
        raise TensorAdaptError(
            f"{name} has no table behind it to save; expected another figure, or its axes: ta.plots.{name}(plan)"
            f'.figure.savefig("{name}.png")'
        )
    runs = table_of(data) if _of_runs(module) else data
    options = {"col": _usual_col(module, runs) if _of_runs(module) else None} | options
    axes = plot(runs, **({"figsize": width, "headline": True} | options))
    drawn = _parts.figure_of(axes if isinstance(axes, Axes) else axes[0])
    contents = {ending: rendered(drawn, ending) for ending in formats}
    pyplot.close(drawn)
    panels = _panels(module, runs, options["col"], {k: v for k, v in options.items() if k not in _FRAME})
    contents["csv"] = csv_of(pd.concat([panel.rows for panel in panels]).drop(columns="paths", errors="ignore"))
    contents["txt"] = _texts(module, runs, panels, options["col"]).encode(errors="backslashreplace")
    paths = {ending: Path(folder) / f"{name}.{ending}" for ending in contents}
    replace_files({paths[ending]: data for ending, data in contents.items()})
    return list(paths.values())


def _texts(module: ModuleType, runs: Any, panels: Sequence[_Panel], col: str | None) -> str:
    """Return what is written beside a picture: its kind, headlines, captions, facts of the runs, what is left out."""
    texts = [(module.__doc__ or "").partition("\n")[0]]
    for panel in panels:
        title = f"{panel.title}: " if panel.title else ""
        texts += [prose(f"{title}{module.headline(panel.rows)}."), prose(module.caption(panel.runs, panel.rows))]
        texts += [prose(facts(panel.runs))] if _of_runs(module) else []
    if col in ("task", "model") and (left := sorted({*runs[col].map(str)} - {panel.title for panel in panels})):
        texts.append(f"Left out, as their runs do not allow the figure: {', '.join(left)}.")
    return "\n\n".join(dict.fromkeys(texts)) + "\n"


def _function(name: str, module: ModuleType) -> Callable[..., Any]:
    """Return the function of a file: it reads the data, makes rows, and draws them into given or new axes."""
    takes = _options(module.rows) | _options(module.draw)

    def plot(data: Any, ax: Axes | None = None, **options: Any) -> Any:
        frame = {key: options.pop(key, usual) for key, usual in _FRAME.items()}
        _check(module, takes, ax, frame, options)
        runs = table_of(data) if _of_runs(module) else data
        if "looks" in takes:
            options["looks"] = looks(runs["method"]) | dict(options.get("looks") or {})
        panels = _panels(module, runs, frame["col"], options)
        axes = [ax] if ax is not None else _axes(module, panels, frame, options)
        if ax is not None and frame["headline"]:
            letters = "small" if _parts.narrow(ax) else "medium"
            text = _parts.wrapped(_parts.figure_of(ax), module.headline(panels[0].rows), _parts.inches(ax), letters)
            ax.set_title(text, loc="left", fontsize=letters)
        for each, panel in zip(axes, panels, strict=True):
            _call(module.draw, panel.rows, each, **panel.options)
        _outer(axes)
        return np.array(axes) if frame["col"] is not None else axes[0]

    plot.__name__ = plot.__qualname__ = name
    plot.__doc__ = _help.text(module, takes)
    either, named = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    first = [inspect.Parameter("data", either), inspect.Parameter("ax", either, default=None)]
    frame = [inspect.Parameter(key, named, default=usual) for key, usual in _FRAME.items()]
    plot.__signature__ = inspect.Signature([*first, *frame, *takes.values()])  # type: ignore[attr-defined]
    return plot


def _check(module: ModuleType, takes: Options, ax: Any, frame: Options, options: Options) -> None:
    """Raise TensorAdaptError for an unknown option, for options of another type, and for those that axes exclude."""
    if unknown := sorted(set(options) - set(takes)):
        word = unknown[0]
        hint = f"; it returns matplotlib's axes: {OPTIONS[word]}" if word in OPTIONS else ""
        name = module.__name__.rpartition(".")[2]
        raise TensorAdaptError(f"{name} has no option {word!r}{hint or did_you_mean(word, (*takes, *_FRAME))}")
    optional(of_kind(Axes))(ax, "ax")
    for key, value in {**frame, **options}.items() if _of_runs(module) else ():
        if key in CHECKS:
            CHECKS[key](value, key)
    if ax is not None and (chosen := [k for k in ("figsize", "caption", "col") if frame[k] is not _FRAME[k]]):
        raise TensorAdaptError(f"{chosen[0]} is for a figure of its own; leave it out, or leave out ax")


def _options(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    every = inspect.signature(function).parameters.values()
    return {each.name: each for each in every if each.kind is inspect.Parameter.KEYWORD_ONLY}


def _of_runs(module: ModuleType) -> bool:
    """Say whether a figure is of a table of runs, and not of a network or an adapter."""
    return hasattr(module, "rows") and next(iter(inspect.signature(module.rows).parameters)) == "runs"


def _call(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call with those of the options that a function takes."""
    return function(*arguments, **{key: value for key, value in options.items() if key in _options(function)})


def _usual_col(module: ModuleType, runs: pd.DataFrame) -> str | None:
    """Return what panels are made of where nobody said so: tasks, where there are several for a figure of one."""
    several = not getattr(module, "over_tasks", False) and runs["task"].nunique(dropna=False) > 1
    return "task" if several else None


def _panels(module: ModuleType, runs: Any, col: str | None, options: Options) -> list[_Panel]:
    """Return what is drawn: one panel, or one for each of what ``col`` names; raise where the runs do not allow it."""
    if not _of_runs(module):
        return [_Panel("", runs, _call(module.rows, runs, **options), options)]
    if col is not None and col not in COLS:
        raise TensorAdaptError(f"col is {shown(col)}{did_you_mean(col, COLS)}")
    if col not in (None, "method"):
        return _of_parts(module, runs, str(col), options)
    _check_comparable(module, runs, col)
    if col == "method":
        return _of_methods(module, runs, options)
    return [_Panel("", runs, _call(module.rows, runs, **options), options)]


def _of_parts(module: ModuleType, runs: pd.DataFrame, col: str, options: Options) -> list[_Panel]:
    """Return a panel for each task, model, size or layout that allows the figure; raise the first error if none does.

    References and others without a size or layout are in the panels of all.
    """
    panels, errors = list[_Panel](), list[TensorAdaptError]()
    of_adapters = col in ("rank", "budget", "layout")
    for value, part in runs.groupby(col, dropna=of_adapters, sort=False):
        if of_adapters:
            value = value if col == "layout" else Size.of(part.iloc[0]).short
            part = pd.concat([part, runs[runs[col].isna()]])
        try:
            _check_comparable(module, part, col)
            panels.append(_Panel(str(value), part, _call(module.rows, part, **options), {**options, "names": False}))
        except TensorAdaptError as error:
            errors.append(error)
    if not panels:
        raise next(iter(errors), TensorAdaptError(f"no run has a {col}; expected runs of several, or another col"))
    return panels


def _of_methods(module: ModuleType, runs: pd.DataFrame, options: Options) -> list[_Panel]:
    """Return a panel for each method: the whole figure with the others in grey where it can, else its runs alone."""
    adapters, panels = runs["kind"] == "adapter", []
    whole = _call(module.rows, runs, **options) if "focus" in _options(module.draw) else None
    for method, look in looks(runs["method"][adapters]).items():
        part = runs if whole is not None else runs[~adapters | (runs["method"] == method)]
        rows = _call(module.rows, part, **options) if whole is None else whole
        panels.append(_Panel(look.name, part, rows, {**options, "names": False, "focus": method}))
    return panels


def _check_comparable(module: ModuleType, runs: pd.DataFrame, col: str | None) -> None:
    """Raise TensorAdaptError for runs that do not go into one axes: of several models, metrics or tasks."""
    for what in ("model",) if getattr(module, "over_tasks", False) else ("task", "model", "metric"):
        values = sorted(map(str, runs[what].unique()))
        if len(values) > 1:
            way = f'give col="{what}" for a panel each, or' if what in COLS and col is None else "give"
            raise TensorAdaptError(
                f"the runs are of {len(values)} {what}s ({few(values)}), which one panel cannot compare; "
                f'{way} those of one: runs[runs["{what}"] == {values[0]!r}]'
            )


def _axes(module: ModuleType, panels: Sequence[_Panel], frame: Options, options: Options) -> list[Axes]:
    """Return the axes of a new figure with its texts: one, or one for each panel, above one legend."""
    col, across = frame["col"], min(len(panels), getattr(module, "across", 3))
    down = -(-len(panels) // across)
    methods = {m for panel in panels for m in panel.rows["method"][panel.rows["kind"] == "adapter"]} if col else {}
    named = "names" in _options(module.draw) and col != "method"
    styles = [look for method, look in options.get("looks", {}).items() if named and method in methods]
    drawn = pyplot.figure(figsize=_size(module, panels, frame, across, down), layout="constrained")
    grid = drawn.add_gridspec(down + bool(styles), across, height_ratios=[1] * down + [0.01] * bool(styles))
    _write(drawn, module, panels, frame)
    if styles:
        _legend(drawn.add_subplot(grid[down, :]), styles)
    axes: list[Axes] = []
    for i, panel in enumerate(panels):
        shared = {"sharex": axes[0], "sharey": axes[0]} if col == "method" and axes else {}
        axes.append(drawn.add_subplot(grid[i // across, i % across], **shared))
        if col is not None:
            look = options.get("looks", {}).get(panel.options.get("focus"))
            colour = tone(0.72, look.colour, ink=True) if look else tone(0)
            axes[-1].set_title(_parts.plain(panel.title), loc="left", fontsize="medium", color=colour)
    return axes


def _legend(ax: Axes, styles: Sequence[Look]) -> None:
    """Fill axes below panels with a legend of methods, in lines of one length."""
    ax.axis("off")
    most = max(1, int(_parts.figure_of(ax).get_figwidth() / (0.5 + 0.075 * max(len(look.name) for look in styles))))
    columns = -(-len(styles) // -(-len(styles) // most))
    look: dict[str, Any] = {"frameon": False, "fontsize": "small", "borderaxespad": 0, "handlelength": 1.8}
    ax.legend(handles=_parts.handles(styles), loc="upper center", ncols=columns, **look)


def _outer(axes: Sequence[Axes]) -> None:
    """Leave names of axes and ticks that are shared where they are the outer ones."""
    spec = axes[0].get_subplotspec()
    across = min(len(axes), spec.get_gridspec().ncols) if spec else 1
    for i, ax in enumerate(axes):
        if i % across and ax.get_ylabel() == axes[i - 1].get_ylabel():
            ax.yaxis.label.set_visible(False)
        if i + across < len(axes) and ax.get_xlabel() == axes[i + across].get_xlabel():
            ax.xaxis.label.set_visible(False)
        if len(axes) > 1 and ax.get_shared_y_axes().joined(ax, axes[0]):
            ax.tick_params(labelleft=i % across == 0, labelbottom=i + across >= len(axes))


def _write(drawn: Figure, module: ModuleType, panels: Sequence[_Panel], frame: Options) -> None:
    """Write headlines above a figure and captions below, which make it higher where its height was not given."""
    width, texts = drawn.get_figwidth() - 0.1, []
    titles = [f"{panel.title}: " if frame["col"] not in (None, "method") else "" for panel in panels]
    captions = [module.caption(panel.runs, panel.rows) for panel in panels if frame["caption"]]
    if len(set(captions)) > 1:  # as panels of other numbers of seeds have
        captions = [f"{panel.title}: {caption}" for panel, caption in zip(panels, captions, strict=True)]
    if frame["headline"]:
        lines = dict.fromkeys(f"{title}{module.headline(p.rows)}" for title, p in zip(titles, panels, strict=True))
        text = "\n".join(_parts.wrapped(drawn, line, width, "medium") for line in lines)
        texts.append(drawn.suptitle(text, x=0.01, ha="left", fontsize="medium"))
    if captions:
        text = _parts.wrapped(drawn, " ".join(dict.fromkeys(captions)), width, "small")
        texts.append(drawn.supxlabel(text, x=0.01, ha="left", fontsize="small", color=tone(_parts.GREY)))
    if not isinstance(frame["figsize"], Sequence):
        high = sum(text.get_window_extent().height / drawn.dpi for text in texts)
        drawn.set_figheight(drawn.get_figheight() + high)


def _size(module: ModuleType, panels: Sequence[_Panel], frame: Options, across: int, down: int) -> tuple[float, float]:
    """Return the size of a new figure: as given, or each panel as high as the figure asks for at its width."""
    figsize = frame["figsize"]
    if figsize is None or is_number(figsize, 0):
        usual = max(3.3, min(7.0, PANEL * across)) if frame["col"] else module.size(panels[0].rows)[0]
        width = float(figsize or usual)
        high = max(_call(module.size, panel.rows, width=width / across)[1] for panel in panels)
        return width, high * down + 0.3 * (frame["col"] is not None)
    if not (isinstance(figsize, Sequence) and len(figsize) == 2 and all(is_number(side, 0) for side in figsize)):
        raise TensorAdaptError(f"figsize is {shown(figsize)}; expected inches as (width, height), or a width")
    return float(figsize[0]), float(figsize[1])


_MODULES = {name: importlib.import_module(f"{__name__}.{name}") for name in NAMES}
_FUNCTIONS = {n: _function(n, m) if hasattr(m, "rows") else getattr(m, n) for n, m in _MODULES.items()}
globals().update(_FUNCTIONS)  # in place of the modules, which an import puts under these names
__all__ = ["NAMES", "allowed", "figure", "save", *NAMES]


def __getattr__(name: str) -> Callable[..., Any]:
    hint = f"; type {FIGURES[name]}" if name in FIGURES else did_you_mean(name, NAMES)
    raise AttributeError(f"there is no figure {name!r}{hint}")


def __dir__() -> list[str]:
    return sorted(NAMES)
