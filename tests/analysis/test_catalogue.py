"""The figures of a sweep: which there are, that they show the numbers they are given, and what is written of them."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from support.panels import strip
from support.synthetic_runs import write_many, write_synthetic
from support.synthetic_sweep import LEVELS, RATES, sweep

from tensoradapt.analysis.figures import curve_plots, difference_plots
from tensoradapt.analysis.figures.canvas import RC, extent, folded
from tensoradapt.analysis.figures.captions import how_chosen
from tensoradapt.analysis.figures.catalogue import CATALOGUE, Figured, figures
from tensoradapt.analysis.figures.plots import frontier
from tensoradapt.analysis.names import display
from tensoradapt.analysis.old_tables import curves, over_tasks
from tensoradapt.analysis.old_tables.contrasts import contrasts
from tensoradapt.analysis.statistics.bootstrap import iqm, stratified_bootstrap
from tensoradapt.errors import TensorAdaptError
from tensoradapt.runs.store import Run, load_runs


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    return sweep(tmp_path_factory.mktemp("runs"))


def test_a_sweep_has_every_figure_its_runs_allow(runs: list[Run], tmp_path: Path) -> None:
    assert [one.name for one in figures(runs)] == [
        *("sst2-frontier", "sst2-rates", "sst2-contrasts", "stsb-frontier", "stsb-rates", "stsb-contrasts"),
        *("grid", "aggregates", "progress"),
    ]
    ranks = write_many(tmp_path / "ranks", {"cp": [(1, 10, 0.7), (2, 20, 0.8)], "lora": [(1, 15, 0.7), (2, 30, 0.8)]})
    assert [one.name for one in figures(ranks)] == ["frontier", "ranks", "contrasts", "grid"]
    assert [one.name for one in figures(write_many(tmp_path / "head", {}, seeds=[0]))] == ["frontier", "grid"]
    five = sweep(tmp_path / "five", tuple("abcde"))
    (ranked,) = figures(five, kinds=["differences"])
    assert [row["method"] for row in ranked.rows][-1] == "vera"
    assert "With 5 tasks the smallest corrected p of 6 comparisons is 0.38, so this test cannot" in ranked.caption
    three = [run for run in sweep(tmp_path / "seven", tuple("abcdefg")) if run.row["method"] != "lora"]
    assert "smallest" not in figures(three, kinds=["differences"])[0].caption


def test_figures_are_written_with_their_rows_and_caption_the_same_each_time(runs: list[Run], tmp_path: Path) -> None:
    for i, one in enumerate(figures(runs, totals={"sst2": 60, "stsb": 60})):
        written = one.save(tmp_path / "a")
        assert [path.name for path in written] == [f"{one.name}.{kind}" for kind in ("png", "pdf", "csv", "txt")]
        again = one.save(tmp_path / "b") if i < 3 else written  # which is slow, and the same for all
        assert [path.read_bytes() for path in written] == [path.read_bytes() for path in again]
        with written[2].open(newline="") as file:
            assert len(list(csv.DictReader(file))) == len(one.rows) > 0
        assert written[3].read_text() == f"{one.caption}\n"


@pytest.mark.parametrize(
    "kind", sorted(set(CATALOGUE) - {"ranks", "differences", "layouts"})
)  # which these runs do not allow
def test_nothing_on_a_figure_is_cut_off_or_covered(runs: list[Run], kind: str) -> None:
    nothing_is_cut_off_or_covered(figures(runs, kinds=[kind])[0])


def renamed(runs: list[Run], form: str) -> list[Run]:
    """Return the runs with other names of their adapters."""
    return [
        replace(run, row={**run.row, "method": form.format(run.row["method"])}) if run.row["kind"] == "adapter" else run
        for run in runs
    ]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Return runs of five tasks, from which every figure but that of ranks can be drawn."""
    return sweep(tmp_path_factory.mktemp("many"), tuple("abcde"))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("form", ["{} over layer proj : head dim : model", "{}" + 12 * " and more", "x-{}" + 90 * "y"])
