"""Every file of ``plots``: what is drawn is true, nothing is cut or covered, and what cannot be drawn is one error."""

from __future__ import annotations

import re
import sys
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
from matplotlib.markers import CARETDOWN
from support.figures import faults, shown
from support.refusals import refused

from tensoradapt.lab.analysis import plots
from tensoradapt.lab.analysis.comparisons import compare
from tensoradapt.lab.analysis.names import display
from tensoradapt.lab.analysis.page.svg import contrast
from tensoradapt.lab.analysis.results import table_of
from tensoradapt.lab.analysis.verdict import verdict

DOCS = Path(__file__).parents[3] / "docs"
sys.path.insert(0, str(DOCS / "make"))
import draw_figures  # noqa: E402

TABLES = {
    "snippets": ("results/figures/frontier.csv", None),
    "all projections": ("results/figures/frontier-all.csv", None),
    "budgets": ("examples/minilm-sweep/means.csv", "sst2"),
    "lost": ("results/figures/tasks.csv", "cola"),
    "layouts": ("examples/layouts/means.csv", None),
    "variants": ("results/instruct/ranks/records.csv", None),
    "tasks": ("results/figures/tasks.csv", None),
}
OTHERS = {  # of figures that none of these allows
    "aggregates": "results/figures/ranking.csv",
    "learning": "examples/learning/runs.csv",
    "forgetting": "examples/forgetting/runs.csv",
}
OF_RUNS = [name for name in plots.NAMES if plots._of_runs(plots._MODULES[name])]
SCENES = ("3.3 in", "7 in", "three", "dark")
MARKS = {"7 in": pytest.mark.nightly}  # "dark" is as wide, of one table
Table = pd.DataFrame


@cache
def _read(name: str) -> Table:
    return table_of(draw_figures.read(DOCS / name))


def runs_of(name: str, task: str | None = None) -> Table:
    """The runs of a file below docs: one for each score of means (a star: lost), of one task or all."""
    runs = _read(name)
    return runs.copy() if task is None else runs[runs["task"] == task].reset_index(drop=True)


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
    given = [TABLES[label] for label in TABLES if name in allowing(label)] or [(OTHERS[name], None)]
    for label in given if kind.endswith("in") else given[:1]:
        runs = runs_of(*label)
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


def test_filled_is_shown_to_lose_less_and_bars_are_paired() -> None:
    runs = runs_of("results/headline/records.csv")
    found, ax = verdict(runs).set_index("n_params"), plots.frontier(runs)
    (reference,) = [line for line in ax.get_lines() if line.get_gid() == "reference"]
    top, bars = reference.get_ydata()[0], [line.get_ydata() for line in ax.get_lines() if line.get_gid() == "bar"]
    sound = found[found["outcome"] != "failed"]
    assert len(bars) == len(sound) and len(means(ax)) == len(found) + 1
    for low, high in sound[["low", "high"]].to_numpy():
        ends = np.clip([top + low, top + high], *ax.get_ylim())
        assert any(np.allclose(ends, drawn) for drawn in bars)
    filled = [line for line in means(ax) if to_hex(line.get_markerfacecolor()) not in ("#ffffff",)]
    kept = [line.get_ydata()[0] - top for line in filled if line.get_ydata()[0] > ax.get_ylim()[0]]
    assert sorted(kept) == pytest.approx(sorted([0, *found["difference"][found["outcome"] == "kept"]]))
    assert all(line.get_color() == "#000000" for line in means(ax) if "LoRA r" in line.get_gid())
    assert "CP, heads split: 1 of 10 runs failed" in [text.get_text().replace("\n", " ") for text in ax.texts]
    ticks = [label.get_text() for label in ax.get_xticklabels()]
    assert ticks[-1] == "147k\nLoRA r=8" and ticks[0].endswith("24× fewer")


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
    assert text == "No smaller adapter is shown to lose less than 1 point on LoRA r=8"


@pytest.mark.thorough
def test_a_size_whose_runs_failed_is_an_arrow_at_the_lower_edge_and_words() -> None:
    runs = runs_of("results/figures/tasks.csv", "cola")
    ax, found = plots.frontier(runs), verdict(runs)
    arrows = [line for line in means(ax) if line.get_marker() == CARETDOWN]
    failed = found[found["outcome"] == "failed"]
    assert sorted(line.get_xdata()[0] for line in arrows) == sorted(failed["n_params"]) and len(failed) > 2
    assert all(line.get_ydata()[0] == ax.get_ylim()[0] for line in arrows)
    texts = " ".join(text.get_text().replace("\n", " ") for text in ax.texts)
    assert all(words in texts for words in failed["verdict"])


@pytest.mark.parametrize("width", [3.3, 7])
def test_a_forest_shows_the_verdicts(width: float) -> None:
    runs = runs_of("results/headline/records.csv")
    found, ax = verdict(runs), plots.differences(runs, figsize=width)
    sound = found[found["outcome"] != "failed"]
    marks = {line.get_gid(): line for line in means(ax)}
    assert list(map(int, found["outcome"].value_counts()[["kept", "failed"]])) == [4, 1]
    for row in found.itertuples():
        line = marks[f"mean: {row.sentence}"]
        assert line.get_xdata()[0] == (ax.get_xlim()[0] if row.outcome == "failed" else row.difference)
        filled = to_hex(line.get_markerfacecolor()) != "#ffffff"
        assert filled == (row.outcome == "kept") or row.outcome == "failed"
    texts = [text.get_text() for text in ax.texts]
    assert sum("× fewer: " in text for text in texts) == 3 and "1 of 10 runs failed" in texts
    for row in sound.itertuples():
        assert f"{100 * row.difference:+.1f}".replace("-", "−") in texts
        assert (row.verdict in texts) == (width == 7)
    tall = [line.get_ydata()[0] for line in marks.values()]
    assert len(set(tall)) == len(tall) and ax.get_xlim()[0] < 0 < ax.get_xlim()[1], "better is right"
    assert not faults(ax.get_figure(root=True))


