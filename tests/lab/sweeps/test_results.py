"""The table of a folder of runs: every run is a row, conditions hold, and columns have the types of their values."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from support.configs import config_of
from support.sweeping import TINY, write_spec
from support.synthetic_runs import write_synthetic
from support.synthetic_sweep import sweep

import tensoradapt as ta
from tensoradapt.lab.analysis.results import RUN
from tensoradapt.lab.runs.store import write_failure
from tensoradapt.lab.sweeps.results import results


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed in (0, 1):
        write_synthetic(tmp_path, parameterization="cp", rank=4, n_params=300, seed=seed, accuracy=0.8)
        write_synthetic(tmp_path, parameterization="lora", rank={"head": 2, "dim": 3}, n_params=900, seed=seed)
    config = config_of("m", "rte", "vera", named="VeRA", steps=3).as_dict()
    write_failure(tmp_path, "broken", {"kind": "out of memory", "error": "no 5 % left", "config": config})
    return tmp_path


def test_every_run_is_a_row_in_an_order_that_does_not_change(root: Path) -> None:
    table = results(root)
    assert list(table.columns[: len(RUN)]) == list(RUN)
    assert [tuple(row) for row in table[["method", "seed", "status"]].itertuples(index=False)] == [
        ("CP (LoRTA)", 0, "finished"),
        ("CP (LoRTA)", 1, "finished"),
        ("LoRA", 0, "finished"),
        ("LoRA", 1, "finished"),
        ("VeRA", 0, "failed"),
    ]
    assert table["score"][0] == 0.8 and table["note"].iloc[-1] == "out of memory: no 5 % left"
    assert set(table["rank"].dropna()) == {4, "dim=3 head=2"}


def test_a_row_is_what_the_store_has_and_tuning_runs_are_marked(tmp_path: Path) -> None:
    runs = sweep(tmp_path, ("sst2",))
    every, reported = results(tmp_path, tuning=True), results(runs)
    assert (len(every), len(reported)) == (51, 39) and every["tuning"].sum() == 12
    assert not reported["tuning"].any()
    by_id = {run.name: run for run in runs}
    for row in every.itertuples():
        run = by_id[row.id]
        assert (row.method, row.task, row.seed) == (run.row["method"], "sst2", run.row["seed"])
        score = None if row.tuning else row.score  # a run that chose a rate has no test score
        assert (row.n_params, score, row.chance) == (run.row["n_params"], run.row["score"], 0.5)
        assert math.isnan(row.score) == row.tuning
        assert row.path == str(run.path)
    assert len(results(tmp_path, where=["method=lora", "n_params<20000"])) == 3
    assert results(runs, where="method=lora").equals(results(tmp_path, where="method=lora"))


def test_columns_have_the_types_of_their_values(tmp_path: Path) -> None:
    write_synthetic(tmp_path)
    table = results(tmp_path)
    assert {str(table[name].dtype) for name in ("n_params", "seed", "rank", "budget", "steps")} == {"Int64"}
    assert table["score"].dtype == float and table["tuning"].dtype == bool


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
def test_conditions_hold_of_what_is_shown(root: Path, where: list[str], methods: set[str]) -> None:
    assert set(results(root, where=where)["method"]) == methods


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("lora", "condition 'lora' has none of"),
        ("tsk=rte", "unknown column 'tsk'; did you mean \"task\""),
        ("n_params<=5k", "condition 'n_params<=5k': '5k' is no number; expected one, as n_params is a number"),
        ("score>0,5", "'0,5' is no number"),
        ("tuning=maybe", "'maybe' is neither yes nor no; expected one, as in tuning=no"),
        ("status=collapsed", "unknown status 'collapsed'. Valid: finished, at chance, diverged, failed$"),
    ],
)
def test_a_condition_that_cannot_be_read_is_refused(root: Path, where: str, says: str) -> None:
    with pytest.raises(ta.TensorAdaptError, match=says):
        results(root, where=[where])


def test_a_run_at_chance_is_found_by_that_status(root: Path) -> None:
    folder = write_synthetic(root, parameterization="tt", status="at chance")
    assert list(results(root, where="status=at chance")["id"]) == [folder.name]


def test_what_is_no_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ta.TensorAdaptError, match="runs is 3; expected a list"):
        results(3)  # type: ignore[arg-type]
    with pytest.raises(ta.TensorAdaptError, match="does not exist; expected a folder of runs"):
        results(tmp_path / "absent")


def test_one_sweep_of_a_folder_has_its_own_names_of_methods(tmp_path: Path) -> None:
    ta.sweep({**TINY, "rank": 1}, tmp_path, executor="inline", device="cpu", say=lambda _: None)
    named = write_spec(tmp_path, rank=1, method=[{"method": "lora", "name": "mine"}])
    ta.sweep(named, tmp_path, executor="inline", device="cpu", say=lambda _: None)
    assert len(results(tmp_path)) == 2 and list(results(tmp_path, spec=named)["method"]) == ["mine"]
    with pytest.raises(ta.TensorAdaptError, match=r"has no sweep of .*spec\.toml on record"):
        results(tmp_path, spec=write_spec(tmp_path, rank=2))