@pytest.mark.parametrize("kind", sorted(set(CATALOGUE) - {"progress", "layouts"}))  # which names no method
def test_long_names_are_whole_and_take_nothing_from_the_axes(
    many: list[Run], tmp_path: Path, kind: str, form: str
) -> None:
    runs = many
    if kind == "ranks":
        runs = write_many(tmp_path, {name: [(1, 10, 0.7), (2, 20, 0.8)] for name in LEVELS}, head=None, full=None)
    one, plain = (figures(own, kinds=[kind])[0] for own in (renamed(runs, form), runs))
    ax = nothing_is_cut_off_or_covered(one)
    texts = [*ax.texts, *ax.get_yticklabels(), *(ax.get_legend().get_texts() if ax.get_legend() else ())]
    drawn = " ".join(packed(text.get_text()) for text in texts)
    names = {packed(display(run.row["method"])) for run in renamed(runs, form) if run.row["kind"] == "adapter"}
    if kind == "contrasts":  # the reference is named once, below
        names.remove(reference := packed(display(form.format("lora"))))
        assert reference in packed(ax.get_xlabel()) and reference not in drawn
    assert {name for name in names if name not in drawn} == set()
    before = nothing_is_cut_off_or_covered(plain)
    for axis in (0, 1):
        assert inches(ax)[axis] > 0.7 * inches(before)[axis]


def test_names_are_no_formulas(many: list[Run]) -> None:
    label = "a $\\foo$ of $1 and $2"
    runs = renamed(many, f"{label} {{}}")
    for one in figures(runs):
        one.draw(one.caption).canvas.draw()
    ax = figures(runs, kinds=["frontier"])[0].draw("").axes[0]
    text = next(text for text in ax.get_legend().get_texts() if text.get_text().endswith(" lora"))
    drawn = text.get_window_extent().width
    text.set_parse_math(False)
    text.set_text(f"{label} lora")
    assert text.get_window_extent().width == drawn


def test_names_are_no_formulas_on_axes_of_ones_own(many: list[Run]) -> None:
    runs = renamed([run for run in many if run.row["task"] == "a"], "a $\\foo$ {}")
    for draw in (
        frontier,
        lambda own, ax: curve_plots.rate_curves(curves.rate_rows(own), ax),
        lambda own, ax: curve_plots.task_grid(curves.grid_rows(own), ax),
        lambda own, ax: difference_plots.forest(contrasts(own), ax),
    ):
        figure = Figure()
        FigureCanvasAgg(figure)
        draw(runs, figure.subplots())
        figure.canvas.draw()  # which is where a formula would be read
        assert any("foo" in text.get_text() for text in figure.findobj(Text))


@given(st.text("aW- $\\_^{", max_size=60), st.floats(0.3, 2))
def test_a_folded_text_is_as_narrow_as_asked_and_has_every_letter(text: str, width: float) -> None:
    found = folded(text, width)
    assert extent([found])[0] <= width
    assert packed(found.replace(r"\$", "$")) == packed(text)


def packed(text: str) -> str:
    return re.sub(r"\s", "", text)


def inches(ax: Axes) -> tuple[float, float]:
    box = ax.get_window_extent()
    return box.width / ax.figure.dpi, box.height / ax.figure.dpi


def nothing_is_cut_off_or_covered(one: Figured) -> Axes:
    figure = one.draw(one.caption)
    figure.canvas.draw()
    (note,) = [text for text in figure.texts if text.get_gid() == "caption"]
    (ax,) = figure.axes
    whole, below = figure.bbox, note.get_window_extent()
    shown = [
        text
        for axis in (ax.xaxis, ax.yaxis)
        for text, at in zip(axis.get_ticklabels(), axis.get_ticklocs(), strict=True)
        if min(axis.get_view_interval()) <= at <= max(axis.get_view_interval())
    ]
    labels = [*shown, ax.xaxis.label, ax.yaxis.label, *(ax.texts if one.kind not in ("frontier", "progress") else ())]
    boxes = [text.get_window_extent() for text in labels if text.get_text()]
    boxes += [legend.get_window_extent()] if (legend := ax.get_legend()) and one.kind != "progress" else []
    for box in (*boxes, below):
        assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1
    assert not [box for box in boxes if box.overlaps(below)]
    assert not [1 for one, other in combinations(boxes, 2) if one.overlaps(other)]
    return ax


