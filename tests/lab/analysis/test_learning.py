"""Learning curves: the losses of runs, smoothed and in means over seeds, with lost runs named and in no mean."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.drawings import drawn, lines
from support.refusals import refused
from support.synthetic_runs import write_synthetic
from support.texts import faults

from tensoradapt.lab.analysis.results import table_of

learning = importlib.import_module("tensoradapt.lab.analysis.plots.learning")
STEPS = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CP learns best; of VeRA one seed diverges after 10 steps and one is at chance."""
    root = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(0)
    for name, slope, n in (("cp", 0.015, 900), ("lora", 0.01, 1000), ("vera", 0.002, 800)):
        for seed in range(3):
            status = ("finished", "diverged", "at chance")[seed] if name == "vera" else "finished"
            path = write_synthetic(root, parameterization=name, named=name, n_params=n, seed=seed, status=status)
            losses = 0.7 - slope * np.arange(10 if status == "diverged" else STEPS) + 0.01 * rng.normal()
            np.save(path / "losses.npy", losses * (5 if status == "diverged" else 1))
    path = write_synthetic(root, kind="head", accuracy=0.6)
    np.save(path / "losses.npy", np.full(STEPS, 0.69))
    return root


@pytest.fixture(scope="module")
def runs(folder: Path) -> pd.DataFrame:
    return table_of(folder).assign(step_seconds_median=0.5, steps=STEPS)


def test_rows_are_the_losses_of_each_run(runs: pd.DataFrame) -> None:
    rows = learning.rows(runs)
    assert set(rows["id"]) == set(runs["id"])
    for name, own in rows.groupby("id"):
        path = runs.loc[runs["id"] == name, "path"].iloc[0]
        assert own["loss"].tolist() == np.load(Path(path) / "losses.npy").tolist()
        assert own["step"].tolist() == list(range(1, len(own) + 1))
        assert own["seconds"].tolist() == (0.5 * own["step"]).tolist()


def test_smoothing_keeps_a_constant_and_a_line_and_takes_noise_away() -> None:
    assert learning.smoothed(np.full(9, 0.3), 2.0) == pytest.approx(0.3)
    line = np.arange(50.0)
    assert learning.smoothed(line, 2.0)[6:-6] == pytest.approx(line[6:-6])
    noise = np.random.default_rng(0).normal(size=4000)
    assert learning.smoothed(noise, 5.0).std() == pytest.approx((2 * 5 * np.pi**0.5) ** -0.5, rel=0.15)
    assert learning.smoothed(np.array([2.0]), 2.0).tolist() == [2.0]


def test_a_long_run_is_thinned_and_keeps_its_ends(tmp_path: Path) -> None:
    path = write_synthetic(tmp_path)
    losses = np.linspace(1, 0, 5000)
    np.save(path / "losses.npy", losses)
    rows = learning.rows(table_of(tmp_path))
    assert len(rows) == learning.MOST
    assert (rows["step"].iloc[0], rows["step"].iloc[-1]) == (1, 5000)
    assert rows["loss"].tolist() == losses[rows["step"] - 1].tolist()


def test_a_line_is_the_mean_over_seeds_that_did_not_diverge(runs: pd.DataFrame) -> None:
    rows = learning.rows(runs)
    ax = drawn(learning, rows)
    for method, name in (("cp", "CP"), ("vera", "VeRA")):
        own = rows[(rows["method"] == method) & (rows["status"] != "diverged")]
        wanted = own.groupby("step")["smooth"].mean().reset_index()
        (line,) = lines(ax, f"mean: {name}")
        np.testing.assert_allclose(line, wanted)
    assert len(lines(ax, "raw")) == 4
    assert len(lines(ax, "seed")) == 9, "one run alone is its own mean"
    assert max(y for line in lines(ax, "mean") for _, y in line) < ax.get_ylim()[1] < 1, (
        "diverged runs are out of limits"
    )


