"""Rates that were tuned at each size: what tables, figures and captions say follows from the runs."""

from __future__ import annotations

import statistics
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from support.synthetic_runs import write_synthetic
from support.synthetic_sweep import LEVELS, RATES, sweep, tuned_apart

from tensoradapt.analysis.figures import curve_plots
from tensoradapt.analysis.figures.captions import at_an_end, how_chosen
from tensoradapt.analysis.figures.catalogue import figures
from tensoradapt.analysis.old_tables import curves, frontier
from tensoradapt.analysis.old_tables.comparable import reported, tuned, tuned_where
from tensoradapt.runs.store import Run, load_runs

BEST = {1: 1e-3, 4: 3e-3, 16: 1e-2}  # the best of all but lora at rank 1


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    return tuned_apart(tmp_path_factory.mktemp("runs"))


def test_a_row_of_rates_is_a_run_with_the_mean_over_seeds_of_its_size(runs: list[Run]) -> None:
    rows = curves.rate_rows(runs)
    assert {row["run"] for row in rows} == {run.name for run in runs if tuned(run)}
    for row in rows:
        alike = [other for other in rows if all(other[key] == row[key] for key in ("method", "size", "lr"))]
        assert {other["seed"] for other in alike} == {1000, 1001}
        assert row["mean"] == statistics.fmean(other["validation"] for other in alike)
    assert [row["size"] for row in rows if row["method"] == "lorta"][::6] == ["r=1", "r=4", "r=16"]
    chosen = {(row["method"], row["size"], row["lr"]) for row in rows if row["chosen"]}
    wanted = {(name, f"r={rank}", BEST[rank]) for name in LEVELS for rank in BEST}
    wanted = wanted - {("lora", "r=1", 1e-3)} | {("lora", "r=1", 1e-2), ("frozen base + head", "", 1e-3)}
    assert chosen == wanted


def test_points_have_the_rate_of_their_own_size(runs: list[Run]) -> None:
    points = frontier.points(reported(runs))
    assert {(point.rank, point.lr) for point in points if point.method == "vera"} == set(BEST.items())


def test_where_rates_were_tuned_is_told_from_the_runs(runs: list[Run], tmp_path: Path) -> None:
    assert tuned_where(runs) == "size" and tuned_where(sweep(tmp_path / "method", ("sst2",))) == "method"
    only = [run for run in runs if tuned(run)]
    assert tuned_where(only) == "size", "before anything is reported"
    first = [run for run in only if run.row["rank"] == 1]
    assert tuned_where([*first, *reported(runs)]) == "method", "until a second size is begun"
    for i in range(6):
        same = {"parameterization": "cp", "named": "cp", "budget": None, "rank": 1 + i % 3}
        write_synthetic(tmp_path / "search", lr=1e-3 * (1 + i), seed=1000, tuning=True, **same)
    write_synthetic(tmp_path / "search", lr=2e-3, **same)
    assert tuned_where(load_runs(tmp_path / "search")) == "search"


def test_captions_say_at_each_size_over_which_seeds_and_which_rates(runs: list[Run]) -> None:
    how = (
        "chosen on validation among each method's own rates (frozen base + head, LoRTA, MetaTT-4D, VeRA 0.001, 0.003, "
        "0.01; LoRA 0.001, 0.003, 0.01, 0.03333) at each size (mean over seeds 1000, 1001)"
    )
    assert how_chosen(runs) == how
    frontier_, rates = figures(runs, kinds=["frontier", "rates"])
    assert f"Learning rates {how}, smallest size first: LoRA 0.01/0.003/0.01, LoRTA 0.001/0.003/0.01" in (
        frontier_.caption
    )
    assert (
        "rate tried, lines are means over seeds 1000, 1001, ticks single runs, at each size. A ring: " in rates.caption
    )
    assert (
        "the rate that all reported runs of the method at this size have. Hollow, on the strip: a run ended at"
        in rates.caption
    )
    assert rates.caption.endswith(
        "beyond it, for LoRA (r=16), LoRTA (r=1, r=16), MetaTT-4D (r=1, r=16), VeRA (r=1, r=16)."
    )


def test_a_rate_that_is_no_end_of_its_own_size_is_no_end(runs: list[Run]) -> None:
    rows = [row for row in curves.rate_rows(runs) if row["method"] == "lora"]
    assert at_an_end([row for row in rows if row["size"] == "r=1"]) == "", "0.01 is the highest elsewhere alone"
    assert at_an_end([row for row in rows if row["size"] == "r=16"]).endswith("for LoRA.")