LONG = {
    "lora": "lora",
    "cp": "a method with a very long name of its own",
    "tucker": "averylongsinglewordwithoutanybreak",
}


@pytest.mark.parametrize("width", [3.3, 7])
def test_long_names_keep_the_axes_wide_and_no_word_is_broken(width: float) -> None:
    runs = runs_of("results/headline/records.csv")
    runs = runs.assign(method=runs["method"].str.lower()).query("method in ['lora', 'cp', 'tucker']")
    ax = plots.differences(runs.replace({"method": LONG}), figsize=width)
    assert ax.get_window_extent().width > 0.25 * ax.figure.bbox.width and not faults(ax.get_figure(root=True))
    written = {word.rstrip("…") for label in ax.get_yticklabels() for word in label.get_text().split()}
    whole = {word for name in LONG.values() for word in name.split()} | {"LoRA", "r=1", "r=2", ""}
    assert {"a", "method", "with"} <= written and all(
        word in whole or LONG["tucker"].startswith(word) for word in written
    )


def test_headlines_say_what_is_kept_and_what_differs() -> None:
    def told(name: str, file: str, task: str | None = None, **options: Any) -> str:
        return plots._MODULES[name].headline(rows_of(name, runs_of(file, task), **options))

    none = "No smaller adapter is shown to lose less than 1 point on LoRA r=8"
    for name in ("frontier", "differences"):
        assert told(name, "results/figures/frontier.csv") == none
        assert told(name, "results/headline/small/records.csv") == none
    kept = "CP, CP by HiRA's rule, Tensor-train and Tucker: 4× fewer parameters than LoRA r=8, less than 1 point lost"
    assert (
        told("frontier", "results/headline/records.csv") == told("differences", "results/headline/records.csv") == kept
    )
    assert told("frontier", "examples/minilm-sweep/means.csv", "sst2").startswith("No smaller adapter is shown")
    equal = told("differences", "examples/minilm-sweep/means.csv", "sst2", at="budget")
    assert equal == "At equal size none differs measurably from LoRA"
    assert told("layouts", "examples/layouts/means.csv").startswith("None of ")


def test_the_caption_of_panels_is_that_of_each() -> None:
    runs = runs_of("results/figures/tasks.csv").query("task in ['sst2', 'stsb']")
    module, drawn = plots._MODULES["frontier"], plots.frontier(runs, col="task", caption=True)[0].figure
    told = " ".join(drawn.get_supxlabel().split())
    own = {t: module.caption(part, rows_of("frontier", part)) for t, part in runs.groupby("task")}
    wanted = [f"{task}: {text}" for task, text in own.items()] if len({*own.values()}) > 1 else [*own.values()]
    assert all(text in told for text in wanted) and len({*own.values()}) > 1


@pytest.mark.thorough
def test_files_of_a_figure_have_its_rows_and_its_sentences(tmp_path: Path) -> None:
    runs = runs_of("results/figures/tasks.csv").query("task in ['sst2', 'rte']")
    paths = plots.save(runs, "frontier", tmp_path / "out", ("png", "svg", "pdf"), 7)
    assert {path.name for path in paths} == {f"frontier.{end}" for end in ("png", "svg", "pdf", "csv", "txt")}
    assert all(path.stat().st_size > 100 for path in paths)
    assert set(pd.read_csv(tmp_path / "out/frontier.csv")["task"]) == set(runs["task"])
    text = (tmp_path / "out/frontier.txt").read_text()
    assert (
        "sst2: No smaller adapter is shown" in text
        and "Bars: 95 % intervals of the difference to" in text
        and "39 runs" in text
    )
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
    tasks = runs_of("results/figures/tasks.csv")
    undrawn("frontier has no option 'referenc'; did you mean \"reference\"? Valid: x, reference", runs, referenc=None)
    undrawn(
        'the runs are of 5 tasks (cola, mrpc, rte, sst2, stsb), which one panel cannot compare; give col="task"', tasks
    )
    undrawn("no column 'method'; found ", runs.rename(columns={"method": "methd"}))
    undrawn("expected a finite number", runs.assign(score=np.nan))
    undrawn("x is 'n_param'; did you mean \"n_params\"?", runs, x="n_param")
    undrawn("at is 'n_params', which compares scores between sizes", runs, at="n_params")
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


def test_a_table_says_which_figures_it_allows_and_why_not_others() -> None:
    found = plots.allowed(runs_of("results/figures/frontier.csv"))
    assert found["frontier"] is None and found["differences"] is None
    assert "no parameterization ran over two layouts at one size" in found["layouts"]
    runs = runs_of("results/figures/frontier.csv")
    for none in (runs.assign(status="failed"), runs.assign(tuning=True)):
        assert "every run failed or chose a rate" in plots.allowed(none)["learning"]
