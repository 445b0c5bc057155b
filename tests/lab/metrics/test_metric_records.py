"""Records of metrics: what is chance and what is within noise of it, names and places, ranges, and what is refused."""

from __future__ import annotations

import math
import sys
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tensoradapt as ta
from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab import tasks
from tensoradapt.lab.metrics.library import check_fits, check_reported, metric_name, resolve
from tensoradapt.lab.metrics.metric import Metric, of_correlation, of_share
from tensoradapt.lab.metrics.table import TABLE
from tensoradapt.lab.tasks.splits import Split


def split_of(*labels: float) -> Split:
    kind = np.int64 if all(isinstance(label, int) for label in labels) else np.float64
    return Split(None, np.array(labels, dtype=kind), tuple(map(str, range(len(labels)))))


BOTH = split_of(0, 1, 1, 0, 1)
NUMBERS = split_of(0.5, 1.5, -2.0, 0.25)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=30))
def test_chance_of_an_accuracy_is_the_share_of_the_largest_class(labels: list[int]) -> None:
    metric = TABLE["accuracy"]
    assert metric.chance(metric.score, split_of(*labels), 3) == max(map(labels.count, labels)) / len(labels)


def test_chance_is_the_best_constant_answer_and_not_known_before_there_are_labels() -> None:
    likelihood, error = resolve("neg_log_loss"), resolve("neg_mean_squared_error")
    assert likelihood.chance(likelihood.score, BOTH, 2) == pytest.approx(0.6 * math.log(0.6) + 0.4 * math.log(0.4))
    assert error.chance(error.score, NUMBERS, 1) == pytest.approx(-NUMBERS.labels.var())
    assert math.isnan(TABLE["f1"].chance(TABLE["f1"].score, split_of(-1, -1), 2))
    assert [TABLE[name].chance(TABLE[name].score, NUMBERS, 1) for name in ("pearson", "kendall")] == [0, 0]


@pytest.mark.parametrize(("noise", "error"), [(of_share, math.sqrt(0.24 / 100)), (of_correlation, 0.1)])
def test_a_value_is_at_chance_up_to_two_standard_errors_above_it(noise: ta.Metric, error: float) -> None:
    metric = Metric("made", TABLE["accuracy"].score, noise=noise)  # type: ignore[arg-type]
    split = split_of(*[0] * 100)
    assert metric.at_chance(0.6 + 1.99 * error, 0.6, split) and not metric.at_chance(0.6 + 2.01 * error, 0.6, split)
    assert metric.at_chance(math.nan, 0.6, split)
    sure = Metric("made", TABLE["accuracy"].score)
    assert sure.at_chance(0.6, 0.6, split) and not sure.at_chance(0.6001, 0.6, split)


def test_every_metric_that_a_task_reports_is_better_when_larger_and_within_its_range() -> None:
    for name in tasks.names():
        check_reported(tasks.get(name).metric)
        for metric in tasks.get(name).all_metrics:
            assert metric.low < metric.high


def test_a_name_stands_for_a_record_and_a_record_of_a_module_for_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("my_metrics")
    source = "def hits(labels, predicted):\n    return (labels == predicted).sum()\ndef cost(stored, split): return 2.0"
    exec(source, module.__dict__)
    module.COST = Metric("cost", module.cost, high=3.0)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_metrics", module)
    assert resolve("f1") is TABLE["f1"] and metric_name(TABLE["f1"]) == "f1"
    assert metric_name(module.hits) == "my_metrics:hits" and metric_name(module.COST) == "my_metrics:COST"
    assert resolve("my_metrics:COST") is module.COST and resolve(module.COST) is module.COST
    hits = resolve("my_metrics:hits")
    assert hits.name == "my_metrics:hits" and hits.examples is None
    assert hits.score(np.eye(2)[[0, 1, 1, 1, 1]], BOTH) == 4
    with pytest.raises(TensorAdaptError, match="'cost' is no value of module my_metrics"):
        metric_name(Metric("cost", module.cost))
    module.three = 3  # type: ignore[attr-defined]
    with pytest.raises(TensorAdaptError, match="'my_metrics:three' is 3; expected a Metric or a function"):
        resolve("my_metrics:three")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": ""}, "name of a metric is ''; expected a text"),
        ({"score": 0.5}, "score of metric 'made' is 0.5; expected a function"),
        ({"examples": "mean"}, "examples of metric 'made' is 'mean'"),
        ({"chance": 0.5}, "chance of metric 'made' is 0.5; expected a function"),
        ({"low": 1.0, "high": 1.0}, "metric 'made' goes from 1.0 to 1.0; expected low below high"),
        ({"high": math.nan}, "expected low below high"),
        ({"low": "0"}, "metric 'made' goes from '0' to inf; expected low below high"),
    ],
)
def test_a_record_that_cannot_be_used_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(TensorAdaptError, match=message):
        Metric(**{"name": "made", "score": TABLE["accuracy"].score, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("metric", "split", "n_labels", "message"),
    [
        ("spearman", BOTH, 2, r"'spearman' does not fit labels of 2 classes: it is of numbers, and scores have shape"),
        ("accuracy", NUMBERS, 1, r"'accuracy' does not fit labels that are numbers: it is of classes"),
        ("f1", split_of(0, 1, 2), 3, r"'f1' does not fit labels of 3 classes: it is for 2 classes.*f1_macro[^;]*$"),
        (
            "neg_mean_squared_log_error",
            NUMBERS,
            1,
            "does not fit labels that are numbers: .*; choose a metric for labels that are numbers",
        ),
        (Metric("nothing", lambda stored, split: math.nan), BOTH, 2, "has no finite value for these labels"),
        (Metric("same", lambda stored, split: 1.0), BOTH, 2, "is 1 for a perfect answer and 1 for a constant one"),
        (Metric("loss", lambda stored, split: 1.0, larger_is_better=False), BOTH, 2, "of metric 'loss' less is better"),
    ],
)
def test_a_metric_that_does_not_fit_is_refused(metric: str | Metric, split: Split, n_labels: int, message: str) -> None:
    with pytest.raises(TensorAdaptError, match=message):
        check_fits(resolve(metric), split, n_labels)
