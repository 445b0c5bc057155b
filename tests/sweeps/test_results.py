"""The table of a folder of runs: every run is in it, conditions hold, and other programs read what is written."""

from __future__ import annotations

import csv
import sys

import pytest
from support.configs import config_of
from support.synthetic_runs import write_synthetic

import tensoradapt as ta
from tensoradapt.analysis.old_tables import frontier
from tensoradapt.cli.main import main
from tensoradapt.runs.store import load_runs, write_failure
from tensoradapt.sweeps.reports.dataframe import write_parquet
from tensoradapt.sweeps.reports.results import COLUMNS, means, run_rows, shown, write_csv, write_latex


@pytest.fixture
def root(tmp_path):
    for seed in (0, 1):
        write_synthetic(tmp_path, parameterization="cp", rank=4, n_params=300, seed=seed, accuracy=0.8)
        write_synthetic(tmp_path, parameterization="lora", rank={"head": 2, "dim": 3}, n_params=900, seed=seed)
    config = config_of("m", "rte", "vera", named="VeRA", steps=3).as_dict()
    write_failure(tmp_path, "broken", {"kind": "out of memory", "error": "no 5 % left", "config": config})
    return tmp_path


def test_every_run_is_a_row_in_an_order_that_does_not_change(root):
    rows = run_rows(root)
    assert all(tuple(row) == COLUMNS for row in rows)
    assert [(row["method"], row["seed"], row["status"]) for row in rows] == [
        ("CP (LoRTA)", 0, "finished"),
        ("CP (LoRTA)", 1, "finished"),
        ("LoRA", 0, "finished"),
        ("LoRA", 1, "finished"),
        ("VeRA", 0, "failed"),
    ]
    assert rows[0]["test"] == 0.8 and rows[-1]["note"] == "out of memory: no 5 % left"
    assert shown(rows).splitlines()[3].split()[4:7] == ["dim=3", "head=2", "900"]


@pytest.mark.parametrize(
    ("where", "methods"),
    [
        (["method=lora"], {"LoRA"}),
        (["method=ve_ra"], {"VeRA"}),
        (["n_params<=300"], {"CP (LoRTA)"}),
        (["n_params>=300", "n_params<900"], {"CP (LoRTA)"}),
        (["status!=finished"], {"VeRA"}),
        (["n_params!=300"], {"LoRA", "VeRA"}),
        (["lr=1e-3", "seed>0"], {"CP (LoRTA)", "LoRA"}),
        *[([f"tuning={no}", "rank=4"], {"CP (LoRTA)"}) for no in ("false", "0", "No")],
        *[([f"tuning!={yes}", "rank=4"], {"CP (LoRTA)"}) for yes in ("true", "1", "yes")],
        (["tuning=1"], set()),
        (["rank=dim=3 head=2"], {"LoRA"}),
    ],
)
def test_conditions_hold_of_what_is_shown(root, where, methods):
    assert {row["method"] for row in run_rows(root, where)} == methods


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("lora", "condition 'lora' has none of"),
        ("tsk=rte", "unknown column 'tsk'; did you mean \"task\""),
        ("n_params<=5k", "condition 'n_params<=5k': '5k' is no number; expected one, as n_params is a number"),
        ("test>0,5", "'0,5' is no number"),
        ("tuning=maybe", "'maybe' is neither yes nor no; expected one, as in tuning=no"),
        ("status=collapsed", "unknown status 'collapsed'. Valid: finished, at chance, diverged, failed$"),
    ],
)
def test_a_condition_that_cannot_be_read_is_refused(root, where, says):
    with pytest.raises(ta.TensorAdaptError, match=says):
        run_rows(root, [where])


def test_a_run_at_chance_is_found_by_that_status(root):
    folder = write_synthetic(root, parameterization="tt", status="at chance")
    assert [row["id"] for row in run_rows(root, ["status=at chance"])] == [folder.name]


def test_csv_and_parquet_hold_the_same_table(root, tmp_path):
    pandas = pytest.importorskip("pandas", reason="an extra")
    pytest.importorskip("pyarrow", reason="an extra")
    rows = run_rows(root)
    with write_csv(rows, tmp_path / "t.csv").open() as file:
        read = list(csv.DictReader(file))
    frame = pandas.read_parquet(write_parquet(rows, tmp_path / "t.parquet"))
    assert list(frame.columns) == list(COLUMNS) and len(frame) == len(read) == 5
    assert [row["id"] for row in read] == list(frame["id"]) == [row["id"] for row in rows]
    assert [float(row["test"] or "nan") for row in read] == pytest.approx(list(frame["test"]), nan_ok=True)


def test_latex_is_a_table_whose_special_characters_are_escaped(root, tmp_path):
    rows = [{**row, "method": "50 % of A_1 & B"} for row in run_rows(root)]
    lines = write_latex(rows, tmp_path / "t.tex").read_text().splitlines()
    assert lines[0].startswith(r"\begin{tabular}{l") and lines[-1] == r"\end{tabular}"
    assert r"50 \% of A\_1 \& B" in lines[4] and all(line.count(" & ") == 11 for line in lines[4:-2])


def test_means_are_those_of_the_frontiers_table_task_by_task(root, tmp_path, capsys):
    pandas = pytest.importorskip("pandas", reason="an extra")
    for seed, accuracy in ((0, 0.6), (1, 0.7)):
        write_synthetic(root, task="sst2", n_params=300, seed=seed, accuracy=accuracy)
    write_synthetic(root, task="sst2", n_params=300, seed=1000, accuracy=0.9, tuning=True)
    rows = means(root)
    assert [(row["task"], row["method"], row["n_seeds"]) for row in rows] == [
        ("rte", "CP (LoRTA)", 2), ("rte", "LoRA", 2), ("sst2", "CP (LoRTA)", 2),
    ]  # fmt: skip
    own = [run for run in load_runs(root) if run.row["task"] == "sst2"]
    assert [{key: row[key] for key in row if key != "task"} for row in rows[2:]] == frontier.table(own)
    assert rows[2]["mean"] == 0.65 and means(root, ["task=sst2"]) == rows[2:]
    assert main(["results", str(root), "--means"]) == 0
    assert capsys.readouterr().out.splitlines()[3].split()[:2] == ["sst2", "CP"]
    files = {kind: tmp_path / f"t.{kind}" for kind in ("csv", "parquet", "latex")}
    assert (
        main(["results", str(root), "--means", *(x for kind, p in files.items() for x in (f"--{kind}", str(p)))]) == 0
    )
    read = pandas.read_csv(files["csv"]), pandas.read_parquet(files["parquet"])
    assert [list(frame["mean"]) for frame in read] == [[row["mean"] for row in rows]] * 2
    assert files["latex"].read_text().count(r"\\") == 3, "a head, and a row for each method and size"


def test_a_missing_extra_is_named(root, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ta.TensorAdaptError, match=r"needs `pandas`.*pip install \"tensoradapt\[results\]\""):
        write_parquet(run_rows(root), tmp_path / "t.parquet")


def test_the_command_shows_or_writes(root, tmp_path, capsys):
    assert main(["results", str(root), "--where", "method=lora"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert main(["results", str(root), "--csv", str(tmp_path / "t.csv")]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "t.csv")]
    assert main(["results", str(root), "--csv", "."]) == 2
    assert capsys.readouterr().err == "error: . is a folder; expected a place for a file: add a name to it\n"
    assert main(["results", str(tmp_path / "absent")]) == 2
