"""What test examples contribute to the metrics of the plug-in's own tasks, by leaving each example out."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from support.jackknife import check_metrics_of, split_of, stored_of

from tensoradapt.lab.tasks import registry

STORED = {"ultrafeedback": (4, 3), "folding": (4, 1), "antibody-mlm": (3, 2)}  # columns, and the one that divides


@pytest.mark.parametrize("task", STORED)
def test_their_mean_is_the_metric_and_each_is_the_jackknifes_pseudo_value(task: str) -> None:
    check_metrics_of(registry.resolve(task)[0], stored_of(600, *STORED[task]), split_of(np.zeros(600, dtype=int)))


def test_questions_have_no_part_in_the_likelihood_of_answers() -> None:
    ids = tuple(f"{'boolq' if i % 3 == 0 else 'alpaca'}-{i}" for i in range(600))
    split = dataclasses.replace(split_of(np.zeros(600, dtype=int)), ids=ids)
    task, stored = registry.resolve("alpaca")[0], stored_of(600, 7, 1)
    check_metrics_of(task, stored, split)
    others = stored.copy()
    others[::3, :2] = 100.0
    assert task.metric.score(others, split) == task.metric.score(stored, split)