def test_lost_runs_end_in_crosses_and_are_named(runs: pd.DataFrame) -> None:
    rows = learning.rows(runs)
    ax = drawn(learning, rows)
    crosses = lines(ax, "lost")
    assert sorted(float(line[0, 0]) for line in crosses) == [10, STEPS]
    assert {text.get_text().replace("\n", " ") for text in ax.texts} == {
        "CP",
        "LoRA",
        "VeRA (1 of 3 diverged, 1 of 3 at chance)",
        "frozen base + head",
    }
    caption = learning.caption(runs, rows)
    assert caption.endswith("Crosses end lost runs: VeRA seed 1 (diverged after step 10) and VeRA seed 2 (at chance).")
    assert learning.headline(rows).startswith("The loss of CP ends lowest with every seed, at 0.1")
    assert learning.headline(rows).endswith("; 2 of 10 runs are lost")


def test_what_seeds_do_not_agree_on_is_not_decided(runs: pd.DataFrame) -> None:
    rows = learning.rows(runs)
    cp = rows["method"] == "cp"
    rows.loc[cp, "smooth"] += np.where(rows.loc[cp, "seed"] == 0, 0.3, 0.0)
    assert learning.headline(rows).startswith("Whose loss ends lowest is not decided: that of ")


def test_over_seconds_names_stand_where_lines_end(runs: pd.DataFrame) -> None:
    slow = runs.assign(step_seconds_median=np.where(runs["method"] == "cp", 2.0, 0.5))
    ax = drawn(learning, learning.rows(slow, x="seconds"))
    (line,) = lines(ax, "mean: CP")
    assert line[-1, 0] == 2.0 * STEPS
    ends = {text.get_text(): text.xy[0] for text in ax.texts}
    assert ends["CP"] == 2.0 * STEPS and ends["LoRA"] == 0.5 * STEPS
    assert ax.get_xlabel() == "seconds of training"


def test_of_several_sizes_that_of_the_middle_is_drawn_or_the_one_asked_for(runs: pd.DataFrame) -> None:
    sizes = pd.concat([runs.assign(rank=r, n_params=runs["n_params"] * r, id=runs["id"] + str(r)) for r in (1, 2, 64)])
    several = sizes[sizes["kind"] == "adapter"]
    assert set(learning.rows(table_of(several))["rank"]) == {2}
    assert set(learning.rows(table_of(several), at=64)["rank"]) == {64}
    rows = learning.rows(table_of(several), at="all")
    assert set(rows["setting"]) == {"r=1", "r=2", "r=64"}


def test_a_panel_of_one_method_has_the_others_as_grey_means(runs: pd.DataFrame) -> None:
    ax = drawn(learning, learning.rows(runs), focus="cp", names=False)
    assert len(lines(ax, "seed")) == 3 and len(lines(ax, "raw")) == 1
    colours = {
        str(line.get_gid()).split(":")[1]: line.get_color() for line in ax.lines if "mean" in str(line.get_gid())
    }
    assert len({colour for name, colour in colours.items() if name != " CP"}) == 1 != len(set(colours.values()))


@pytest.mark.parametrize("width", [3.3, 7])
@pytest.mark.parametrize("x", ["steps", "seconds"])
def test_names_overlap_no_other_and_are_within_the_figure(runs: pd.DataFrame, x: str, width: float) -> None:
    found = faults(drawn(learning, learning.rows(runs, x=x), width).figure)
    assert not [fault for fault in found if "edge" not in fault], "names may stand where lines end"


REFUSED = [
    ({"x": "step"}, "x is 'step'; did you mean \"steps\""),
    ({"at": 5}, "no adapter has rank 5; expected one of 4, 'middle' or 'all'"),
    ({"at": "largest"}, "at is 'largest'; expected a rank, 'middle' or 'all'"),
]


@pytest.mark.parametrize(("options", "says"), REFUSED)
def test_what_is_refused_says_what_was_expected(runs: pd.DataFrame, options: dict[str, object], says: str) -> None:
    refused(lambda: learning.rows(runs, **options), says)


def test_a_table_without_folders_and_folders_without_losses_are_refused(tmp_path: Path) -> None:
    own = table_of(pd.DataFrame({"method": ["cp"], "score": [0.7], "n_params": [9]}))
    refused(lambda: learning.rows(own), "run row 0 has no path, and losses are in the folders of runs; expected a")
    timeless = own.assign(losses="0.5 0.4")
    refused(lambda: learning.rows(timeless, x="seconds"), "no run has step_seconds_median; expected the time of its")
    write_synthetic(tmp_path)
    says = r"none of the 1 runs has losses, as in .*; expected losses\.npy in folders"
    refused(lambda: learning.rows(table_of(tmp_path)), says)
