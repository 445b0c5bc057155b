"""What is computed from committed intervals and scores by seed is what the scores of test examples say."""

from __future__ import annotations

import committed
import numpy as np
import pandas as pd
import pytest

from tensoradapt.lab.analysis.statistics.intervals import paired_difference
from tensoradapt.lab.analysis.statistics.significance import crossed_paired_p
from tensoradapt.lab.analysis.tables import one_sided

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