def test_captions_say_n_the_interval_and_how_rates_were_chosen(runs: list[Run], tmp_path: Path) -> None:
    how = "chosen on validation among 0.001, 0.003, 0.01 for each method at its middle size (seed 1000)"
    assert how_chosen(runs) == how
    for one in figures(runs, kinds=["frontier", "contrasts", "grid", "aggregates"]):
        assert how in one.caption
        assert ("3 seeds" in one.caption or "paired over seeds" in one.caption) and "95 %" in one.caption
    (rates, _) = figures(runs, kinds=["rates"])
    assert "without intervals" in rates.caption and "lie beyond" not in rates.caption
    few = [run for run in runs if not (run.row["method"] == "vera" and run.row["lr"] == 1e-2)]
    assert figures(few, kinds=["rates"])[0].caption.endswith("lie beyond it, for VeRA.")
    write_synthetic(tmp_path, named="lora")
    assert how_chosen(load_runs(tmp_path)) == "as given"


def test_one_seed_is_told_from_several(tmp_path: Path) -> None:
    for name, accuracy in (("lora", 0.7), ("cp", 0.8)):
        write_synthetic(tmp_path, parameterization=name, accuracy=accuracy, budget=1000)
    contrast, grid = figures(load_runs(tmp_path), kinds=["contrasts", "grid"])
    assert "paired over test examples of one seed. Filled: p < 0.05 (of one seed over test examples alone: McNemar" in (
        contrast.caption
    )
    assert "Holm" not in contrast.caption
    assert "tiny-model: test score of one seed, without interval." in grid.caption and "±" not in grid.caption
    for one in (contrast, grid):
        assert "nan" not in one.save(tmp_path / "out")[2].read_text()
    write_synthetic(tmp_path, parameterization="cp", seed=1, budget=1000)
    (grid,) = figures(load_runs(tmp_path), kinds=["grid"])
    assert "over 1 or 2 seeds, ± half of its 95 % t interval where there are several." in grid.caption
    write_synthetic(tmp_path, parameterization="lora", seed=1, budget=1000)
    (contrast,) = figures(load_runs(tmp_path), kinds=["contrasts"])
    assert "paired over seeds and test examples. Filled: p < 0.05. Learning" in contrast.caption


def test_a_frontier_says_what_is_missing_of_its_own_task_and_nothing_where_all_is_there(runs: list[Run]) -> None:
    here = len(runs) // 2
    assert here == 4 * 3 * 3 + 4 * 3 + 3  # reported, tuning, head
    some = figures(runs, kinds=["frontier"], totals={"sst2": here, "stsb": here + 5}, failed={Path("a"): "stsb"})
    assert "artial" not in some[0].caption and "failed" not in some[0].caption
    assert f"Partial: {here} of {here + 5} runs finished, 1 failed, tuning included." in some[1].caption
    over = figures(
        runs,
        kinds=["frontier"],
        totals={"sst2": here + 1, "stsb": here + 2},
        failed=dict.fromkeys([Path("a"), Path("b")], "stsb"),
    )
    assert f"Partial: {here} of {here + 1} runs finished, tuning included." in over[0].caption
    assert "artial" not in over[1].caption and over[1].caption.endswith("2 runs failed, tuning included.")


def test_rank_curves_show_each_mean_and_refuse_budgets(runs: list[Run], tmp_path: Path) -> None:
    ranks = write_many(tmp_path, {"cp": [(1, 10, 0.7), (4, 20, 0.8)], "lora": [(2, 30, 0.8)]}, at_chance=["lora"])
    rows = curves.rank_rows(ranks)
    ax = curve_plots.rank_curves(rows)
    drawn = [np.asarray(line.get_xydata()).tolist() for line in ax.lines]
    low, high = strip(ax)[1], ax.get_ylim()[1]
    for row in (row for row in rows if row["method"] != "LoRA"):
        assert [[row["rank"], row["mean"]]] in drawn
        assert [[row["rank"], max(row["low"], low)], [row["rank"], min(row["high"], high)]] in drawn
    ((rank, height),) = hollow(ax)
    assert rank == 2 and strip(ax)[0] < height < low
    assert list(ax.get_xticks()) == [1, 2, 4]
    with pytest.raises(TensorAdaptError, match="metatt-4d has a budget; expected methods with ranks that are numbers"):
        curves.rank_rows([run for run in runs if run.row["task"] == "sst2"])


