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

from tensoradapt.checks import is_number, shown
from tensoradapt.errors import TensorAdaptError, did_you_mean, few
from tensoradapt.files import replace_files
from tensoradapt.habits import FIGURES, OPTIONS
from tensoradapt.lab.analysis.facts import facts
from tensoradapt.lab.analysis.names import Look, looks, tone
from tensoradapt.lab.analysis.paper import csv_of
from tensoradapt.lab.analysis.plots import _checks, _help, _parts
from tensoradapt.lab.analysis.plots._files import UNDATED, rendered
from tensoradapt.lab.analysis.results import table_of
from tensoradapt.planning.size import Size
from tensoradapt.text import prose

NAMES = tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")))
Options = Mapping[str, Any]
COLS = ("task", "method", "model", "rank", "budget", "layout")  # what panels can be made of
PANEL = 7 / 3  # inches of the width of a panel


_FRAME: Options = {"figsize": None, "caption": False, "headline": False, "col": None}  # every figure has them


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
    said = [(module.__doc__ or "").partition("\n")[0]]
    for panel in panels:
        own = f"{panel.title}: " if panel.title else ""
        said += [prose(f"{own}{module.headline(panel.rows)}."), prose(module.caption(panel.runs, panel.rows))]
        if _of_runs(module):
            said.append(prose(facts(panel.runs)))
    if col in ("task", "model") and (left := sorted({*runs[col].map(str)} - {panel.title for panel in panels})):
        said.append(f"Left out, as their runs do not allow the figure: {', '.join(left)}.")
    return "\n\n".join(dict.fromkeys(said)) + "\n"


def _function(name: str, module: ModuleType) -> Callable[..., Any]:
    """Return the function of a file: it reads the data, makes rows, and draws them into given or new axes."""
    takes = _options(module.rows) | _options(module.draw)

    def plot(data: Any, ax: Axes | None = None, **options: Any) -> Any:
        frame = {key: options.pop(key, usual) for key, usual in _FRAME.items()}
        if unknown := sorted(set(options) - set(takes)):
            valid = (*takes, *_FRAME)
            word = unknown[0]
            hint = f"; it returns matplotlib's axes: {OPTIONS[word]}" if word in OPTIONS else did_you_mean(word, valid)
            raise TensorAdaptError(f"{name} has no option {word!r}{hint}")
        runs = data
        if _of_runs(module):
            _checks.check(ax, {**frame, **options})
            runs = table_of(data)
        if "looks" in takes and _of_runs(module):
            options["looks"] = looks(runs["method"]) | dict(options.get("looks") or {})
        panels = _panels(module, runs, frame["col"], options)
        if ax is not None:
            return _into(module, panels[0], ax, frame, options)
        if frame["col"] is None:
            return _alone(module, panels[0], frame, options)
        return _side_by_side(module, panels, frame, options)

    plot.__name__ = plot.__qualname__ = name
    plot.__doc__ = _help.text(module, takes)
    plot.__signature__ = _signature(takes)  # type: ignore[attr-defined]
    return plot


