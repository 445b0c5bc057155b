"""What stands beside a comparison: the floor, the control of as many parameters, and validation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import tensoradapt as ta

SEEDS = range(6)
NOISE = np.array([0.001, -0.001, 0.0005, -0.0005, 0.0015, -0.0015])
SIZES = {  # method, rank: parameters, test, validation
    ("lora", 1): (100, 0.80, 0.80),
    ("lora", 2): (200, 0.82, 0.82),
    ("lora", 8): (800, 0.84, 0.84),
    ("cp", 3): (190, 0.835, 0.80),
    ("tucker", 3): (60, 0.79, 0.79),
}


def table(floor: float | None = 0.78, **validation: float) -> pd.DataFrame:
    rows = []
    for (method, rank), (n, score, checked) in SIZES.items():
        checked = validation.get(method, checked)
        for seed, noise in zip(SEEDS, NOISE, strict=True):
            own = {"task": "t", "method": method, "parameterization": method, "rank": rank, "n_params": n, "seed": seed}
            # noise of its own for each size, so that differences have a spread
            own |= {"score": score + np.roll(NOISE, rank)[seed], "validation": checked + noise, "metric": "accuracy"}
            rows.append(own)
    if floor is not None:
        heads = {"task": "t", "method": "frozen base + head", "kind": "head", "n_params": 0, "metric": "accuracy"}
        rows += [{**heads, "seed": seed, "score": floor, "validation": floor} for seed in SEEDS]
    return pd.DataFrame(rows)


def compared(runs: pd.DataFrame, margin: float = 0.01) -> pd.DataFrame:
    return ta.compare(runs, "lora", at=8, margin=margin).set_index(["method", "n_params"])


def test_a_share_of_the_gain_is_over_the_floor() -> None:
    found = compared(table())
    row = found.loc[("lora", 200)]
    assert row["floor"] == pytest.approx(0.78)
    assert row["share"] == pytest.approx((0.82 - 0.78) / (0.84 - 0.78), abs=1e-3)
    assert row["margin_share"] == pytest.approx(0.01 / 0.06, abs=1e-3)
    assert compared(table(floor=None))[["floor", "share", "margin_share"]].isna().all().all()
    assert compared(table(floor=0.9))["share"].isna().all()  # the reference gains nothing


def test_the_control_is_the_references_method_at_the_nearest_count() -> None:
    found = compared(table())
    assert list(found["control"].dropna()) == ["LoRA r=1", "LoRA r=2"]  # of Tucker, and of CP
    row, runs = found.loc[("cp", 190)], table().set_index(["method", "rank"])
    gaps = runs.loc[("cp", 3)]["score"].to_numpy() - runs.loc[("lora", 2)]["score"].to_numpy()
    assert row["control_n_params"] == 200 and row["control_difference"] == pytest.approx(gaps.mean())
    p = [stats.ttest_1samp(gaps, 0).pvalue]
    others = runs.loc[("tucker", 3)]["score"].to_numpy() - runs.loc[("lora", 1)]["score"].to_numpy()
    p.append(stats.ttest_1samp(others, 0).pvalue)
    assert row["control_p_holm"] == pytest.approx(min(1, max(2 * min(p), p[0])) if p[0] > p[1] else 2 * p[0])


def test_nothing_is_decided_where_validation_says_the_contrary() -> None:
    assert compared(table()).loc[("cp", 190)][["decided", "within"]].tolist() == [True, False]  # lost 0.04 there
    assert compared(table(cp=0.838)).loc[("cp", 190)][["decided", "within"]].tolist() == [True, True]
    above = compared(table(cp=0.845)).loc[("cp", 190)]
    assert above["validation_difference"] == pytest.approx(0.005) and above["p_holm"] < 0.05 and not above["decided"]
    silent = compared(table().drop(columns="validation")).loc[("cp", 190)]
    assert pd.isna(silent["validation_difference"]) and silent["decided"] and silent["within"]


def test_a_verdict_names_the_control_and_the_share_of_the_margin() -> None:
    (said,) = ta.verdict(table(cp=0.838)).query("method == 'cp'")["sentence"]
    assert "loses less than 1 point on LoRA r=8, 17 % of what that gains over the frozen base" in said
    assert "; LoRA r=2 with 200 is " in said and said.endswith(" points lower.")


def test_of_two_floors_the_better_one_counts() -> None:
    other = table().query("kind == 'head'").assign(n_params=99, score=0.83)
    both = pd.concat([table(), other])
    assert ta.verdict(both)["floor"].tolist() == pytest.approx([0.83] * 4)
    assert ta.compare(both, "head").set_index(["method", "rank"]).loc[("lora", 2)]["difference"] < 0
    assert ta.compare(table(), "head").set_index(["method", "rank"]).loc[("lora", 2)]["difference"] > 0.03
