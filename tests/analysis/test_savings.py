"""The smallest size within a margin of LoRA r=8, against runs of known accuracy."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.synthetic_runs import write_synthetic

import tensoradapt as ta
from tensoradapt.analysis.old_tables.savings import savings
from tensoradapt.runs.store import load_runs

SEEDS = range(4)


def write(root: Path, parameterization: str, rank: int, n_params: int, accuracy: float, spread: float = 0.0) -> None:
    for seed in SEEDS:
        write_synthetic(
            root,
            parameterization=parameterization,
            rank=rank,
            n_params=n_params,
            seed=seed,
            accuracy=accuracy + spread * (seed - 1.5),
            n_test=4000,
            budget=None,
            predictions=False,
        )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, "lora", 1, 2_000, 0.80)
    write(tmp_path, "lora", 8, 16_000, 0.85)
    write(tmp_path, "lora", 32, 64_000, 0.86)
    write(tmp_path, "cp", 4, 400, 0.82)
    write(tmp_path, "cp", 16, 1_600, 0.835)
    write(tmp_path, "cp", 64, 6_400, 0.845)
    write(tmp_path, "tucker", 4, 900, 0.85, spread=0.02)
    return tmp_path


def test_the_smallest_size_within_each_margin_is_found(root: Path) -> None:
    rows = {(row["method"], row["margin"]): row for row in savings(load_runs(root))}
    cp = rows["CP (LoRTA)", 0.01]
    assert (cp["within"], cp["size"], cp["n_params"], cp["times_fewer"]) == (True, "r=64", 6_400, 2.5)
    assert cp["reference"] == "LoRA r=8" and cp["low"] == pytest.approx(-0.005) and cp["n_seeds"] == 4
    assert rows["CP (LoRTA)", 0.02]["n_params"] == 1_600
    assert rows["LoRA", 0.01]["n_params"] == 64_000  # r=8 is the reference, r=1 is too far below it


def test_a_good_mean_with_a_wide_interval_is_not_within(root: Path) -> None:
    (tucker,) = [row for row in savings(load_runs(root), [0.02]) if row["method"] == "Tucker"]
    assert tucker["difference"] == pytest.approx(0) and tucker["low"] < -0.02
    assert (tucker["within"], tucker["n_params"]) == (False, 900)
    assert next(row for row in savings(load_runs(root), [0.1]) if row["method"] == "Tucker")["within"]


def test_without_lora_the_largest_size_is_the_reference_and_a_margin_is_above_zero(tmp_path: Path) -> None:
    assert savings([]) == []
    write(tmp_path, "cp", 4, 400, 0.82)
    write(tmp_path, "cp", 16, 1_600, 0.82)
    (row,) = savings(load_runs(tmp_path), [0.01])
    assert (row["size"], row["reference"], row["times_fewer"]) == ("r=4", "CP (LoRTA) r=16", 4)
    with pytest.raises(ta.TensorAdaptError, match=r"margins\[0\] is 0; expected a difference in score above 0"):
        savings(load_runs(tmp_path), [0])