def test_no_method_hides_the_interval_of_another_at_its_rank(tmp_path: Path) -> None:
    same = [(1, 10, 0.7), (4, 20, 0.7)]
    ax = curve_plots.rank_curves(curves.rank_rows(write_many(tmp_path, {"cp": same, "lora": same, "tt": same})))
    ax.figure.canvas.draw()
    bars = [line for line in ax.lines if line.get_zorder() == 2.5]
    at = sorted(line.get_transform().transform(line.get_xydata())[0, 0] * 72 / ax.figure.dpi for line in bars)
    apart = at[1] - at[0]
    assert np.diff(at) == pytest.approx([apart, apart, at[3] - at[2], apart, apart]) and 6 < apart < at[3] - at[2]
    low, high = ax.get_ylim()
    assert all(low <= y <= high for bar in bars for y in bar.get_ydata())


def test_rate_curves_ring_the_rate_that_the_reported_runs_have(runs: list[Run]) -> None:
    own = [run for run in runs if run.row["task"] == "sst2"]
    rows = curves.rate_rows(own)
    assert [(row["method"], row["lr"]) for row in rows if row["chosen"]] == [(name, 3e-3) for name in sorted(LEVELS)]
    rings = [line for line in curve_plots.rate_curves(rows).lines if line.get_gid() == "chosen"]
    assert [tuple(ring.get_xydata()[0]) for ring in rings] == [
        (row["lr"], row["validation"]) for row in rows if row["chosen"]
    ]
    with pytest.raises(TensorAdaptError, match="no learning rate was tuned"):
        curves.rate_rows([run for run in own if not run.row["tuning"]])


def test_a_legend_of_many_methods_fits_into_its_figure() -> None:
    names = ["cara", "fact-tt", "frozen base + head", "lora", "lorta", "lotr", "metatt-4d", "tucker", "vera"]
    rows = [
        {"method": name, "lr": lr, "validation": 0.5, "chosen": False, "at_chance": False}
        for name in names
        for lr in RATES
    ]
    with mpl.rc_context(RC):
        ax = curve_plots.rate_curves(rows)
        ax.figure.canvas.draw()
    box, whole = ax.get_legend().get_window_extent(), ax.figure.bbox
    assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and box.y1 <= whole.y1
    assert ax.get_window_extent().width > 0.75 * whole.width


def tuning(root: Path, rates: dict[str, tuple[float, ...]], **more: object) -> list[Run]:
    """Runs that tune methods, and for each a run that is reported."""
    for name, tried in rates.items():
        same = {"parameterization": name, "named": name, "budget": None}
        write_synthetic(root, lr=tried[0], **same)
        for i, lr in enumerate(tried):
            size = {"rank": 1 + i % 2 if more.get("sizes") else 4}
            write_synthetic(root, lr=lr, seed=1000, tuning=True, accuracy=0.9 - 0.1 * lr, **same, **size)
    return load_runs(root)


def test_a_search_is_told_by_its_range_not_by_every_rate(tmp_path: Path) -> None:
    rates = tuple((i + 1) / 1000 for i in range(12))
    assert how_chosen(tuning(tmp_path, {"cp": rates})) == (
        "chosen on validation among 12 rates from 0.001 to 0.012 for each method at its middle size (seed 1000)"
    )


def test_rates_are_said_to_be_those_of_each_method(tmp_path: Path) -> None:
    own = {"cp": (1e-3, 1e-2), "lora": (1e-2, 1e-1), "tt": (1e-2, 1e-1)}
    assert how_chosen(tuning(tmp_path / "own", own)) == (
        "chosen on validation among each method's own rates (CP 0.001, 0.01; LoRA, Tensor-train 0.01, 0.1) at its "
        "middle size (seed 1000)"
    )
    many = {name: (1e-3, 1e-2 + 1e-3 * i) for i, name in enumerate("abcd")}
    assert "among each method's own rates, 0.001 to 0.013, at its middle" in how_chosen(tuning(tmp_path / "many", many))
    write_synthetic(tmp_path / "given", parameterization="vera", named="vera", lr=5e-3)
    assert how_chosen(tuning(tmp_path / "given", {"cp": (1e-3, 1e-2)})) == (
        "as given for VeRA, and chosen on validation among 0.001, 0.01 for each other method at its middle size "
        "(seed 1000)"
    )


