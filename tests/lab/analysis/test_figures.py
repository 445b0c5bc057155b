"""Every file of ``plots``: what is drawn is true, nothing is cut or covered, and what cannot be drawn is one error."""

from __future__ import annotations

import itertools
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D
from matplotlib.markers import CARETDOWN, CARETLEFT, CARETRIGHT, CARETUP
from support.means import runs_of
from support.refusals import refused
from support.texts import faults, shown

from tensoradapt.lab.analysis import plots
from tensoradapt.lab.analysis.names import display, looks
from tensoradapt.lab.analysis.page.svg import contrast
from tensoradapt.lab.analysis.plots._parts import said
from tensoradapt.lab.analysis.results import table_of
from tensoradapt.lab.analysis.tables import compare, summarise

TABLES = {
    "snippets": ("results/figures/frontier.csv", None),
    "all projections": ("results/figures/frontier-all.csv", None),
    "budgets": ("examples/minilm-sweep/means.csv", "sst2"),
    "lost": ("examples/plots/tasks.csv", "cola"),
    "layouts": ("examples/layouts/means.csv", None),
    "variants": ("results/instruct/ranks/means.csv", None),
    "tasks": ("examples/plots/tasks.csv", None),
}
OF_RUNS = [name for name in plots.NAMES if plots._of_runs(plots._MODULES[name])]
SCENES = ("3.3 in", "7 in", "three", "dark")
MARKS = {"7 in": pytest.mark.nightly}  # "dark" is as wide, of one table
Table = pd.DataFrame


@cache
def allowing(label: str) -> set[str]:
    """The figures that a table can show in one axes."""
    runs = runs_of(*TABLES[label])
    several = runs["task"].nunique() > 1
    over = {name for name in OF_RUNS if getattr(plots._MODULES[name], "over_tasks", False)}
    return {name for name, why in plots.allowed(runs).items() if why is None and (name in over) >= several}


def rows_of(name: str, runs: Table, **options: Any) -> Table:
    return plots._MODULES[name].rows(table_of(runs), **options)


def scene(name: str, runs: Table, kind: str) -> list[Axes]:
    plot = plots.figure(name)
    if kind == "three":
        rows = rows_of(name, runs)
        high = max(2.6, plots._call(plots._MODULES[name].size, rows, width=7)[1])
        _, axes = pyplot.subplots(1, 3, figsize=(7, high), layout="constrained")
        return [plot(runs, ax) for ax in axes]
    with pyplot.style.context("dark_background" if kind == "dark" else "default"):
        return [plot(runs, figsize=7 if kind == "dark" else float(kind.split()[0]), headline=True, caption=True)]


def means(ax: Axes) -> list[Line2D]:
    return [line for line in ax.get_lines() if str(line.get_gid()).startswith("mean: ") and len(line.get_xdata()) == 1]


@pytest.mark.thorough
@pytest.mark.parametrize("kind", [pytest.param(kind, marks=MARKS.get(kind, ())) for kind in SCENES])
@pytest.mark.parametrize("name", OF_RUNS)
def test_a_figure_is_legible_and_no_two_methods_look_alike(name: str, kind: str) -> None:
    given = [label for label in TABLES if name in allowing(label)]
    if not given:
        pytest.skip(f"no committed table of means allows {name}")
    for label in given if kind.endswith("in") else given[:1]:
        runs = runs_of(*TABLES[label])
        for ax in scene(name, runs, kind):
            figure = ax.get_figure(root=True)
            assert not faults(figure, turned=name == "layouts"), (label, kind)
            assert ax.get_window_extent().height > 0.25 * figure.bbox.height
            names = sorted(map(display, runs["method"]), key=len)
            looked = {}
            for line in means(ax):
                own = [n for n in names if line.get_gid().startswith(f"mean: {n}")][-1:]
                looked.setdefault((to_hex(line.get_color()), line.get_marker()), set()).update(own)
            assert all(len(own) == 1 for look, own in looked.items() if look[1] not in (".", "x")), (label, kind)
            if name != "layouts":  # whose texts are on colours
                paper = ax.get_facecolor()
                assert not [t.get_text() for t in shown(ax) if contrast(t.get_color(), paper) < 3], (label, kind)
        pyplot.close("all")


