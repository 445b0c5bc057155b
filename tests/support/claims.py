"""The numbers that pages say, from the files that hold them."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

from tensoradapt.analysis.statistics.intervals import Floats, Interval, t_interval
from tensoradapt.analysis.statistics.significance import holm, paired_p

ROOT = Path(__file__).parents[2]
HEAD = 770  # of MiniLM for two classes; tests/test_paper_runs.py counts it
LORA = ("LoRA", "8")
FROZEN, FULL = ("frozen base + head", ""), ("full fine-tuning", "")
Row = dict[str, str]
Key = tuple[str, str]  # method and rank


@cache
def rows(path: str) -> tuple[Row, ...]:
    """The rows of a CSV file."""
    with (ROOT / path).open(newline="") as file:
        return tuple(csv.DictReader(file))


def one(path: str, **wanted: str) -> Row:
    """The only row of a file with these cells."""
    (found,) = [row for row in rows(path) if all(row[key] == value for key, value in wanted.items())]
    return found


@cache
def figure(name: str = "frontier") -> dict[Key, Row]:
    """The rows of docs/figures/NAME.csv by method and rank, with methods as the page writes them."""
    return {(row["method"].replace("lotr", "LoTR"), row["rank"]): row for row in rows(f"docs/figures/{name}.csv")}


def size(key: Key, name: str = "frontier") -> int:
    """An adapter's parameters."""
    return int(figure(name)[key]["n_params"])


def mean(key: Key, name: str = "frontier") -> float:
    """A mean accuracy."""
    return float(figure(name)[key]["mean"])


def scores(key: Key, name: str = "frontier") -> Floats:
    """The accuracy of each seed."""
    return np.array([float(score.strip("*")) for score in figure(name)[key]["scores"].split()])


def share(key: Key) -> tuple[float, Interval]:
    """What part of full fine-tuning's gain over the frozen base an adapter has, of the means and over seeds."""
    gain, most = scores(key) - scores(FROZEN), scores(FULL) - scores(FROZEN)
    return float(gain.mean() / most.mean()), t_interval(gain / most)


def fewer(key: Key, name: str = "frontier", head: int = 0) -> str:
    """How many times fewer parameters than LoRA r=8 a size has."""
    return f"{(size(LORA, name) + head) / (size(key, name) + head):.3g}"


@cache
def gaps(name: str = "frontier") -> dict[Key, tuple[Interval, float]]:
    """Each size's difference to LoRA r=8 over seeds, and its p after Holm's correction over all of them."""
    apart = {key: scores(key, name) - scores(LORA, name) for key in figure(name) if key[1] and key != LORA}
    adjusted = holm([paired_p(gap) for gap in apart.values()])
    return {key: (t_interval(gap), float(p)) for (key, gap), p in zip(apart.items(), adjusted, strict=True)}


@cache
def within(margin: float, name: str = "frontier") -> dict[Key, tuple[bool, bool]]:
    """Whether each size loses less than a margin: by its own lower limit over seeds, and after Holm's correction."""
    limits = gaps(name)
    apart = {key: scores(key, name) - scores(LORA, name) + margin for key in limits}
    p = [paired_p(gap) / 2 if gap.mean() > 0 else 1 - paired_p(gap) / 2 for gap in apart.values()]
    held = dict(zip(apart, holm(p), strict=True))
    return {key: (limits[key][0].low > -margin, bool(held[key] < 0.025)) for key in apart}


def to_lora(key: Key, name: str = "frontier") -> str:
    """The cell of a difference to LoRA r=8 with its interval over seeds."""
    gap = t_interval(scores(key, name) - scores(LORA, name))
    return f"{gap.mean:+.3f} ({gap.low:.3f} to {gap.high:.3f})"


def counts(key: Key, name: str = "frontier") -> str:
    """The cells of a size: its parameters alone and with the head, and how many times fewer than LoRA r=8's."""
    n = size(key, name)
    cells = (f"{n:,}", f"{n + HEAD:,}")
    return " | ".join((*cells, fewer(key, name), fewer(key, name, HEAD)) if key[1] else (*cells, "", ""))


def figure_rows(name: str = "frontier") -> Iterator[str]:
    """How each row of the table of docs/figures/README.md begins, up to the difference to LoRA r=8."""
    for (method, rank), row in figure(name).items():
        key = method, rank
        over = [float(row[f"diff_head{end}"] or 0) for end in ("", "_low", "_high")]
        gain = f"{over[0]:+.3f} ({over[1]:.3f} to {over[2]:.3f})" if key != FROZEN else ""
        gap = to_lora(key, name) if key not in (FROZEN, LORA) else ""
        held = f"{gaps(name)[key][1]:.3g}" if key in gaps(name) else ""
        cells = (method, rank, counts(key, name), f"{float(row['mean']):.3f}")
        cells += (f"{float(row['low']):.3f} to {float(row['high']):.3f}",)
        yield f"| {' | '.join((*cells, *([gain] if name == 'frontier' else []), gap, held))} |"


def difference(folder: str, task: str, method: str, size: str) -> dict[str, float]:
    """The numbers of a row of docs/results/FOLDER/differences.csv."""
    row = one(f"docs/results/{folder}/differences.csv", task=task, method=method, size=size)
    names = ("difference", "low", "high", "low_seeds", "p", "p_holm", "times_fewer", "times_fewer_trained")
    return {key: float(row[key]) for key in (*names, "p_within", "p_within_holm", "n_params", "n_head")}