def test_a_search_over_sizes_has_no_middle_one_and_no_end(tmp_path: Path) -> None:
    rates = {"cp": (1e-3, 1e-2, 1e-1)}
    (sized,) = figures(tuning(tmp_path / "sizes", rates, sizes=True), kinds=["rates"])
    (grid,) = figures(tuning(tmp_path / "grid", rates), kinds=["rates"])
    assert "over the sizes searched" in sized.caption and "at the method's middle size" in grid.caption
    assert "lie beyond" not in sized.caption and grid.caption.endswith("lie beyond it, for CP.")
    assert how_chosen(load_runs(tmp_path / "sizes")).endswith("for each method over the sizes searched (seed 1000)")


@pytest.mark.parametrize("rates", [[1.2e-4, 0.0015, 0.04144, 0.04529], [1e-3 + i / 7000 for i in range(40)]])
def test_rates_that_are_close_have_ticks_and_the_first_of_them_a_number(rates: list[float]) -> None:
    rows = [{"method": "lora", "lr": lr, "validation": 0.5, "chosen": False, "at_chance": False} for lr in rates]
    ax = curve_plots.rate_curves(rows)
    ax.figure.canvas.draw()
    boxes = [text.get_window_extent() for text in ax.get_xticklabels()]
    assert not [1 for one, other in combinations(boxes, 2) if one.overlaps(other)]
    assert sorted([*ax.get_xticks(), *ax.get_xticks(minor=True)]) == rates
    assert ax.get_xticklabels()[0].get_text() == f"{rates[0]:g}" and len(boxes) > 2
    assert [text.get_text() for text in ax.get_xticklabels(minor=True)] == [""] * (len(rates) - len(boxes))


def test_a_damaged_run_is_no_reason_to_leave_a_figure_out(tmp_path: Path) -> None:
    ranks = write_many(tmp_path, {"cp": [(1, 10, 0.7), (2, 20, 0.8)]})
    (broken := ranks[0]).row["test"] = None
    with pytest.raises(TensorAdaptError, match=f"run {broken.name} .* has no test accuracy"):
        figures(ranks, kinds=["ranks"])


def test_the_grid_has_each_mean_in_its_cell_darker_further_from_chance(runs: list[Run]) -> None:
    rows = curves.grid_rows(runs)
    assert len(rows) == 2 * (4 * 3 + 1)
    ax = curve_plots.task_grid(rows)
    texts = [text.get_text() for text in ax.texts]
    assert texts == [f"{row['mean']:.3f} ±{(row['high'] - row['low']) / 2:.3f}" for row in rows]
    shades = [patch.get_facecolor()[0] for patch in ax.patches]
    order = np.argsort([row["gain"] for row in rows], kind="stable")
    assert list(np.diff(np.array(shades)[order]) <= 1e-9) == [True] * (len(rows) - 1)
    assert np.ptp(shades) > 0.05
    bold = [text for text in ax.texts if text.get_fontweight() == "bold"]
    assert [text.get_text()[:5] for text in bold] == [
        f"{max(row['mean'] for row in rows if row['task'] == task):.3f}" for task in ("sst2", "stsb")
    ]


def test_the_grid_stars_each_row_of_which_a_run_was_lost(tmp_path: Path) -> None:
    for kind, status in (("adapter", "diverged"), ("head", "at chance"), ("full", "finished")):
        for seed in (0, 1):
            write_synthetic(tmp_path, kind=kind, seed=seed, status=status if seed else "finished", accuracy=0.5)
    rows = curves.grid_rows(load_runs(tmp_path))
    assert {row["method"]: row["at_chance"] for row in rows} == {
        "CP (LoRTA)": 1,
        "frozen base + head": 1,
        "full fine-tuning": 0,
    }
    assert [text.get_text()[-1] == "*" for text in curve_plots.task_grid(rows).texts] == [True, True, False]


def test_progress_counts_what_finished_and_marks_what_was_resumed(runs: list[Run]) -> None:
    rows = curves.progress_rows(curves.read_attempts(runs))
    assert rows[-1]["finished"] == len(runs) and rows[0]["hours"] == 0
    assert [row["run"] for row in rows if row["event"] == "resumed"] == [runs[5].name]
    ax = curve_plots.progress(rows, total=200)
    assert [line.get_xydata()[0].tolist() for line in ax.lines if line.get_gid() == "resumed"] == [[5, 5]]
    assert ax.get_xlabel().startswith("minutes")
    assert [text.get_text() for text in ax.texts] == ["200 runs"]