@pytest.mark.thorough
@pytest.mark.parametrize("name", OF_RUNS)
def test_a_headline_is_one_line_and_no_sentence(name: str) -> None:
    for label in (label for label in TABLES if name in allowing(label)):
        headline = plots._MODULES[name].headline(rows_of(name, runs_of(*TABLES[label])))
        assert headline and not headline.endswith(".") and "\n" not in headline, label


def test_any_cost_is_an_axis_at_its_own_values() -> None:
    runs = runs_of("results/figures/frontier.csv").assign(minutes=lambda t: 10 + np.sqrt(t["n_params"]))
    ax = plots.frontier(runs, x="minutes")
    rows = summarise(runs, "minutes")
    assert sorted(line.get_xdata()[0] for line in means(ax)) == sorted(rows["cost"][rows["kind"] == "adapter"])
    assert ax.get_xlabel() == "minutes" and ax.child_axes[0].get_xlabel() == "times less than LoRA r=8"


def test_differences_at_several_numbers_of_steps_are_told_apart() -> None:
    runs = pd.DataFrame(itertools.product(("lora", "cp"), (75, 150), (0, 1)), columns=["method", "steps", "seed"])
    runs = runs.assign(n_params=runs["method"].map({"lora": 4608, "cp": 82}), rank=8, task="a", metric="accuracy")
    runs["score"] = 0.5 + runs["steps"] / 1000 + runs["seed"] / 100 + (runs["method"] == "cp") / 50
    texts = [text.get_text() for text in plots.differences(runs).get_yticklabels()]
    assert texts == ["CP  r=8, 56× fewer, 75 steps", "r=8, 56× fewer, 150 steps"]


def test_the_second_axis_says_how_many_times_fewer() -> None:
    ax = plots.frontier(runs_of("results/figures/frontier.csv"))
    (top,) = ax.child_axes
    n = 147456  # LoRA r=8
    ax.figure.canvas.draw()
    for times, text in zip(top.get_xticks(), top.get_xticklabels(), strict=True):
        first, _, second = text.get_text().rstrip("×").partition("/")
        assert times == pytest.approx(float(first) / float(second or 1))
        x = top.transData.transform((times, 0))[0]
        assert ax.transData.inverted().transform((x, 0))[0] == pytest.approx(n / times)
    assert top.get_xlabel() == "times fewer than LoRA r=8"


def test_filled_is_on_the_frontier_and_lora_is_in_ink() -> None:
    runs = runs_of("results/figures/frontier.csv")
    on = {said(row): row["on_frontier"] for _, row in summarise(runs).iterrows()}
    for line in means(plots.frontier(runs)):
        assert (to_hex(line.get_markerfacecolor()) != "#ffffff") == on[line.get_gid()]
        if "LoRA r" in line.get_gid():
            assert line.get_color() == "#000000"


@pytest.mark.thorough
def test_one_seed_has_no_interval_and_no_second_dot() -> None:
    runs = runs_of("results/figures/frontier.csv")
    ax = plots.frontier(runs[runs["seed"] == 0])
    kinds = {str(line.get_gid()).split(":")[0] for line in ax.get_lines()}
    assert not kinds & {"bar", "seed"} and "mean" in kinds
    assert "one seed" in means(ax)[0].get_gid()
    rows = compare(runs[runs["seed"] == 0])
    forest = plots.differences(runs[runs["seed"] == 0])
    assert rows["p"].isna().all() and not [line for line in forest.get_lines() if line.get_gid() == "bar"]
    text = plots._MODULES["differences"].headline(rows_of("differences", runs[runs["seed"] == 0]))
    assert text == "Nothing is decided: none of 23 differs from LoRA r=8 after Holm's correction"


