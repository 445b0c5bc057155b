"""Learning curves: the losses of runs, smoothed and in means over seeds, with lost runs named and in no mean."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.figures import drawn, lines
from support.refusals import refused
from support.synthetic_runs import write_synthetic

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


def test_a_line_is_the_mean_over_seeds_that_did_not_diverge(runs: pd.DataFrame) -> None:
    rows = learning.rows(runs)
    ax = drawn(learning, rows)
    for method, name in (("cp", "CP"), ("vera", "VeRA")):
        own = rows[(rows["method"] == method) & (rows["status"] != "diverged")]
        wanted = own.groupby("step")["smooth"].mean().reset_index()
        (line,) = lines(ax, f"mean: {name}")
        np.testing.assert_allclose(line, wanted)
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


def test_losses_that_seeds_do_not_agree_on_overlap(runs: pd.DataFrame) -> None:
    rows = learning.rows(runs)
    cp = rows["method"] == "cp"
    rows.loc[cp, "smooth"] += np.where(rows.loc[cp, "seed"] == 0, 0.3, 0.0)
    assert learning.headline(rows).startswith("Final losses overlap: that of ")


REFUSED = [
    ({"x": "step"}, "x is 'step'; did you mean \"steps\""),
    ({"at": 5}, "no adapter has rank 5; expected one of 4, 'middle' or 'all'"),
    ({"at": "largest"}, "at is 'largest'; expected a rank, 'middle' or 'all'"),
]


@pytest.mark.parametrize(("options", "says"), REFUSED)
def test_what_is_refused_says_what_was_expected(runs: pd.DataFrame, options: dict[str, object], says: str) -> None:
    refused(lambda: learning.rows(runs, **options), says)
