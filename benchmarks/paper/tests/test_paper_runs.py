"""The command for the paper's experiments: valid specifications, resuming, and files that say what the runs say."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.append(str(Path(__file__).parents[1]))
import committed
import report
import run

import tensoradapt as ta
from tensoradapt.files import csv_bytes
from tensoradapt.lab.analysis.comparisons import one_sided
from tensoradapt.lab.analysis.statistics.examples import paired_scores
from tensoradapt.lab.analysis.statistics.intervals import paired_difference
from tensoradapt.lab.analysis.statistics.significance import crossed_paired_p, holm
from tensoradapt.lab.runs.store import load_runs
from tensoradapt.lab.sweeps.spec import read_spec

NAMES = sorted({name for scales in run.FAMILIES.values() for names in scales.values() for name in names})
DIFFERENCES = sorted(report.RESULTS.rglob("differences.csv"))
SPEC = """
model = "tiny-random-bert"
task = "planted"
reference = "head"
lr = 0.01
seed = [0, 1]
steps = 3
n_train = 64
n_test = 50

[[method]]
method = "lora"
rank = [4, 8]

[[sweep]]

[[sweep]]
method = [{method = "lora", rank = 8}, {method = "cp", rank = [2]}]
"""


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    (tmp_path / "spec.toml").write_text(SPEC)
    monkeypatch.setattr(run, "HERE", tmp_path)
    monkeypatch.setitem(run.FAMILIES, "glue", {"here": ("spec",)})
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")

    def call(*arguments: str) -> int:
        own = ["run.py", "--family", "glue", "--out", str(tmp_path / "runs"), "--executor", "inline", *arguments]
        monkeypatch.setattr(sys, "argv", own)
        return run.main()

    return call


@pytest.mark.parametrize("name", NAMES)
def test_each_specification_is_one(name: str) -> None:
    for spec in run.specifications(run.HERE / f"{name}.toml"):
        assert read_spec(spec).methods


def test_every_specification_of_this_folder_has_a_scale() -> None:
    assert {file.stem for file in run.HERE.glob("*-*.toml")} <= {*NAMES}


@pytest.mark.thorough
def test_a_family_is_run_by_one_command_and_written_as_files(command, tmp_path: Path, capsys) -> None:
    assert command() == 0
    assert command() == 0 and "nothing" not in capsys.readouterr().err
    runs = load_runs(tmp_path / "runs")
    assert len(runs) == 8  # lora r=4, r=8, cp, head: two seeds each
    assert command("--report") == 0
    folder = tmp_path / "results" / "glue"
    names = {path.name for path in folder.iterdir()}
    assert names == {"records.csv", "means.csv", "differences.csv", "frontier.png", "differences.png"}
    assert {row["folder"] for row in report.read(folder.parent / "within.csv")} == {"glue"}
    rows = report.read(folder / "records.csv")
    assert {row["id"] for row in rows} == {one.name for one in runs} and {row["seed"] for row in rows} == {"0", "1"}
    assert all("accuracy=" in row["test_metrics"] and row["machine"] for row in rows)
    gaps = {(row["method"], row["size"]): row for row in report.read(folder / "differences.csv")}
    assert set(gaps) == {("lora", "r=4"), ("cp", "r=2")}
    scores = {(one.row["method"], one.row["rank"], one.row["seed"]): one.result["test"] for one in runs}
    mean = sum(scores["lora", 4, s]["accuracy"] - scores["lora", 8, s]["accuracy"] for s in (0, 1)) / 2
    assert float(gaps["lora", "r=4"]["difference"]) == pytest.approx(mean, abs=1e-4)
    heads = {int(row["n_head"]) for row in rows}
    assert heads == {one.result["n_trained_base"] for one in runs} and min(heads) > 0
    for row in gaps.values():  # two comparisons of one task: Holm's p is at most twice the larger
        assert float(row["p"]) <= float(row["p_holm"]) <= 1 and row["decided"] == str(float(row["p_holm"]) < 0.05)


@pytest.mark.thorough
def test_sizes_are_compared_at_each_number_of_steps(command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(run.FAMILIES, "glue", {"steps": ("spec",)})
    (tmp_path / "spec.toml").write_text(SPEC.replace("[[sweep]]\n\n", "[[sweep]]\nsteps = 6\n"))
    assert command("--scale", "steps") == 0 and command("--scale", "steps", "--report") == 0
    folder = tmp_path / "results" / "glue" / "steps"
    assert {"differences.csv", "steps.png"} < {path.name for path in folder.iterdir()}
    rows, runs = report.read(folder / "differences.csv"), load_runs(tmp_path / "runs")
    assert {(row["steps"], row["size"]) for row in rows} == {("6", "r=4"), ("3", "r=2")} and len(rows) == 2
    scores = {(r.row["steps"], r.row["method"], r.row["rank"], r.row["seed"]): r.result["test"] for r in runs}
    for row in rows:
        key, rank = (int(row["steps"]), row["method"]), int(row["size"].removeprefix("r="))
        gaps = [scores[*key, rank, s]["accuracy"] - scores[key[0], "lora", 8, s]["accuracy"] for s in (0, 1)]
        assert float(row["difference"]) == pytest.approx(np.mean(gaps), abs=1e-4)


@pytest.mark.thorough
def test_the_sizes_within_a_margin_are_those_of_compare(command, tmp_path: Path) -> None:
    command()
    (folder := report.RESULTS / "glue").mkdir(parents=True)
    report.write_within(tmp_path / "runs", folder)
    rows = report.read(report.RESULTS / "within.csv")
    assert [(row["margin"], row["method"]) for row in rows] == [
        (m, n) for m in ("0.01", "0.02") for n in ("cp", "lora")
    ]
    for row in rows:
        table = ta.compare(tmp_path / "runs", "lora", at=8, margin=float(row["margin"]))
        (one,) = table[table["method"] == row["method"]].to_dict("records")
        assert row["within"] == str(one["within"]) and float(row["difference"]) == pytest.approx(
            one["difference"], abs=1e-6
        )
        assert (row["seeds_within"] or None) == (None if pd.isna(one["seeds_within"]) else str(one["seeds_within"]))


@pytest.mark.parametrize("file", ["within.csv", "pairs.csv"])
def test_the_rows_of_a_folder_take_the_place_of_those_it_had(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (report.RESULTS / file).read_text()
    (tmp_path / file).write_text(before)
    rows = pd.read_csv(tmp_path / file).query("folder == 'headline/fresh'").drop(columns="folder")
    whole = {"seeds_within": "Int64"} if "seeds_within" in rows else {}
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    report.write_rows(rows.assign(task="another").astype(whole), tmp_path / "headline" / "fresh", file)
    assert (tmp_path / file).read_text() == before.replace("fresh,snippets-fresh,", "fresh,another,")


def test_a_reference_is_a_method_at_a_rank_or_at_any_budget() -> None:
    runs = pd.DataFrame({"method": ["CP", "lora"], "rank": [None, 8], "budget": [1640, None]})
    assert report.has_reference(runs) and report.has_reference(runs, "CP", "budget")
    assert not report.has_reference(runs, "lora", 1) and not report.has_reference(runs, "lora", "budget")


@pytest.mark.thorough
def test_without_lora_8_sizes_are_compared_with_the_smallest_of_their_method(command, tmp_path: Path) -> None:
    (tmp_path / "spec.toml").write_text(
        SPEC.replace("[4, 8]", "[2, 4]").replace("rank = 8", "rank = 4").replace("[2]", "[2, 3, 5]")
    )
    command()
    command("--report")
    rows = report.read(tmp_path / "results" / "glue" / "differences.csv")
    compared = {(row["method"], row["size"], row["reference"]) for row in rows}
    assert compared == {("lora", "r=4", "lora r=2"), ("cp", "r=3", "cp r=2"), ("cp", "r=5", "cp r=2")}


def test_a_scale_that_a_family_lacks_is_named(command) -> None:
    with pytest.raises(SystemExit, match=r"glue has no scale 'ranks'; choose one of here"):
        command("--scale", "ranks")


@pytest.mark.thorough
def test_p_is_the_librarys_and_corrected_within_a_task(command, tmp_path: Path) -> None:
    command()
    command("--report")
    rows = {row["method"]: row for row in report.read(tmp_path / "results" / "glue" / "differences.csv")}
    runs = {(one.row["method"], one.row["rank"], one.row["seed"]): one for one in load_runs(tmp_path / "runs")}
    for name, rank in (("lora", 4), ("cp", 2)):
        answers = paired_scores([(runs[name, rank, seed].path, runs["lora", 8, seed].path) for seed in (0, 1)])
        assert float(rows[name]["p"]) == pytest.approx(crossed_paired_p(*answers), rel=5e-3)
    p, held = zip(*((float(row["p"]), float(row["p_holm"])) for row in rows.values()), strict=True)
    assert held == pytest.approx(holm(p), rel=5e-3)


@pytest.mark.parametrize("file", DIFFERENCES, ids=lambda file: file.parent.name)
def test_a_size_is_within_a_point_where_both_lower_limits_say_so(file: Path) -> None:
    for row in report.read(file):
        limit = min(float(row["low"]), float(row["low_seeds"]))  # one comparison alone
        assert (float(row["p_within"]) < 0.025) == (limit > -report.MARGINS[0])
        assert row["within"] == str(float(row["p_within_holm"]) < 0.025)


def test_differences_of_a_metric_without_examples_are_what_their_records_say() -> None:
    folder = report.RESULTS / "instruct" / "ranks"
    rows = list(report.differences(pd.read_csv(folder / "records.csv")))
    assert csv_bytes(list(rows[0]), rows) == (folder / "differences.csv").read_bytes()


SEEDS, EXAMPLES, MARGIN = 6, 400, 0.03
SIZES = {"near": 0.001, "far": 0.05, "noisy": 0.01}


def drawn(rng: np.random.Generator, gain: float) -> np.ndarray:
    """Scores (seeds, examples) with effects of seeds and of examples."""
    return (
        gain + rng.normal(0, 0.004, (SEEDS, 1)) + rng.normal(0, 0.03, EXAMPLES) + rng.normal(0, 0.1, (SEEDS, EXAMPLES))
    )


@pytest.fixture
def scores() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: drawn(rng, gain) for name, gain in {"lora": 0.0, **SIZES}.items()}


def tables(scores: dict[str, np.ndarray]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A table of pairs beside "lora", and one of runs."""
    counts = {name: 100 + i for i, name in enumerate(scores)}
    of_run = [
        {"task": "t", "method": name, "n_params": counts[name], "seed": seed, "score": score}
        for name, own in scores.items()
        for seed, score in enumerate(own.mean(1))
    ]
    found = {name: paired_difference(scores[name], scores["lora"]) for name in SIZES}
    pairs = [
        {"task": "t", "method": name, "n_params": counts[name], "reference": "lora", "reference_n_params": 100}
        | {"difference": one.mean, "low": one.low, "high": one.high}
        for name, one in found.items()
    ]
    return pd.DataFrame(pairs), pd.DataFrame(of_run)


def test_p_values_are_those_of_the_scores_of_test_examples(scores: dict[str, np.ndarray]) -> None:
    pairs, runs = tables(scores)
    for row in pairs.to_dict("records"):
        own, other = scores[row["method"]], scores["lora"]
        known = committed.errors(row, committed.apart_by_seed(runs, row, "lora", 100))
        gap = row["difference"] + MARGIN
        assert 2 * known.p_above(abs(row["difference"])) == pytest.approx(crossed_paired_p(own, other), rel=0.01)
        assert known.p_above(gap) == pytest.approx(one_sided(crossed_paired_p(own + MARGIN, other), gap), rel=0.01)