@pytest.mark.thorough
def test_a_lost_run_is_a_cross_on_the_lower_edge() -> None:
    runs = runs_of("examples/plots/tasks.csv", "cola")
    ax = plots.frontier(runs)
    crosses = [line for line in ax.get_lines() if line.get_marker() == "x"]
    rows = summarise(runs)
    lost = rows[(rows["kind"] == "adapter") & (rows["n_lost"] > 0)]
    assert sorted(line.get_xdata()[0] for line in crosses) == sorted(lost["n_params"])
    assert all(y == ax.get_ylim()[0] for line in crosses for y in line.get_ydata())


def test_focus_leaves_one_method_in_colour() -> None:
    runs = runs_of("results/figures/frontier.csv")
    marks = {line.get_color() for line in means(plots.frontier(runs, focus="LOTR")) if line.get_marker() != "."}
    assert marks == {looks(runs["method"])["lotr"].colour}
    undrawn("focus is 'lotra'; did you mean \"lotr\"", runs, focus="lotra")


def test_a_forest_shows_what_compare_finds() -> None:
    runs = runs_of("results/figures/frontier.csv")
    found, ax = compare(runs, at=8, margin=0.02), plots.differences(runs, at=8, margin=0.02)
    marks = means(ax)
    assert sorted(line.get_xdata()[0] for line in marks) == sorted(found["difference"])
    filled = [line.get_xdata()[0] for line in marks if to_hex(line.get_markerfacecolor()) != "#ffffff"]
    assert sorted(filled) == sorted(found["difference"][found["decided"]])
    texts = [text.get_text() for text in ax.texts]
    assert {r"$\leftarrow$ worse", r"better $\rightarrow$"} <= set(texts)
    bold = [text.get_text() for text in ax.texts if text.get_weight() == "bold"]
    assert len(bold) == found["decided"].sum()
    assert ax.get_xlabel() == "test accuracy minus LoRA r=8"


def test_an_interval_that_is_cut_has_an_arrow_at_the_edge() -> None:
    runs = pd.DataFrame(itertools.product(("lora", "cp", "vera"), range(4)), columns=["method", "seed"])
    spread = runs["method"].map({"lora": 0, "cp": 0.01, "vera": 0.2})
    runs = runs.assign(n_params=runs["method"].map({"lora": 4608, "cp": 82, "vera": 48}), rank=8, metric="accuracy")
    runs["score"] = 0.7 + spread * (runs["seed"] - 1.5)
    found, ax = compare(runs, at=8), plots.differences(runs, at=8)
    low, high = ax.get_xlim()
    lines = [line for line in ax.get_lines() if line.get_gid() == "cut"]
    arrows = {(line.get_xdata()[0], line.get_marker(), line.get_ydata()[0]) for line in lines}
    rows = zip(found.itertuples(), ax.get_yticks(), strict=True)
    cut = [(row, y) for row, y in rows if row.low < low and row.high > high]
    assert cut and arrows == {(at, mark, y) for _, y in cut for at, mark in ((low, CARETLEFT), (high, CARETRIGHT))}


@pytest.mark.parametrize("name", ["frontier", "curves"])
def test_an_interval_longer_than_the_axes_has_arrows_at_their_edges(name: str) -> None:
    runs = pd.DataFrame(itertools.product(("lora", "cp"), (1, 8), (0, 1)), columns=["method", "rank", "seed"])
    runs = runs.assign(n_params=100 * runs["rank"] + 7 * (runs["method"] == "cp"), metric="accuracy")
    wide = (runs["method"] == "cp") & (runs["rank"] == 8)  # two seeds 0.04 apart: 0.25 on both sides of their mean
    runs["score"] = 0.7 + 0.04 * runs["seed"] * wide
    ax = getattr(plots, name)(runs)
    low, high = ax.get_ylim()
    cut = [line for line in ax.get_lines() if line.get_gid() == "cut"]
    assert {(line.get_ydata()[0], line.get_marker()) for line in cut} == {(low, CARETDOWN), (high, CARETUP)}
    (x,) = {line.get_xdata()[0] for line in cut}
    assert x == {"frontier": 807, "curves": 8}[name]
    assert all(low <= y <= high for line in ax.get_lines() if line.get_gid() == "bar" for y in line.get_ydata())