def _options(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    every = inspect.signature(function).parameters.values()
    return {each.name: each for each in every if each.kind is inspect.Parameter.KEYWORD_ONLY}


def _signature(takes: Mapping[str, inspect.Parameter]) -> inspect.Signature:
    either, named = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    first = [inspect.Parameter("data", either), inspect.Parameter("ax", either, default=None)]
    frame = [inspect.Parameter(key, named, default=usual) for key, usual in _FRAME.items()]
    return inspect.Signature([*first, *frame, *takes.values()])


def _of_runs(module: ModuleType) -> bool:
    """Say whether a figure is of a table of runs, and not of a network or an adapter."""
    return hasattr(module, "rows") and next(iter(inspect.signature(module.rows).parameters)) == "runs"


def _call(function: Callable[..., Any], *given: Any, **options: Any) -> Any:
    """Call with those of the options that a function takes."""
    return function(*given, **{key: value for key, value in options.items() if key in _options(function)})


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
    if col is not None and col != "method":
        return _of_parts(module, runs, col, options)
    _check_comparable(module, runs, col)
    if col == "method":
        return _of_methods(module, runs, options)
    return [_Panel("", runs, _call(module.rows, runs, **options), options)]


def _of_parts(module: ModuleType, runs: pd.DataFrame, col: str, options: Options) -> list[_Panel]:
    """Return a panel for each task, model, size or layout that allows the figure; raise the first error if none does.

    References and others without a size or layout are in the panels of all.
    """
    found, errors = list[_Panel](), list[TensorAdaptError]()
    of_adapters = col in ("rank", "budget", "layout")
    for value, part in runs.groupby(col, dropna=of_adapters, sort=False):
        if of_adapters:
            value = value if col == "layout" else Size.of(part.iloc[0]).short
            part = pd.concat([part, runs[runs[col].isna()]])
        try:
            _check_comparable(module, part, col)
            rows = _call(module.rows, part, **options)
        except TensorAdaptError as error:
            errors.append(error)
            continue
        found.append(_Panel(str(value), part, rows, {**options, "names": False}))
    if not found:
        raise next(iter(errors), TensorAdaptError(f"no run has a {col}; expected runs of several, or another col"))
    return found


def _of_methods(module: ModuleType, runs: pd.DataFrame, options: Options) -> list[_Panel]:
    """Return a panel for each method: the whole figure with the others in grey where it can, else its runs alone."""
    adapters = runs["kind"] == "adapter"
    whole = _call(module.rows, runs, **options) if "focus" in _options(module.draw) else None
    found = []
    for method, look in looks(runs["method"][adapters]).items():
        own = runs if whole is not None else runs[~adapters | (runs["method"] == method)]
        rows = _call(module.rows, own, **options) if whole is None else whole
        found.append(_Panel(look.name, own, rows, {**options, "names": False, "focus": method}))
    return found


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


def _into(module: ModuleType, panel: _Panel, ax: Axes, frame: Options, options: Options) -> Axes:
    """Draw into axes that somebody has made."""
    if given := [key for key in ("figsize", "caption", "col") if frame[key] is not _FRAME[key]]:
        raise TensorAdaptError(f"{given[0]} is for a figure of its own; leave it out, or leave out ax")
    if frame["headline"]:
        letters = "small" if _parts.narrow(ax) else "medium"
        text = _parts.wrapped(_parts.figure_of(ax), module.headline(panel.rows), _parts.inches(ax), letters)
        ax.set_title(text, loc="left", fontsize=letters)
    _call(module.draw, panel.rows, ax, **options)
    return ax


def _alone(module: ModuleType, panel: _Panel, frame: Options, options: Options) -> Axes:
    drawn, ax = pyplot.subplots(figsize=_size(module, panel.rows, frame["figsize"]), layout="constrained")
    caption = module.caption(panel.runs, panel.rows) if frame["caption"] else ""
    _write(drawn, [module.headline(panel.rows)] if frame["headline"] else [], frame["figsize"], caption)
    _call(module.draw, panel.rows, ax, **options)
    return ax


def _side_by_side(module: ModuleType, panels: Sequence[_Panel], frame: Options, options: Options) -> Any:
    """Draw a panel for each task, method, model or size, with one legend; return their axes (n,)."""
    one_task, styles = frame["col"] == "method", _shown(module, panels, options) if frame["col"] != "method" else {}
    across = min(len(panels), getattr(module, "across", 3))
    down = -(-len(panels) // across)
    drawn = pyplot.figure(figsize=_panels_size(module, panels, frame["figsize"], across, down), layout="constrained")
    grid = drawn.add_gridspec(down + bool(styles), across, height_ratios=[1] * down + [0.01] * bool(styles))
    axes: list[Axes] = []
    for i in range(len(panels)):
        shared = {"sharex": axes[0], "sharey": axes[0]} if one_task and axes else {}
        axes.append(drawn.add_subplot(grid[i // across, i % across], **shared))
    said = [f"{'' if one_task else f'{p.title}: '}{module.headline(p.rows)}" for p in panels if frame["headline"]]
    captions = [module.caption(panel.runs, panel.rows) for panel in panels if frame["caption"]]
    if len(set(captions)) > 1:  # as panels of other numbers of seeds have
        captions = [f"{panel.title}: {caption}" for panel, caption in zip(panels, captions, strict=True)]
    _write(drawn, list(dict.fromkeys(said)), frame["figsize"], " ".join(dict.fromkeys(captions)))
    if styles:
        _legend(drawn.add_subplot(grid[down, :]), styles)
    for ax, panel in zip(axes, panels, strict=True):
        look = options.get("looks", {}).get(panel.options.get("focus"))
        colour = tone(0.72, look.colour, ink=True) if look else tone(0)
        ax.set_title(_parts.plain(panel.title), loc="left", fontsize="medium", color=colour)
        _call(module.draw, panel.rows, ax, **panel.options)
    _outer(axes, across)
    return np.array(axes)


def _panels_size(
    module: ModuleType, panels: Sequence[_Panel], given: Any, across: int, down: int
) -> tuple[float, float]:
    """Return the size of a figure of panels, each as high as the figure asks for at its width."""
    if given is not None and not is_number(given, 0):
        return _size(module, None, given)
    width = float(given or max(3.3, min(7.0, PANEL * across)))
    high = max(_call(module.size, panel.rows, width=width / across)[1] for panel in panels)
    return width, 0.3 + high * down


def _shown(module: ModuleType, panels: Sequence[_Panel], options: Options) -> dict[str, Look]:
    """Return the looks of the methods that any panel shows, for a legend; none where panels name them."""
    found = options.get("looks") or {} if "names" in _options(module.draw) else {}
    drawn = {method for panel in panels for method in panel.rows["method"][panel.rows["kind"] == "adapter"]}
    return {method: look for method, look in found.items() if method in drawn}


def _legend(ax: Axes, styles: Mapping[str, Look]) -> None:
    """Fill axes below panels with a legend of methods."""
    ax.axis("off")
    longest = max(len(look.name) for look in styles.values())
    most = max(1, int(_parts.figure_of(ax).get_figwidth() / (0.5 + 0.075 * longest)))
    columns = -(-len(styles) // -(-len(styles) // most))  # lines of one length
    look: dict[str, Any] = {"frameon": False, "fontsize": "small", "borderaxespad": 0, "handlelength": 1.8}
    ax.legend(handles=_parts.handles(styles.values()), loc="upper center", ncols=columns, **look)


def _outer(axes: Sequence[Axes], across: int) -> None:
    """Leave names of axes and ticks that are shared where they are the outer ones."""
    for i, ax in enumerate(axes):
        if i % across and ax.get_ylabel() == axes[i - 1].get_ylabel():
            ax.yaxis.label.set_visible(False)
        if i + across < len(axes) and ax.get_xlabel() == axes[i + across].get_xlabel():
            ax.xaxis.label.set_visible(False)
        if ax.get_shared_y_axes().joined(ax, axes[0]) and len(axes) > 1:
            ax.tick_params(labelleft=i % across == 0, labelbottom=i + across >= len(axes))


def _write(drawn: Figure, headlines: Sequence[str], figsize: Any, caption: str) -> None:
    """Write headlines above a figure and its caption below, which make it higher where its height was not given."""
    width, texts = drawn.get_figwidth() - 0.1, []
    if headlines:
        text = "\n".join(_parts.wrapped(drawn, one, width, "medium") for one in headlines)
        texts.append(drawn.suptitle(text, x=0.01, ha="left", fontsize="medium"))
    if caption:
        text = _parts.wrapped(drawn, caption, width, "small")
        texts.append(drawn.supxlabel(text, x=0.01, ha="left", fontsize="small", color=tone(_parts.GREY)))
    if not isinstance(figsize, Sequence):
        high = sum(text.get_window_extent().height / drawn.dpi for text in texts)
        drawn.set_figheight(drawn.get_figheight() + high)


def _size(module: ModuleType, rows: Any, figsize: Any) -> tuple[float, float]:
    """Return the size of a new figure: given, its own, or its own height at a given width."""
    if figsize is None:
        return module.size(rows)
    if is_number(figsize, 0):
        return float(figsize), _call(module.size, rows, width=float(figsize))[1]
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
