"""Score against forgetting: what each configuration of a causal model learns, and how much general text costs it.

Points are means with 95 % t intervals over seeds, of both. Filled: no other mean is as high at as little forgetting.

>>> import pandas as pd
>>> import tensoradapt as ta
>>> runs = pd.DataFrame({"method": ["lora", "cp"] * 3, "seed": [0, 0, 1, 1, 2, 2], "n_params": [9216, 1008] * 3})
>>> runs["score"] = [0.81, 0.84, 0.83, 0.86, 0.82, 0.85]
>>> runs["forgetting"] = [0.05, 0.02, 0.06, 0.02, 0.04, 0.03]
>>> ax = ta.plots.forgetting(runs)
>>> ax.get_xlabel(), ax.get_ylabel()
('forgetting (nats per token of general text)', 'test score')
"""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.analysis.names import Look, display, tone
from tensoradapt.lab.analysis.names import looks as looks_of
from tensoradapt.lab.analysis.plots import _parts
from tensoradapt.lab.analysis.statistics.intervals import t_interval
from tensoradapt.lab.analysis.tables import reported, summarise


def size(rows: pd.DataFrame, *, width: float = 6) -> tuple[float, float]:
    """Return inches of a new figure."""
    return width, 0.65 * width


def rows(runs: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each adapter and full fine-tuning: ``summarise``, and the mean of forgetting with its interval.

    Args:
        runs: of one causal model and one task, with the column ``forgetting``.

    Raises:
        TensorAdaptError: for runs without the column, as those of other models and of earlier versions are.
    """
    if "forgetting" not in runs or runs["forgetting"].isna().all():
        raise TensorAdaptError(
            "no run has measured what it forgets; expected the column forgetting, which runs of causal models have "
            "unless they are of version 0.2.0 or earlier, or say in their note why not"
        )
    table = reported(runs)
    found = summarise(table[table["kind"] != "head"], "forgetting")
    by_run = table.set_index("id")["forgetting"].astype(float)
    seeds = [by_run[list(names)].tolist() for names in found["runs"]]
    intervals = [t_interval(values) for values in seeds]
    ends = {f"forgetting_{end}": [getattr(each, end) for each in intervals] for end in ("low", "high")}
    return found.assign(forgetting=[each.mean for each in intervals], forgetting_seeds=seeds, **ends)


def draw(rows: pd.DataFrame, ax: Axes, *, looks: Mapping[str, Look] | None = None, names: bool = True) -> Axes:
    """Draw a point for each configuration; green: general text is no worse than with the base model, which is at 0.

    Args:
        rows: of ``rows``.
        ax: axes.
        looks: name, colour and marker of each method.
        names: whether methods are named within the axes.
    """
    styles = dict(looks or looks_of(rows["method"]))
    ends = [0.0, *(value for own in rows["forgetting_seeds"] for value in own)]  # intervals of two seeds may be cut
    room = 0.06 * (max(ends) - min(ends)) or 0.01
    ax.set(xlim=(min(ends) - room, max(ends) + room), ylim=_parts.score_limits(rows))
    ax.axvspan(ax.get_xlim()[0], min(0.0, ax.get_xlim()[1]), color=_parts.zone_colour(), lw=0, zorder=0)
    ax.axvline(0, color=tone(0), lw=0.9, zorder=1, gid="base")
    labels = []
    for _, row in rows.iterrows():
        look, at = styles[row["method"]], row["forgetting"]
        if row["n_seeds"] > 1:
            bar: dict[str, Any] = {"color": look.colour, "lw": 0.9, "alpha": 0.8, "zorder": 2.2, "gid": "bar"}
            ax.plot([row["forgetting_low"], row["forgetting_high"]], [row["mean"]] * 2, **bar)
        _parts.point(ax, at, row, look, bool(row["on_frontier"]))
        if text := f"{look.name if names else ''} {_parts.rank_text(row['rank'])}".strip():
            height = max(row["mean"], ax.get_ylim()[0])
            labels.append(_parts.label(ax, fill(text, 26), at, height, look.colour, "x-small"))
    label = fill("forgetting (nats per token of general text)", int(15 * _parts.inches(ax)))
    ax.set(xlabel=label, ylabel=_parts.score_name(rows))
    _parts.bare(ax)
    _parts.fit_text(ax)
    _parts.move_labels(ax, labels)
    return ax


def headline(rows: pd.DataFrame) -> str:
    """Say whether anything is shown to forget, and which of those as good as the best mean forgets least."""
    best = rows.loc[rows["mean"].idxmax()]
    above = best["low"] if pd.notna(best["low"]) else best["mean"]
    near = rows[rows["high"].fillna(rows["mean"]) >= above]
    least = near.loc[near["forgetting"].idxmin()]
    if not (rows["forgetting_low"].fillna(rows["forgetting"]) > 0).any():
        return f"None of {len(rows)} is shown to forget general text; {_name(best)} has the best mean"
    if least.name == best.name:
        return f"{_name(best)} has the best mean, and nothing as good forgets less"
    return f"{_name(least)} forgets least of those as good as {_name(best)}, which has the best mean"


def _name(row: pd.Series) -> str:
    return f"{display(row['method'])} {_parts.rank_text(row['rank'])}".strip()


def caption(runs: pd.DataFrame, rows: pd.DataFrame) -> str:
    """Say what is drawn, and over how many seeds."""
    n = sorted(set(map(int, rows["n_seeds"])))
    seeds = f"{n[0]} seeds" if len(n) == 1 else f"{n[0]} to {n[-1]} seeds"
    return (
        f"Means over {seeds}, with 95 % t intervals where there is more than one. Forgetting is the change of the mean "
        "cross entropy of a fixed sample of general English text by the training; 0 is the base, green no worse. "
        "As good: the interval overlaps with that of the best mean. Filled: no other mean is as high at as little "
        "forgetting."
    )
