"""Loss of training against steps or seconds, a line for each method.

Lines are means over seeds of the smoothed loss, thin ones the seeds.

>>> import pandas as pd
>>> import tensoradapt as ta
>>> runs = pd.DataFrame({"method": ["lora", "cp"] * 3, "seed": [0, 0, 1, 1, 2, 2], "n_params": [9216, 1008] * 3})
>>> runs["score"] = [0.81, 0.84, 0.83, 0.86, 0.82, 0.85]
>>> runs["losses"] = "0.7 0.6 0.5 0.45 0.4 0.38"
>>> ax = ta.plots.learning(runs)
>>> ax.get_xlabel(), ax.get_ylabel()
('steps', 'training loss')
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from scipy.ndimage import gaussian_filter1d

from tensoradapt.checks import is_number, shown
from tensoradapt.errors import TensorAdaptError, did_you_mean, few
from tensoradapt.lab.analysis.descriptions import listed
from tensoradapt.lab.analysis.names import Look, display, tone
from tensoradapt.lab.analysis.names import looks as looks_of
from tensoradapt.lab.analysis.plots import _parts
from tensoradapt.lab.analysis.plots.curves import in_focus, settings
from tensoradapt.lab.runs.store import read_array

X = {"steps": "steps", "seconds": "seconds of training"}
SHARE, LEAST = 0.03, 2.0  # standard deviation of the weights of a smoothed loss, as a share of the steps and in steps
MOST = 300  # points of a line
SIZE = ["rank", "budget", "n_params"]
KEPT = ["task", "metric", "kind", "method", *SIZE, "setting", "seed", "id", "status", "note"]


def rows(runs: pd.DataFrame, *, x: str = "steps", at: str | int = "middle") -> pd.DataFrame:
    """Return the losses of each run in steps: what the run is, ``step``, ``seconds``, ``loss`` and ``smooth``.

    ``smooth`` is the mean of the losses around a step with Gaussian weights, whose standard deviation ``width`` is 3 %
    of the steps, at least 2; ``seconds`` the step times the median time of a step. Of long runs 300 steps are kept.
    Runs that trained nothing, as a frozen base without a head, and runs whose folders have no losses are left out.

    Args:
        runs: of one task, with the column ``path``, or with a column ``losses``, a text of numbers for each run.
        x: "steps" or "seconds".
        at: the size of each method: a rank, "all", or "middle", that nearest to the median number of parameters.

    Raises:
        TensorAdaptError: for another x or at, runs without folders or whose folders have no losses, and for seconds
            runs without the time of a step.
    """
    if x not in X:
        raise TensorAdaptError(f"x is {shown(x)}{did_you_mean(x, X)}")
    reported = runs[~runs["tuning"]]
    if reported.empty:
        raise TensorAdaptError("every run failed or chose a rate; expected one or more that are reported")
    chosen = _at(reported, at)
    found = _losses(chosen.assign(setting=settings(chosen))).assign(x=x)
    if found[_x(found)].isna().all():
        raise TensorAdaptError("no run has step_seconds_median; expected the time of its steps (s), or x='steps'")
    return found


def _at(runs: pd.DataFrame, at: str | int) -> pd.DataFrame:
    """Return the runs of one size of each method, of those that have several, and references."""
    adapters = runs["kind"] == "adapter"
    if at == "all":
        return runs
    if is_number(at):
        keep = runs["rank"].map(lambda rank: rank == at)
        if not (keep & adapters).any():
            ranks = sorted({rank for rank in runs.loc[adapters, "rank"].dropna() if not isinstance(rank, str)})
            there = f"one of {few([f'{rank:g}' for rank in ranks])}, " if ranks else ""
            raise TensorAdaptError(f"no adapter has rank {at}; expected {there}'middle' or 'all'")
        return runs[keep | ~adapters]
    if at != "middle":
        raise TensorAdaptError(f"at is {shown(at)}; expected a rank, 'middle' or 'all'")
    sizes = np.log(pd.to_numeric(runs["n_params"]).astype(float).clip(lower=1))
    middle = np.median(sizes[adapters].unique()) if adapters.any() else 0.0
    far = (sizes - middle).abs()
    nearest = far.groupby(runs["method"]).transform("min")
    return runs[~adapters | far.isna() | (far == nearest)]


def _losses(runs: pd.DataFrame) -> pd.DataFrame:
    parts = []
    for _, run in runs.iterrows():
        losses = _read(run)
        if len(losses):
            parts.append(_curve(losses, run))
    if not parts:
        raise TensorAdaptError(
            f"none of the {len(runs)} runs has losses, as in {runs['path'].iloc[0]}; expected losses.npy in folders of "
            "runs that trained: run the sweep again to record them"
        )
    return pd.concat(parts, ignore_index=True)


def _read(run: pd.Series) -> _parts.Floats:
    """Return the loss of each step of a run, (steps,); empty where its folder has none."""
    if isinstance(own := run.get("losses"), str):
        try:
            return np.array(own.split(), float)
        except ValueError:
            raise TensorAdaptError(f"losses of run {run['id']} are {shown(own)}; expected a text of numbers") from None
    if not isinstance(run["path"], str):
        raise TensorAdaptError(
            f"run {run['id']} has no path, and losses are in the folders of runs; expected a folder of runs, runs of "
            "load_runs, or a table with their column 'path' or with a column 'losses', a text of numbers"
        )
    folder = Path(run["path"])
    return read_array(folder, "losses") if (folder / "losses.npy").is_file() else np.empty(0)


def _curve(losses: _parts.Floats, run: pd.Series) -> pd.DataFrame:
    """Return the rows of one run."""
    n = len(losses)
    width = max(LEAST, SHARE * n)
    at = np.unique(np.linspace(0, n - 1, min(n, MOST)).round().astype(int))
    each = run["step_seconds_median"]
    seconds = (at + 1) * (math.nan if pd.isna(each) else float(each))
    own = {**{name: run[name] for name in KEPT}, "step": at + 1, "seconds": seconds}
    return pd.DataFrame({**own, "loss": losses[at], "smooth": smoothed(losses, width)[at], "width": width})


def smoothed(values: _parts.Floats, width: float) -> _parts.Floats:
    """Return means with Gaussian weights of a standard deviation of so many places, (n,) as given.

    >>> smoothed(np.array([1.0, 1.0, 4.0, 1.0, 1.0]), 0.5).round(2).tolist()
    [1.0, 1.32, 3.36, 1.32, 1.0]
    """
    sums = (gaussian_filter1d(each, width, mode="constant", truncate=3) for each in (values, np.ones(len(values))))
    return np.divide(*sums)


def draw(
    rows: pd.DataFrame,
    ax: Axes,
    *,
    looks: Mapping[str, Look] | None = None,
    focus: str | None = None,
    names: bool = True,
) -> Axes:
    """Draw the mean over seeds of the smoothed loss, and the seeds thin.

    A cross ends a run that diverged or is at chance, and the name of its method says how many are; diverged runs are in
    no mean, and limits of y leave them out. References are grey.
    """
    references = set(rows.loc[rows["kind"] != "adapter", "method"])
    styles = dict(looks or looks_of(rows["method"]))
    styles = {m: k._replace(colour=tone(_parts.GREY)) if m in references else k for m, k in styles.items()}
    styles = in_focus(styles, focus)
    _limit_losses(rows, ax)
    pale, named = rows.groupby(["method", "setting"]).ngroups ** -0.5, dict[str, tuple[float, Look]]()
    for own, look, _ in _parts.lines(ax, rows, styles):
        named[_named(own, look.name)] = _draw_line(ax, own, look, pale), look
    ax.set(xlim=(0, 1.02 * rows[_x(rows)].max()), xlabel=X[rows["x"].iloc[0]], ylabel="training loss")
    _parts.bare(ax)
    if names:
        _name(ax, named)
    return ax


def _limit_losses(rows: pd.DataFrame, ax: Axes) -> None:
    """Set limits of y that hold runs whose loss did not rise, logarithmic where they are far apart."""
    calm = rows[(rows["status"] != "diverged") & ~rows["note"].fillna("").str.contains("loss rose")]
    values = (calm if len(calm) else rows)["smooth"]
    low, high = float(values.min()), float(values.max())
    if 0 < low < high / 10:
        ax.set(yscale="log", ylim=(low / 1.15, high * 1.15))
        ax.yaxis.set(major_locator=LogLocator(10, (1, 2, 5)), minor_locator=NullLocator())
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        pad = 0.06 * (high - low) or 0.05 * abs(high) or 0.05
        ax.set_ylim(low - pad, high + pad)


def _draw_line(ax: Axes, own: pd.DataFrame, look: Look, pale: float) -> float:
    """Draw the runs of a line and their mean; return at which height it ends. ``pale``: less than 1 of many lines."""
    x = _x(own)
    wide: dict[str, Any] = {"color": look.colour, "ls": look.line}
    thin: dict[str, Any] = {"color": look.colour, "lw": 0.6}
    grey = look.colour == tone(_parts.PALE)  # the setting of the method that is in colour
    for _, run in own.groupby("id", sort=False) if not grey else ():
        status = run["status"].iloc[0]
        if own["id"].nunique() > 1 or status == "diverged":
            ax.plot(run[x], run["smooth"], alpha=0.3 + 0.3 * pale, zorder=2, gid="seed", **thin)
        if status != "finished":
            at = run[x].iloc[-1], min(run["smooth"].iloc[-1], ax.get_ylim()[1])
            ax.plot(*at, "x", color=look.colour, ms=5, mew=1.1, clip_on=False, zorder=5, gid="lost")
    mean = _mean(own)
    if mean.empty:
        return float(own["smooth"].iloc[-1])
    width = 1.3 if _parts.narrow(ax) else 1.7
    said = f"mean: {display(own['method'].iloc[0])}: loss {mean['smooth'].iloc[-1]:.4f} at the end"
    ax.plot(mean[x], mean["smooth"], lw=width, zorder=1.8 if grey else 3, gid=said, **wide)
    return float(mean["smooth"].iloc[-1])


def _name(ax: Axes, named: Mapping[str, tuple[float, Look]]) -> None:
    """Name lines right of the axes, or in a legend where they are too many."""
    room = ax.get_window_extent().height / ax.figure.dpi * 72
    if 11 * sum(len(text) // (15 if _parts.narrow(ax) else 26) + 1 for text in named) > room:
        looks = [look._replace(name=text, marker="") for text, (_, look) in named.items()]
        _parts.legend(ax, _parts.handles(looks), below=True)
    else:
        _parts.end_names(ax, {text: (y, look.colour) for text, (y, look) in named.items()})


def _x(rows: pd.DataFrame) -> str:
    return "step" if rows["x"].iloc[0] == "steps" else "seconds"


def _mean(own: pd.DataFrame) -> pd.DataFrame:
    """Return the means over seeds, at the steps that all have; diverged runs, which end early, are left out."""
    some = own[own["status"] != "diverged"]
    means = some.groupby("step").agg(
        n=("id", "size"), seconds=("seconds", "mean"), loss=("loss", "mean"), smooth=("smooth", "mean")
    )
    return means[means["n"] == some["id"].nunique()].reset_index()


def _named(own: pd.DataFrame, name: str) -> str:
    """Return the name of a line, with how many of its runs are lost."""
    status = own.drop_duplicates("id")["status"]
    lost = [
        f"{(status == one).sum()} of {len(status)} {one}" for one in ("diverged", "at chance") if (status == one).any()
    ]
    return f"{name} ({', '.join(lost)})" if lost else name


def caption(runs: pd.DataFrame, rows: pd.DataFrame) -> str:
    """Return what a reader needs to judge the figure."""
    widths = [f"{width:.2g}" for width in sorted(set(rows["width"]))]
    over = " to ".join(dict.fromkeys((widths[0], widths[-1])))
    how = f"smoothed by Gaussian weights (standard deviation {over} steps)"
    text = f"Means over seeds of the loss, {how}; thin: seeds."
    time = " Seconds: steps times the median time of a step." if rows["x"].iloc[0] == "seconds" else ""
    return f"{text}{time} {_lost(rows)}".strip()


def _lost(rows: pd.DataFrame) -> str:
    """Name the runs that diverged, are at chance, or whose loss rose."""
    said = []
    for _, run in rows.drop_duplicates("id", keep="last").iterrows():
        rose = "loss rose" in str(run["note"])
        if run["status"] != "finished" or rose:
            name = f"{display(run['method'])} {run['setting']}".strip()
            how = f"diverged after step {run['step']:,}" if run["status"] == "diverged" else run["status"]
            said.append(f"{name} seed {run['seed']} ({'loss rose' if rose and how == 'finished' else how})")
    return f"Crosses end lost runs: {listed(said)}." if said else ""


def headline(rows: pd.DataFrame) -> str:
    """Return the answer in a sentence: whose loss ends lowest, if every seed of it is below those of the next."""
    alive = rows[(rows["status"] != "diverged") & (rows["kind"] == "adapter")]
    last = alive.groupby("id").tail(1)
    groups = last.groupby(["method", "setting"])["smooth"]
    ends = sorted((float(own.mean()), f"{display(m)} {setting}".strip(), own) for (m, setting), own in groups)
    n = rows.drop_duplicates("id")["status"].ne("finished").sum()
    lost = f"; {n} of {rows['id'].nunique()} runs {'is' if n == 1 else 'are'} lost" if n else ""
    if not ends:
        return f"No run of an adapter reached its end{lost}"
    best, name, seeds = ends[0]
    if len(ends) == 1:
        return f"The loss of {name} ends at {_parts.number(best)}{lost}"
    next_best, next_name, next_seeds = ends[1]
    both = f"at {_parts.number(best)}, of {next_name} at {_parts.number(next_best)}{lost}"
    if seeds.max() >= next_seeds.min():
        return f"Final losses overlap: that of {name} ends {both}"
    return f"The loss of {name} ends lowest with {'every seed' if len(seeds) > 1 else 'one seed'}, {both}"


def size(rows: pd.DataFrame, *, width: float = 5.6) -> tuple[float, float]:
    """Return inches of a new figure."""
    n, high = len(rows[["method", "setting"]].drop_duplicates()), max(2.3, 0.6 * width)
    return width, high + (0.15 * n / (1 if width < _parts.NARROW + 1 else 2) if n > 10 else 0)