def test_progress_marks_runs_that_failed_where_their_folders_are_given(tmp_path: Path) -> None:
    runs, folder = sweep(tmp_path, ("sst2",), (0,)), tmp_path / "failed"
    folder.mkdir()
    (folder / "attempts.jsonl").write_text('{"event": "started", "time": 0}\n{"event": "failed", "time": 60}\n')
    assert folder.name not in curves.read_attempts(runs)
    rows = curves.progress_rows(curves.read_attempts(runs, [folder]))
    assert rows[-1]["finished"] == len(runs)
    (cross,) = [line for line in curve_plots.progress(rows).lines if line.get_gid() == "failed"]
    assert cross.get_xydata().tolist() == [[1, 1]] and cross.get_label() == "1 failed"


def test_attempts_that_were_cut_off_are_left_out(tmp_path: Path) -> None:
    runs = sweep(tmp_path, ("sst2",), (0,))
    whole = curves.read_attempts(runs)
    file = runs[0].path / "attempts.jsonl"
    for left in (b'{"event": "sta', b'{"event": "started"}', b'[1, "time"]', b"7", b"", "{\u00e9".encode()[:-1]):
        file.write_bytes(b'{"event": "started", "time": 0}\n' + left)
        found = curves.read_attempts(runs)
        assert found == whole | {runs[0].name: [{"event": "started", "time": 0.0}]}
        assert curves.progress_rows(found)[-1]["finished"] == len(runs) - 1
    assert curves.progress_rows({}) == []


def test_the_summary_is_of_gains_over_tasks_and_needs_all_of_them(runs: list[Run], tmp_path: Path) -> None:
    rows = over_tasks.summary_rows(runs)
    assert len(rows) == 4 * 3 and {row["reference"] for row in rows} == {"lora"}
    lorta = next(row for row in rows if (row["method"], row["size"]) == ("lorta", "n≤30,000"))
    behind = [
        [run.row["test"] for run in runs if (run.row["task"], run.row["method"]) == (task, "lorta")
         and run.row["budget"] == 30_000 and not run.row["tuning"]]
        for task in ("sst2", "stsb")
    ]  # fmt: skip
    found = stratified_bootstrap(iqm, (np.array(behind) - 0.5) / 0.5)
    assert lorta["iqm"] == pytest.approx(found.mean) and lorta["better"] > 0.8
    own = {run.name: run.row for run in runs if run.name in lorta["runs"].split()}
    assert {(one["method"], one["budget"], one["tuning"]) for one in own.values()} == {("lorta", 30_000, False)}
    assert len(own) == len(lorta["runs"].split()) == 2 * 3
    assert [row["better"] for row in rows if row["method"] == "lora"] == [None] * 3
    ax = difference_plots.aggregates(rows)
    assert sorted(line.get_xdata()[0] for line in ax.lines if line.get_marker() == "o") == sorted(
        r["iqm"] for r in rows
    )
    lost = [run for run in runs if (run.row["task"], run.row["method"]) != ("sst2", "vera")]
    assert {row["method"] for row in over_tasks.summary_rows(lost)} == set(LEVELS) - {"vera"}
    assert over_tasks.summary_rows(sweep(tmp_path / "two", seeds=(0, 1))) == []
    assert over_tasks.summary_rows([run for run in runs if run.row["task"] == "sst2"]) == []


def test_a_frontiers_area_counts_decades_up_to_twice_the_largest_size(tmp_path: Path) -> None:
    runs = write_many(tmp_path, {"cp": [(1, 100, 0.7), (2, 1000, 0.8)]}, spread=0)
    rows = over_tasks.volume_rows(runs)
    assert set(rows[0]["runs"].split()) == {run.name for run in runs if run.row["kind"] == "adapter"}
    assert rows[0]["volume"] == pytest.approx(0.2 * 1 + 0.3 * np.log10(2), rel=1e-6)
    assert (rows[0]["reference_cost"], rows[0]["reference_score"]) == (2000, 0.5)