def test_headlines_say_what_is_kept_and_what_is_decided() -> None:
    def told(name: str, file: str, task: str | None = None, **options: Any) -> str:
        return plots._MODULES[name].headline(rows_of(name, runs_of(file, task), **options))

    kept = "LoRA r=2 keeps 91 % of full fine-tuning's gain with 36,864 parameters"
    assert told("frontier", "results/figures/frontier.csv") == kept
    assert told("frontier", "examples/minilm-sweep/means.csv", "sst2").startswith("Nothing is decided")
    one = "(74,304 parameters, 0.820); 1 of 22 is below LoRA r=8, decided after Holm's correction"
    assert told("frontier", "examples/around/means.csv").endswith(one)
    assert told("frontier", "results/headline/small/records.csv").endswith(
        "6 of 6 are below LoRA r=8, decided after Holm's correction"
    )
    assert told("frontier", "results/glue/records.csv").endswith("0.868); nothing is decided by it")
    below = "13 of 23 are below LoRA r=8, decided after Holm's correction"
    assert told("differences", "results/figures/frontier.csv") == below
    assert told("differences", "examples/minilm-sweep/means.csv", "sst2").startswith("Nothing is decided: none of 21")
    assert told("layouts", "examples/layouts/means.csv").startswith("Nothing is decided")


@pytest.mark.thorough
def test_small_multiples_have_one_legend_and_shared_axes() -> None:
    runs = runs_of("results/figures/frontier.csv")
    axes = plots.frontier(runs, col="method")
    assert len({ax.get_ylim() for ax in axes}) == 1 and not faults(axes[0].figure)
    assert [ax.get_title(loc="left") for ax in axes] == [
        "CP (LoRTA)", "LoRA", "Tensor-train", "Tucker", "VeRA", "LoTR",
    ]  # fmt: skip
    tasks = runs_of("examples/plots/tasks.csv").query("task != 'mrpc'")
    axes = plots.frontier(tasks, col="task", headline=True, caption=True)
    legends = [ax.get_legend() for ax in axes[0].figure.axes if ax.get_legend()]
    assert len(legends) == 1 and len(axes) == 4
    assert not [fault for fault in faults(axes[0].figure) if "edge" not in fault]
    colours: dict[str, set[str]] = {}
    for ax in axes:
        for line in means(ax):
            colours.setdefault(line.get_gid().split(" r=")[0], set()).add(to_hex(line.get_color()))
    assert all(len(own) == 1 for own in colours.values())


@pytest.mark.thorough
def test_files_of_a_figure_have_its_rows_and_its_sentences(tmp_path: Path) -> None:
    runs = runs_of("examples/plots/tasks.csv").query("task in ['sst2', 'rte']")
    paths = plots.save(runs, "frontier", tmp_path / "out", ("png", "svg", "pdf"), 7)
    assert {path.name for path in paths} == {f"frontier.{end}" for end in ("png", "svg", "pdf", "csv", "txt")}
    assert all(path.stat().st_size > 100 for path in paths)
    assert set(pd.read_csv(tmp_path / "out/frontier.csv")["task"]) == set(runs["task"])
    text = (tmp_path / "out/frontier.txt").read_text()
    assert "sst2: LoRA r=1 keeps 93 % of" in text and "Means over 3 seeds" in text and "39 runs" in text
    one, two = (plots.save(runs, "frontier", tmp_path / place, ("svg",))[0].read_bytes() for place in "ab")
    assert (one == two) is True
    plots.save(runs, "differences", tmp_path, ("png",))  # of one task alone, as the other has one configuration
    assert set(pd.read_csv(tmp_path / "differences.csv")["task"]) == {"sst2"}
    assert "do not allow the figure: rte." in (tmp_path / "differences.txt").read_text()
    assert not pyplot.get_fignums()


def undrawn(message: str, *args: Any, name: str = "frontier", **options: Any) -> None:
    refused(lambda: plots.figure(name)(*args, **options), re.escape(message))