def drawn(ax: Axes, gid: str) -> list[tuple[float, float]]:
    return sorted(tuple(map(float, xy)) for line in ax.lines if line.get_gid() == gid for xy in line.get_xydata())


def test_each_size_has_a_panel_with_its_means_runs_and_rings(runs: list[Run]) -> None:
    rows = curves.rate_rows(runs)
    (one,) = figures(runs, kinds=["rates"])
    panels = one.draw("").axes
    assert [ax.get_title(loc="left") for ax in panels] == ["r=1", "r=4", "r=16", "no rank or budget"]
    for ax, size in zip(panels, ("r=1", "r=4", "r=16", ""), strict=True):
        own = [row for row in rows if row["size"] == size]
        assert drawn(ax, "seed") == sorted((row["lr"], row["validation"]) for row in own)
        rings = {(row["method"], row["lr"], row["mean"]) for row in own if row["chosen"]}
        assert drawn(ax, "chosen") == sorted((lr, mean) for _, lr, mean in rings) != []
        lines = [line.get_xydata().tolist() for line in ax.lines if len(line.get_xdata()) > 2 and not line.get_gid()]
        means = {(row["method"], row["lr"]): row["mean"] for row in own}
        for method in {row["method"] for row in own}:
            assert [[lr, mean] for (name, lr), mean in sorted(means.items()) if name == method] in lines


def test_a_rate_without_a_score_is_on_the_strip_and_one_bad_seed_is_hollow(tmp_path: Path) -> None:
    same = {"rank": 4, "named": "cp"}
    for i, lr in enumerate(RATES):
        for seed in (1000, 1001):
            bad = i == 2 or (i == 1 and seed == 1001)
            write_synthetic(tmp_path, lr=lr, seed=seed, tuning=True, status="diverged" if bad else "finished", **same)
    runs = load_runs(tmp_path)
    for run in runs:
        if run.row["lr"] == RATES[2]:
            run.row["validation"] = None
    rows = curves.rate_rows(runs)
    assert {row["mean"] for row in rows if row["lr"] == RATES[2]} == {None}
    ax = curve_plots.rate_curves(rows)
    marks = {line.get_xdata()[0]: line for line in ax.lines if line.get_gid() == "mean"}
    assert [marks[lr].get_markerfacecolor() == "#ffffff" for lr in RATES] == [False, True, True]
    heights = [marks[lr].get_ydata()[0] for lr in RATES]
    seeds = drawn(ax, "seed")
    assert {lr for lr, _ in seeds} == {RATES[0], RATES[1]} and len(seeds) == 3
    assert heights[2] < min(score for _, score in seeds), "it is on the strip"
    assert len(drawn(ax, "lost")) == 3


@pytest.mark.parametrize("ranks", [(1, 4), (1, 4, 16), (1, 2, 4, 8, 16, 32)])
def test_nothing_on_panels_is_cut_off_or_covered(tmp_path: Path, ranks: tuple[int, ...]) -> None:
    (one,) = figures(tuned_apart(tmp_path, ranks, head=len(ranks) == 2), kinds=["rates"])
    figure = one.draw(one.caption)
    figure.canvas.draw()
    (note,) = [text for text in figure.texts if text.get_gid() == "caption"]
    (legend,) = figure.legends
    assert len(figure.axes) == len(ranks) + (len(ranks) == 2)
    boxes = [note.get_window_extent(), legend.get_window_extent()]
    for ax in figure.axes:
        named = [ax.title, ax._left_title, ax.xaxis.label, ax.yaxis.label]
        low, high = ax.get_xlim()
        named += [t for t, x in zip(ax.get_xticklabels(), ax.get_xticks(), strict=True) if low <= x <= high]
        boxes += [text.get_window_extent() for text in named if text.get_text()]
    whole = figure.bbox
    for box in boxes:
        assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1
    assert not [1 for box, other in combinations(boxes, 2) if box.overlaps(other)]
    assert all(ax.get_window_extent().height > 0.9 * figure.dpi for ax in figure.axes)
    assert np.unique([ax.get_ylim() for ax in figure.axes], axis=0).shape == (1, 2)