def test_a_reference_that_a_task_lacks_is_left_out_there_and_one_that_no_run_has_is_refused(runs: list[Run]) -> None:
    lost = [run for run in runs if (run.row["task"], run.row["method"]) != ("stsb", "vera")]
    found = figures(lost, kinds=["contrasts", "aggregates"], reference="vera")
    assert [one.name for one in found] == ["sst2-contrasts", "aggregates"]
    assert {row["second"] for row in found[0].rows} == {"vera"}
    assert "probability" not in found[1].caption and {row["better"] for row in found[1].rows} == {None}
    assert found[1].draw(found[1].caption).axes
    for kind in ("contrasts", "progress"):
        with pytest.raises(TensorAdaptError, match="reference is 'veera'; did you mean \"vera\""):
            figures(lost, kinds=[kind], reference="veera")
    with pytest.raises(TensorAdaptError, match="reference is 'veera'"):
        over_tasks.summary_rows(lost, "veera")


def test_an_unknown_figure_or_cost_is_refused_and_nothing_cannot_be_drawn(runs: list[Run]) -> None:
    with pytest.raises(TensorAdaptError, match="figure is 'frontiers'; did you mean \"frontier\""):
        figures(runs, kinds=["frontiers"])
    for kind in ("frontier", "contrasts"):
        with pytest.raises(TensorAdaptError, match="cost is 'second'; did you mean \"seconds\""):
            figures(runs, kinds=[kind], cost="second")
    for draw in (curve_plots.rank_curves, curve_plots.rate_curves, curve_plots.task_grid, curve_plots.progress):
        with pytest.raises(TensorAdaptError, match="there is nothing to draw"):
            draw([])
    with pytest.raises(TensorAdaptError, match="there are no rows to draw"):
        difference_plots.aggregates([])


def test_axes_are_ones_own(runs: list[Run]) -> None:
    figure = Figure()
    FigureCanvasAgg(figure)
    ax = figure.subplots()
    assert curve_plots.progress(curves.progress_rows(curves.read_attempts(runs)), ax) is ax
    assert curve_plots.task_grid(curves.grid_rows(runs), ax) is ax


def hollow(ax: Axes) -> list[list[float]]:
    lines = [line for line in ax.lines if line.get_gid() == "mean" and line.get_markerfacecolor() == "#ffffff"]
    return [line.get_xydata()[0].tolist() for line in lines]


def grid_row(method: str, size: str, mean: float, gain: float = 0.5) -> dict[str, object]:
    return {"method": method, "size": size, "task": "rte", "metric": "accuracy", "mean": mean, "gain": gain,
            "low": mean - 0.01, "high": mean + 0.01, "n": 3, "at_chance": 0}  # fmt: skip


def bold(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.texts if text.get_fontweight() == "bold"]


def test_a_grid_bolds_no_mean_that_ties_or_is_at_chance() -> None:
    rows = [grid_row("cp", "r=1", 0.7), grid_row("lora", "r=1", 0.8)]
    assert bold(curve_plots.task_grid(rows)) == ["0.800 ±0.010"]
    assert bold(curve_plots.task_grid([*rows, grid_row("vera", "r=1", 0.8)])) == []
    assert bold(curve_plots.task_grid([grid_row("cp", "r=1", 0.5, 0.0), grid_row("lora", "r=1", 0.4, -0.2)])) == []


def test_the_rows_of_a_grid_are_in_groups() -> None:
    def names(rows: list[dict[str, object]]) -> tuple[list[str], int]:
        ax = curve_plots.task_grid(rows)
        return [label.get_text() for label in ax.get_yticklabels()], len(ax.lines)

    ranks = [grid_row(name, f"r={r}", 0.7) for r in (1, 4) for name in ("cp", "lora")]
    head = grid_row("frozen base + head", "", 0.6)
    assert names([head, *ranks]) == (["CP  r=1", "CP  r=4", "LoRA  r=1", "LoRA  r=4", "frozen base + head"], 2)
    budgets = [grid_row(name, f"n≤{n}", 0.7) for n in (10, 20) for name in ("cp", "lora")]
    assert names(budgets) == (["CP  n≤10", "LoRA  n≤10", "CP  n≤20", "LoRA  n≤20"], 1)


@pytest.mark.parametrize(("hours", "unit", "last"), [(0.01, "seconds", 36), (1.5, "minutes", 90), (30, "hours", 30)])
def test_progress_is_in_the_unit_that_suits_it(hours: float, unit: str, last: float) -> None:
    rows = [{"hours": at, "event": "finished", "run": "a", "finished": i} for i, at in enumerate((0.0, hours))]
    ax = curve_plots.progress(rows)
    assert ax.get_xlabel() == f"{unit} since the first run started"
    assert ax.lines[0].get_xdata()[-1] == pytest.approx(last)