def test_what_cannot_be_drawn_is_one_line() -> None:
    runs = runs_of("results/figures/frontier.csv")
    tasks = runs_of("examples/plots/tasks.csv")
    undrawn("frontier has no option 'baselin'; did you mean \"baseline\"? Valid: x, focus", runs, baselin=None)
    undrawn(
        'the runs are of 5 tasks (cola, mrpc, rte, sst2, stsb), which one panel cannot compare; give col="task"', tasks
    )
    undrawn("no column 'method'; found ", runs.rename(columns={"method": "methd"}))
    undrawn("expected a finite number", runs.assign(score=np.nan))
    undrawn("x is 'n_param'; did you mean \"n_params\"?", runs, x="n_param")
    undrawn("no run is of an adapter", runs[runs["kind"] != "adapter"])
    undrawn("less is better", runs.assign(metric="perplexity"))
    undrawn("col is 'tasks'; did you mean \"task\"?", tasks, col="tasks")
    undrawn("figsize is 'wide'; expected inches as (width, height), or a width", runs, figsize="wide")
    undrawn("caption is for a figure of its own", runs, pyplot.figure().subplots(), caption=True)
    undrawn("there is nothing to compare", runs[(runs["method"] == "LoRA") & (runs["rank"] == 8)], name="differences")
    undrawn("no parameterization ran over two layouts at one size", runs, name="layouts")
    with pytest.raises(AttributeError, match="there is no figure 'fronteer'; did you mean"):
        plots.fronteer  # noqa: B018
    refused(lambda: plots.save(runs, "frontier", "out", ["gif"]), "unknown format 'gif'")
    refused(
        lambda: plots.save(runs, "network", "out"), "network has no table behind it to save; expected another figure"
    )
    refused(
        lambda: plots.save(runs, "frontier", "out.pdf"), "the folder of figures is 'out.pdf', the name of a picture"
    )


@pytest.mark.parametrize("only", [{"method": "lotr"}, {"seed": 0}, {"rank": 1}])
def test_a_table_of_little_is_drawn(only: dict[str, Any]) -> None:
    runs = runs_of("results/figures/frontier.csv")
    for column, value in only.items():
        runs = runs[runs[column] == value]
    ax = plots.frontier(runs, headline=True, caption=True)
    assert means(ax) and not faults(ax.figure)


def test_layouts_are_panels_and_lora_is_the_reference_in_each() -> None:
    rng = np.random.default_rng(0)
    cells = itertools.product(("cp", "lora"), (": out : in", "layer : out : in"), (1, 8), (0, 1, 2))
    runs = pd.DataFrame(cells, columns=["parameterization", "layout", "rank", "seed"])
    runs["method"] = runs["parameterization"] + " over " + runs["layout"]
    runs = runs.assign(n_params=100 * runs["rank"], score=0.8 + 0.01 * rng.standard_normal(len(runs)))
    head = pd.DataFrame({"method": "frozen base + head", "seed": [0, 1, 2], "n_params": 0, "score": 0.7})
    every = pd.concat([runs, head])
    for name in ("differences", "frontier"):
        axes = plots.figure(name)(every, col="layout")
        assert [ax.get_title(loc="left") for ax in axes] == [": out : in", "layer : out : in"]
    assert plots.differences(every).get_xlabel() == "test score minus LoRA r=8"
    drawn = plots.layouts(every, reference="lora", headline=True, caption=True).figure
    assert "LoRA (framed) of the same size and layout" in drawn._supxlabel.get_text().replace("\n", " ")


def test_a_table_says_which_figures_it_allows_and_why_not_others() -> None:
    found = plots.allowed(runs_of("results/figures/frontier.csv"))
    assert found["frontier"] is None and found["differences"] is None
    assert "no parameterization ran over two layouts at one size" in found["layouts"]
    runs = runs_of("results/figures/frontier.csv")
    for none in (runs.assign(status="failed"), runs.assign(tuning=True)):
        assert "every run failed or chose a rate" in plots.allowed(none)["learning"]


