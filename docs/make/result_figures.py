"""Pictures that pages of results begin with, from the tables that these pages show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import figure_style  # in benchmarks
import number_tables
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from tensoradapt.lab.analysis.names import COLOURS, tone
from tensoradapt.lab.analysis.plots import _parts

STEPS = ("PEFT LoRA r=8", "CP r=8", "tensor-train r=8", "Tucker r=8", "CP, LoRA r=8's count", "full fine-tuning")
SHAPES = {"time minilm": "MiniLM", "time vit-s": "ViT-S", "time roberta-base": "RoBERTa-base"}
SCALES = {"matched": "matched scale", "paper": "papers' scales"}
STORED = {  # rows of the table of libraries, as the picture calls them
    "as trained, 8 bits": "each LoRA in 8 bits",
    "all, `task : out : in`, Tucker of sides r=16": "common Tucker, r=16",
    "all, `task : out : in`, Tucker of sides r=8": "common Tucker, r=8",
    "all, `task layer proj : out : in`, tensor-train": "common tensor-train",
    "each, LoRA r=1": "each as LoRA r=1",
    "each, `layer proj : out : in`, Tucker": "each as Tucker",
}
STORED_BEST = "common Tucker, r=16"  # which the message is of


def bars(ax: Axes, labels: Sequence[str], points: Any, filled: Sequence[bool]) -> None:
    """Draw a row for each label, from the top: its value with its interval, filled or hollow."""
    colour = tone(0.75, COLOURS[0], ink=True)  # lighter on dark paper
    for y, ((value, low, high), full) in enumerate(zip(points, filled, strict=True)):
        ax.plot([low, high], [y, y], color=tone(0.6, colour), lw=1.6)
        ax.plot(value, y, "o", mfc=colour if full else tone(1), mec=colour, ms=6)
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)


def other_tasks(path: Path, width: float) -> None:
    """Draw which share of LoRA r=8's gain smaller adapters keep on each task."""
    rows = [
        row
        for family in number_tables.TASKS
        for row in number_tables.of(family)(number_tables.read(number_tables.VERDICTS))
    ]
    table = pd.DataFrame(rows)
    gain = table["mean"] - table["difference"] - table["floor"]
    points = np.stack([100 * (1 + table[name] / gain) for name in ("difference", "low", "high")], 1)
    times = (table["reference_n_params"] / table["n_params"]).round().astype(int)
    labels = [f"{row.method_name}, {n}× fewer" for row, n in zip(named(table), times, strict=True)]
    with figure_style.drawn(path, (width, 4.6)) as figure:
        ax = figure.subplots()
        ax.axvline(100, color=tone(0), lw=0.9)
        bars(ax, labels, points, table["verdict"].map(number_tables.outcome_of).eq("kept").tolist())
        for family, own in table.groupby("family", sort=False):
            ax.axhline(own.index[0] - 0.5, color=tone(_parts.FAINT), lw=0.7)
            name, look = number_tables.TASKS[str(family)].replace("Movie ", ""), {"color": tone(_parts.GREY)}
            place = {"transform": ax.get_yaxis_transform(), "ha": "right", "va": "center"}
            ax.text(0.99, own.index[0], name, fontsize="small", **place, **look)
        ax.set_xlim(20, 190 if width > 5 else 280)
        ax.set_xticks([50, 100])
        ax.set_xlabel("% of LoRA r=8's gain", loc="left")
        message = "Smaller adapters keep most of LoRA's gain; few are shown to lose less than 1 point (filled)"
        title(figure, message, width)


def named(table: pd.DataFrame) -> list[Any]:
    return list(table.rename(columns={"name": "method_name"}).itertuples())


def step_time(path: Path, width: float) -> None:
    """Draw the time of a training step on three models, over the frozen model's."""
    rows = {row["name"]: row for row in number_tables.steps(None)}
    colours = (COLOURS[0], COLOURS[1], COLOURS[2])
    with figure_style.drawn(path, (width, 2.9)) as figure:
        ax = figure.subplots()
        for shift, colour, (key, label) in zip((-0.22, 0, 0.22), colours, SHAPES.items(), strict=True):
            times = [rows[name][key] for name in STEPS]
            ax.plot(times, np.arange(len(STEPS)) + shift, "o", color=colour, ms=5.5, label=label)
        ax.set_yticks(range(len(STEPS)), STEPS)
        ax.set_ylim(len(STEPS) - 0.4, -0.6)
        ax.set_xlim(1, 2)
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="x")
        ax.legend(loc="upper right", fontsize="small", handletextpad=0)
        ax.set_xlabel("time, × the frozen model")
        title(figure, "At rank 8 a step takes as long as LoRA's", width)


