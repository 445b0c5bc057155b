"""Runs of two specifications in one folder are compared, or averaged, where they were made by one protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.sweeping import sweep

import tensoradapt as ta

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