@pytest.mark.thorough
def test_a_formula_in_a_name_is_shown_as_its_letters() -> None:
    runs = runs_of("results/figures/frontier.csv").replace({"method": {"lotr": "My $x_1$ method", "Tucker": "$"}})
    for name in ("frontier", "differences"):
        plots.figure(name)(runs, headline=True).figure.canvas.draw()
    assert r"My \$x_1\$ method r=64" in [text.get_text() for text in plots.frontier(runs).texts]


def test_a_loss_below_the_margin_that_is_decided_is_not_called_nothing() -> None:
    runs = pd.DataFrame({"method": ["lora"] * 6 + ["cp"] * 12, "seed": [*range(6)] * 3, "metric": "accuracy"})
    runs = runs.assign(rank=[8] * 6 + [1] * 6 + [2] * 6, n_params=[9216] * 6 + [82] * 6 + [164] * 6)
    runs["score"] = 0.7 + 0.001 * np.sin(7 * np.arange(18))
    said = plots._MODULES["differences"].headline(rows_of("differences", runs))
    assert said.startswith("None of 2 differs from LoRA r=8 after Holm's correction; CP r=1, 112× fewer, loses less")


@pytest.mark.parametrize(
    ("apart", "said"),
    [
        (-0.05, "CP r=1, 112× fewer, is below LoRA r=8, which is decided"),
        (0.05, "CP r=1, 112× fewer, is above LoRA r=8, which is decided; that it loses less than 0.01 is decided"),
        (0.0, "CP r=1, 112× fewer, is not told apart from LoRA r=8; that it loses less than 0.01 is decided"),
    ],
)
def test_one_difference_is_told_without_a_count_or_a_correction(apart: float, said: str) -> None:
    seeds = range(6)
    runs = pd.DataFrame({"method": ["lora"] * 6 + ["cp"] * 6, "seed": [*seeds, *seeds], "metric": "accuracy"})
    runs = runs.assign(rank=[8] * 6 + [1] * 6, n_params=[9216] * 6 + [82] * 6)
    runs["score"] = 0.7 + apart * (runs["method"] == "cp") + 0.001 * np.sin(7 * np.arange(12))
    rows = rows_of("differences", runs)
    module = plots._MODULES["differences"]
    assert module.headline(rows) == said
    text = module.caption(table_of(runs), rows)
    assert "Holm" not in text and "Bonferroni" not in text and ("which holds" in text) == ("which is decided" in said)


def test_an_interval_little_longer_than_the_seeds_is_shown_whole() -> None:
    cp, lora = (0.8555, 0.8564, 0.8601, 0.8635, 0.8727), (0.8637, 0.8658, 0.8681, 0.8693, 0.8726)
    rows = [("cp", 37, score, i) for i, score in enumerate(cp)] + [("lora", 147, s, i) for i, s in enumerate(lora)]
    ax = plots.frontier(pd.DataFrame(rows, columns=["method", "n_params", "score", "seed"]).assign(metric="accuracy"))
    assert not [line for line in ax.get_lines() if line.get_gid() == "cut"]
    low, high = ax.get_ylim()
    assert low > 0.84 and high < 0.88, "and they take no more room than that"


def test_the_headline_of_a_frontier_is_beside_loras_largest_size_where_it_has_no_rank_8() -> None:
    def told(method: str, rank: int | None, gain: float) -> str:
        scores = [(0.70, 0.71, 0.69, 0.705), tuple(x + gain for x in (0.70, 0.709, 0.692, 0.705))]
        runs = pd.DataFrame(
            {"method": name, "rank": r, "n_params": n, "seed": seed, "score": score}
            for name, r, n, own in ((method, rank, 9000, scores[0]), ("cp", 2, 100, scores[1]))
            for seed, score in enumerate(own)
        )
        return plots._MODULES["frontier"].headline(plots._MODULES["frontier"].rows(runs))

    assert told("lora", 4, 0.1).endswith("; 1 of 1 is above LoRA r=4, decided after Holm's correction")
    assert told("lora", None, 0.1).endswith(
        "; 1 of 1 is above LoRA (9,000 parameters), decided after Holm's correction"
    )
    assert told("lora", 4, 0.0).endswith("; no difference from LoRA r=4 is decided")
    assert "decided" not in told("tucker", 4, 0.1)
