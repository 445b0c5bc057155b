"""What is computed from committed intervals and scores by seed is what the scores of test examples say."""

from __future__ import annotations

import committed
import numpy as np
import pandas as pd
import pytest

from tensoradapt.analysis.statistics.intervals import paired_difference
from tensoradapt.analysis.statistics.significance import crossed_paired_p, holm
from tensoradapt.analysis.tables import one_sided

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


def p_apart(first: np.ndarray, second: np.ndarray) -> float:
    """The larger one of two one-sided p values, from scores of examples."""
    sides = (first, second), (second, first)
    return max(one_sided(crossed_paired_p(a + MARGIN, b), float((a - b).mean()) + MARGIN) for a, b in sides)


def test_sizes_are_alike_as_the_scores_of_test_examples_say(scores: dict[str, np.ndarray]) -> None:
    told = committed.alike(*tables(scores), MARGIN)
    wanted = [p_apart(scores[name], scores["lora"]) for name in SIZES]
    assert told["p_apart"].to_numpy() == pytest.approx(wanted, rel=1e-6)
    assert told["p_apart_holm"].to_numpy() == pytest.approx(holm(wanted), rel=1e-6)
    assert [*told["alike"]] == [True, False, True] and [*told["n_seeds"]] == [SEEDS] * 3


def test_what_test_examples_add_gives_the_same_as_the_interval_alone(scores: dict[str, np.ndarray]) -> None:
    pairs, runs = tables(scores)
    known = [paired_difference(scores[name], scores["lora"]).sd_examples for name in SIZES]
    told = committed.alike(pairs.assign(sd_examples=known), runs, MARGIN)
    assert told["p_apart"].to_numpy() == pytest.approx(committed.alike(pairs, runs, MARGIN)["p_apart"], rel=1e-6)


def test_which_of_two_is_ahead_makes_no_difference(scores: dict[str, np.ndarray]) -> None:
    pairs, runs = tables(scores)
    turned = runs.assign(score=-runs["score"])
    ends = {"difference": -pairs["difference"], "low": -pairs["high"], "high": -pairs["low"]}
    pd.testing.assert_frame_equal(
        committed.alike(pairs.assign(**ends), turned, MARGIN)[["p_apart", "alike"]],
        committed.alike(pairs, runs, MARGIN)[["p_apart", "alike"]],
    )


def test_sizes_with_more_than_a_tenth_more_parameters_are_no_pair(scores: dict[str, np.ndarray]) -> None:
    pairs, runs = tables(scores)
    runs.loc[runs["method"].eq("far"), "n_params"] = pairs.loc[pairs["method"].eq("far"), "n_params"] = 111
    assert [*committed.alike(pairs, runs, MARGIN)["method"]] == ["near", "noisy"]