def libraries(path: Path, width: float) -> None:
    """Draw the points that each way to store 24 adapters loses, with its bytes."""
    library = number_tables.benchmark("trained_library")
    every, found = library.losses(), []
    for form, bits in library.WANTED:
        own = every.loc[("own", *library.named(form, bits).values())]
        label = form.label if form else f"as trained, {bits} bits"
        half = library.stats.t.ppf(0.975, len(own) - 1) * own["loss"].sem()
        mean = own["loss"].mean()
        found.append((STORED.get(label), own["bytes"].mean() / 1000, (mean, mean - half, mean + half)))
    rows = sorted((row for row in found if row[0]), key=lambda row: -row[1])
    with figure_style.drawn(path, (width, 2.7)) as figure:
        ax = figure.subplots()
        bars(
            ax,
            [f"{name}: {size:.0f} kB" for name, size, _ in rows],
            [points for *_, points in rows],
            [True] * len(rows),
        )
        ax.axvline(0, color=tone(0), lw=0.9)
        ax.set_xlabel("points lost (95 %)")
        whole, (_, size, (loss, *_)) = rows[0], next(row for row in rows if row[0] == STORED_BEST)
        title(figure, f"{whole[1] / size:.0f}× fewer bytes for {loss:.1f} points", width)


def rates(path: Path, width: float) -> None:
    """Draw the best rate of each method and rank, a row for each way to step."""
    best = number_tables.benchmark("best_rate")
    found = best.table(60)
    with figure_style.drawn(path, (width, 2.2)) as figure:
        ax = figure.subplots()
        for y, row in enumerate(found.values()):
            own = np.array(list(row["rates"].values()))
            ax.plot(own, y + np.linspace(-0.2, 0.2, len(own)), "o", color=COLOURS[5], ms=3.5)
            apart = f"{float(format(row['spread'], '.2g')):g}× apart"
            ax.text(own.max() * 1.3, y, apart, va="center", fontsize="small", color=tone(_parts.GREY))
        ax.set(xscale="log", xlim=(5e-5, 2 if width > 5 else 9), xlabel="best learning rate")
        ax.set_yticks(range(len(found)), [best.OPTIMIZERS[optimizer].replace(", ", ",\n") for optimizer in found])
        ax.set_ylim(len(found) - 0.5, -0.5)
        ax.tick_params(axis="y", length=0)
        apart = (f"{float(format(found[name]['spread'], '.1g')):g}×" for name in ("adamw", "paper"))
        title(figure, "At the matched scale best rates lie {} apart, at the papers' scales {}".format(*apart), width)


def first_step(path: Path, width: float) -> None:
    """Draw how far the first step of many adapters moves the weights, at both scales."""
    steps = pd.read_csv(number_tables.ROOT / number_tables.RECORDS / "step_size.csv")
    steps = steps[(steps["step"] == 1) & (steps["axis"] != "lr")]
    ratios = steps.groupby(["scale", "axis", "value", "row"])["rms_ratio_to_lora"].mean()
    with figure_style.drawn(path, (width, 1.9)) as figure:
        ax = figure.subplots()
        ax.axvline(1, color=tone(0), lw=0.9)
        for y, scale in enumerate(SCALES):
            own = ratios[scale].to_numpy()
            ax.plot(own, y + np.resize(np.linspace(-0.25, 0.25, 7), len(own)), "o", color=COLOURS[5], ms=2.5)
        ax.set(xscale="log", xlabel="length of the first step, × LoRA r=8's", ylim=(len(SCALES) - 0.5, -0.5))
        ax.set_yticks(range(len(SCALES)), list(SCALES.values()))
        ax.tick_params(axis="y", length=0)
        title(figure, "At the matched scale first steps are as long as LoRA's", width)


def title(figure: Any, text: str, width: float) -> None:
    """Write the message of a picture on top of it."""
    figure.suptitle(fill(text, round(15 * width)), x=0.01, ha="left", fontsize="large" if width > 5 else "medium")


FIGURES: dict[str, Callable[[Path, float], None]] = {
    "results/figures/other_tasks.png": other_tasks,
    "results/figures/step_time.png": step_time,
    "results/figures/libraries.png": libraries,
    "results/figures/rates.png": rates,
    "results/figures/first_step.png": first_step,
}
