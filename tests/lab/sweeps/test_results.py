"""The table of a folder of runs: every run is a row, conditions hold, and only runs of one protocol are compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.configs import config_of
from support.sweeping import sweep
from support.synthetic_runs import write_synthetic

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


GRID = {"lr": [1e-3, 3e-3], "tuning": {"seed": [7], "extend": 0}}


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("first", "second", "says", "where"),
    [
        ({}, {"steps": 8}, "lorta r=1 has steps 8, and lora r=1, which .* has steps 4, in", "where='steps=4' "),
        ({}, {"batch": 16}, "has batch 16, and lora r=1, which .* has batch 32, in", "where='batch=32' "),
        ({}, {"n_test": 16}, "has n_test 16, and lora r=1, which .* has n_test 32, in", "where='n_test=32' "),
        ({"n_test": None}, {}, "has n_test 32, and lora r=1, which .* has n_test all, in", "where='n_test!=32' "),
        (GRID, {}, "has a rate that was given, and .* has a rate chosen with seeds 7, in", "where='tuned_on=7' "),
    ],
)
def test_a_method_is_not_compared_with_a_reference_of_another_protocol(
    first: dict[str, Any], second: dict[str, Any], says: str, where: str, tmp_path: Path
) -> None:
    sweep(tmp_path, method="lora", **first)
    assert ta.compare(tmp_path).empty
    sweep(tmp_path, method="lorta", **second)
    for source in (tmp_path, ta.results(tmp_path)):
        with pytest.raises(
            ta.TensorAdaptError, match=f"{says} runs of different specifications; expected one protocol"
        ):
            ta.compare(source)
        with pytest.raises(ta.TensorAdaptError) as refused:
            ta.compare(source, at="n_params")
        assert where in str(refused.value)


@pytest.mark.parametrize(("change", "says"), [({"batch": 16}, "batch 32 and batch 16"), ({"warmup": 0.5}, "warmup ")])
def test_seeds_of_two_settings_are_not_averaged(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    sweep(tmp_path, method="lora", seed=[0, 1])
    sweep(tmp_path, method="lora", seed=[2, 3], **change)
    with pytest.raises(ta.TensorAdaptError, match=f"lora r=1 has runs with {says}.*; expected one, as their mean"):
        ta.summarise(tmp_path)
