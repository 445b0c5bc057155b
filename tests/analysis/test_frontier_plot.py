"""The frontier plot: nothing overlaps, nothing is cut off, every stage of a sweep can be drawn."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from support.synthetic_runs import LABELS, write_many, write_synthetic

from tensoradapt.analysis.figures import canvas, frontier_plot, plots
from tensoradapt.analysis.figures.captions import caption
from tensoradapt.analysis.figures.frontier_labels import overlap, place_labels, spread
from tensoradapt.analysis.names import display
from tensoradapt.analysis.old_tables.frontier import frontier
from tensoradapt.errors import TensorAdaptError
from tensoradapt.runs.store import load_runs

DENSE = {
    name: [(rank, round(200 * rank * 1.4**i), 0.75 + 0.02 * j + 0.004 * i) for j, rank in enumerate((1, 2, 4, 8))]
    for i, name in enumerate(LABELS)
}


def axes() -> Axes:
    figure = Figure(figsize=(7, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    return figure.subplots()


def boxes(ax: Axes, gid: str) -> list[Bbox]:
    return [Text.get_window_extent(text) for text in ax.texts if text.get_gid() == gid]


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Axes:
    return plots.frontier(write_many(tmp_path_factory.mktemp("dense"), DENSE), axes())


def test_no_rank_label_overlaps_another_on_a_dense_figure(dense: Axes) -> None:
    labels = boxes(dense, "rank")
    assert len(labels) >= 18
    assert [pair for pair in itertools.combinations(labels, 2) if Bbox.overlaps(*pair)] == []


def covered(ax: Axes, zorder: float) -> list[tuple[float, float]]:
    """Points on the markers (zorder 3) or error bars (2.5) that lie under a rank label."""
    ends = [ax.transData.transform(line.get_xydata()) for line in ax.get_lines() if line.get_zorder() == zorder]
    assert len(ends) == 20
    points = [tuple(point) for line in ends for point in np.linspace(line[0], line[-1], 50)]
    return [point for point in points for label in boxes(ax, "rank") if label.contains(*point)]


def test_no_rank_label_covers_a_marker_or_an_error_bar_or_leaves_the_axes(dense: Axes) -> None:
    assert covered(dense, 3) == covered(dense, 2.5) == []
    frame = dense.get_window_extent()
    for label in boxes(dense, "rank"):
        assert frame.x0 <= label.x0 <= label.x1 <= frame.x1
        assert frame.y0 <= label.y0 <= label.y1 <= frame.y1


def test_no_rank_label_covers_a_marker_without_an_error_bar(tmp_path: Path) -> None:
    close = {
        name: [(r, 100 + 9 * i + 25 * j, 0.8 + 0.001 * i) for j, r in enumerate((1, 2, 4, 8))]
        for i, name in enumerate(LABELS)
    }
    assert covered(plots.frontier(write_many(tmp_path, close, seeds=[0], spread=0), axes()), 3) == []


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 100)), max_size=25))
def test_placed_labels_are_free_of_each_other_and_of_obstacles(anchors: list[tuple[float, float]]) -> None:
    obstacles = [(x - 3.0, y - 3.0, x + 3.0, y + 3.0) for x, y in anchors]
    places = place_labels(
        anchors, [(20, 8)] * len(anchors), obstacles, np.empty((0, 2)), (0, 0, 200, 100), [5, 8], [12, 20, 30]
    )
    taken = list(obstacles)
    for place in filter(None, places):
        box = (place.x - 10, place.y - 4, place.x + 10, place.y + 4)
        assert not overlap(box, np.array(taken))
        assert min(box[:2]) >= 0
        assert box[2] <= 200
        assert box[3] <= 100
        taken.append(box)


def test_where_there_are_many_points_those_on_the_frontier_have_their_ranks(tmp_path: Path) -> None:
    many = {f"{name}-{i}": curve for i in range(2) for name, curve in DENSE.items()}
    runs = write_many(tmp_path, many, seeds=[0])
    shown = [text.get_text() for text in plots.frontier(runs, axes()).texts if text.get_gid() == "rank"]
    assert sorted(shown) == sorted(f"r={point.rank}" for point in frontier(runs)) and 2 < len(shown) < 24


def test_a_label_crosses_a_line_only_where_it_must() -> None:
    line = np.stack([np.full(50, 50.0), np.linspace(50, 100, 50)], axis=1)
    (place,) = place_labels([(50, 50)], [(20, 8)], [], line, (0, 0, 100, 100), [5], [])
    assert place is not None
    assert abs(place.x - 50) > 10 or place.y < 50


def test_a_label_without_a_free_place_is_left_out() -> None:
    assert place_labels([(5, 5)], [(20, 8)], [], np.empty((0, 2)), (0, 0, 10, 10), [2], [4]) == [None]


@given(st.lists(st.floats(0, 100), max_size=40).map(sorted), st.floats(1, 20))
def test_names_of_close_lines_are_moved_apart(heights: list[float], gap: float) -> None:
    moved = spread(heights, gap)
    assert all(b - a >= gap - 1e-9 for a, b in itertools.pairwise(moved))
    assert sum(moved) == pytest.approx(sum(heights))
    if all(b - a >= gap for a, b in itertools.pairwise(heights)):
        assert moved == pytest.approx(heights)


def test_each_method_has_a_colour_and_a_marker_of_its_own(dense: Axes) -> None:
    legend = dense.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        *sorted(map(display, LABELS.values()), key=str.lower),
        "frontier",
    ]
    handles = legend.get_lines()[:-1]
    assert len({str(line.get_color()) for line in handles}) == len({str(line.get_marker()) for line in handles}) == 5


def test_means_bars_and_the_frontier_are_drawn_where_they_are(tmp_path: Path) -> None:
    from tensoradapt.analysis.old_tables.frontier import points

    runs = write_many(tmp_path, {"cp": [(1, 100, 0.75), (2, 300, 0.8)]})
    ax = plots.frontier(runs, axes())
    drawn = [np.asarray(line.get_xydata(), float).tolist() for line in ax.get_lines()]
    first, second = points(runs)
    for point in (first, second):
        assert [[point.n_params, point.interval.mean]] in drawn
        assert [[point.n_params, point.interval.low], [point.n_params, point.interval.high]] in drawn
    (step,) = [line for line in ax.get_lines() if line.get_drawstyle() == "steps-post"]
    assert step.get_xydata().tolist()[:2] == [[100, first.interval.mean], [300, second.interval.mean]]
    assert (ax.get_xscale(), ax.get_xlabel()) == ("log", "trainable parameters (adapter)")
    timed = plots.frontier(load_runs(tmp_path), axes(), x="seconds")
    assert (timed.get_xscale(), timed.get_xlabel()) == ("linear", "time of a run (s)")
    assert ax.get_ylabel() == "test accuracy"


@pytest.mark.parametrize("cost", ["n_params", "seconds"])
def test_methods_of_equal_cost_are_at_it_and_each_is_seen_around_the_next(tmp_path: Path, cost: str) -> None:
    for name, n_params, seconds in (("cp", 41, 2.0), ("lora", 41, 2.0), ("tt", 41, 2.0), ("vera", 90, 5.0)):
        for seed in (0, 1):
            write_synthetic(tmp_path, parameterization=name, n_params=n_params, seconds=seconds, seed=seed)
    ax = plots.frontier(load_runs(tmp_path), axes(), x=cost)
    means = [line for line in ax.get_lines() if line.get_zorder() == 3]
    assert [line.get_xdata()[0] for line in means] == ([41, 41, 41, 90] if cost == "n_params" else [2, 2, 2, 5])
    first, second, third, alone = (line.get_markersize() for line in means)
    assert first > second > third and alone == canvas.MARKER
    labels = boxes(ax, "rank")
    assert len(labels) == 4
    assert [pair for pair in itertools.combinations(labels, 2) if Bbox.overlaps(*pair)] == []


def test_one_seed_has_no_error_bar(tmp_path: Path) -> None:
    ax = plots.frontier(write_many(tmp_path, {"cp": [(1, 100, 0.75)]}, seeds=[0]), axes())
    assert [line for line in ax.get_lines() if line.get_zorder() == 2.5] == []
    assert len(ax.patches) == 0


def test_a_bar_longer_than_the_axes_does_not_squeeze_the_means_and_is_marked(tmp_path: Path) -> None:
    for seed, accuracy in enumerate((0.8, 0.78)):
        write_synthetic(tmp_path, seed=seed, accuracy=accuracy, n_params=100)
        write_synthetic(tmp_path, seed=seed, accuracy=0.75, n_params=50)
    ax = plots.frontier(load_runs(tmp_path), axes())
    low, high = ax.get_ylim()
    assert 0.04 < high - low < 0.08
    assert {line.get_marker() for line in ax.get_lines() if line.get_zorder() == 2.6} == {"v", "^"}


def test_references_are_lines_with_names_that_do_not_overlap(tmp_path: Path) -> None:
    ax = plots.frontier(write_many(tmp_path, DENSE, head=0.8, full=0.801), axes())
    names = [text for text in ax.texts if text.get_text().startswith(("frozen base + head", "full fine-tuning"))]
    assert len(names) == 2
    assert not Bbox.overlaps(*map(Text.get_window_extent, names))
    assert {line.get_linestyle() for line in ax.get_lines()} >= {":", "--"}


STAGES = {
    "one adapter run": ({"cp": [(4, 100, 0.8)]}, {"head": None, "full": None}),
    "a head only": ({}, {"full": None}),
    "both references": ({}, {}),
    "five methods": ({name: curve[:1] for name, curve in DENSE.items()}, {}),
    "everything": (DENSE, {}),
}


@pytest.mark.parametrize("stage", STAGES)
def test_nothing_on_a_saved_figure_is_cut_off_at_any_stage(
    tmp_path: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    curves, given_references = STAGES[stage]
    figures: list[Figure] = []
    write = canvas.write
    monkeypatch.setattr(canvas, "write", lambda figure, *rest: (figures.append(figure), write(figure, *rest))[1])
    runs = write_many(tmp_path / "runs", curves, seeds=[0], **given_references)
    written = frontier_plot.save_frontier(runs, tmp_path / "out" / "plot.v1", "Extra words. " * 30, total=99)
    assert [path.name for path in written] == ["plot.v1.png", "plot.v1.pdf"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["plot.v1.pdf", "plot.v1.png"]
    figure = figures[0]
    tight = figure.get_tightbbox()
    assert tight.x0 > 0
    assert tight.y0 > 0
    assert tight.x1 < 7
    assert tight.y1 < 4.6
    (note,) = [text for text in figure.texts if text.get_gid() == "caption"]
    assert note.get_window_extent().y1 < figure.axes[0].xaxis.get_tightbbox().y0


def test_the_same_runs_give_the_same_bytes(tmp_path: Path) -> None:
    runs = write_many(tmp_path / "runs", DENSE)
    first, second = (
        frontier_plot.save_frontier(runs, tmp_path / "a"),
        frontier_plot.save_frontier(runs[::-1], tmp_path / "b"),
    )
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert first[0].read_bytes().startswith(b"\x89PNG")
    assert first[1].read_bytes().startswith(b"%PDF")


def test_saving_leaves_the_settings_of_the_user_alone(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "runs")
    with mpl.rc_context({"font.size": 3, "savefig.bbox": "tight"}):
        before = dict(mpl.rcParams)
        frontier_plot.save_frontier(load_runs(tmp_path / "runs"), tmp_path / "a")
        assert dict(mpl.rcParams) == before


def test_without_axes_a_figure_with_a_caption_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib import pyplot

    pyplot.switch_backend("agg")
    write_synthetic(tmp_path)
    ax = plots.frontier(load_runs(tmp_path), total=5)
    figure = ax.get_figure(root=True)
    assert figure is not None
    assert "Partial: 1 of 5 runs finished." in " ".join(text.get_text() for text in figure.texts).replace("\n", " ")
    pyplot.close(figure)


def test_the_caption_says_what_a_reader_must_know(tmp_path: Path) -> None:
    for seed, status in enumerate(("finished", "at chance", "diverged")):
        write_synthetic(tmp_path, seed=seed, status=status, accuracy=0.8 if seed == 0 else 0.5)
        write_synthetic(tmp_path, seed=seed, parameterization="lora", lr=3e-3)
    assert caption(load_runs(tmp_path), total=30, extra="More.") == (
        "tiny-model on rte: test accuracy over 3 seeds (means; ticks are seeds, bars and bands 95 % t-intervals "
        "over seeds, an arrow where one goes on). "
        "Learning rates as given: CP (LoRTA) 0.001, LoRA 0.003. "
        "Of 6 runs, 1 ended at chance and 1 diverged: ticks on the strip, kept in the means. A mean with such a "
        "run is hollow, and on the strip if all its runs are or it is out of range of the others. "
        "Partial: 6 of 30 runs finished. More."
    )


def test_the_caption_does_not_promise_intervals_where_there_is_one_seed(tmp_path: Path) -> None:
    write_synthetic(tmp_path)
    text = caption(load_runs(tmp_path))
    assert text == "tiny-model on rte: test accuracy of one seed, so without intervals. Learning rates as given: 0.001."
    write_synthetic(tmp_path, n_params=5)
    write_synthetic(tmp_path, n_params=5, seed=1)
    assert "over 1 to 2 seeds" in caption(load_runs(tmp_path))


def test_no_run_at_all_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    for draw in (lambda: plots.frontier([]), lambda: frontier_plot.save_frontier([], tmp_path / "a")):
        with pytest.raises(TensorAdaptError, match="no run to plot; expected one or more finished runs: run the sweep"):
            draw()
    assert list(tmp_path.iterdir()) == []


def test_the_caption_says_which_steps_adapters_took(tmp_path: Path) -> None:
    def text(*optimizers: str | None) -> str:
        folder = tmp_path / "-".join(map(str, optimizers))
        for i, name in enumerate(optimizers):
            write_synthetic(folder, parameterization=("cp", "lora")[i], optimizer=name or "adamw")
        return caption(load_runs(folder))

    assert "Adapters take equal steps: the rate is how far the weights move." in text("equal_steps", "equal_steps")
    assert "Optimizers differ: adamw of LoRA; equal_steps of CP (LoRTA)." in text("equal_steps", None)
    assert "steps" not in text(None, None)


def test_the_caption_says_in_which_precision_and_on_how_many_threads(tmp_path: Path) -> None:
    write_synthetic(tmp_path, precision="bf16")
    write_synthetic(tmp_path, parameterization="lora", precision="bf16")
    one, two = load_runs(tmp_path)
    assert "Computed in bf16." in caption([one, two]) and "threads" not in caption([one, two])
    runs = [replace(run, row={**run.row, "threads": n}) for run, n in ((one, 1), (two, 2))]
    assert "Computed in bf16. Runs used 1 and 2 threads, which changes last digits." in caption(runs)
