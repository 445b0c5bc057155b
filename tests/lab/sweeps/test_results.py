"""The table of a folder of runs: every run is a row, conditions hold, and columns have the types of their values."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.configs import config_of
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
