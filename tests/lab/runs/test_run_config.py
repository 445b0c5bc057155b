"""The records of a run: their names, their defaults, their ids, and that reading what was written changes nothing."""

from __future__ import annotations

import argparse
import inspect
import json
import tomllib
from dataclasses import MISSING, fields, replace
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given as drawn_from
from hypothesis import settings
from hypothesis import strategies as st
from support.written_records import to_toml, to_words

import tensoradapt as ta
from tensoradapt import records
from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.runs.config import FORMAT, DataSpec, RunConfig
from tensoradapt.planning.spec import AdapterSpec
from tensoradapt.training.options import OPTIMIZERS, PRECISIONS, WAYS, Training

RECORDS = (AdapterSpec, Training, DataSpec, RunConfig)
CONFIG = RunConfig("tiny-random-bert", "planted", Training(1e-3, 60), adapter=AdapterSpec("cp", rank=4))
FULL = replace(CONFIG, kind="full", adapter=None, method=None)
# who changes a default gives old ids another meaning, and raises FORMAT with it
DEFAULTS: dict[str, dict[str, Any]] = {
    "AdapterSpec": {
        **dict.fromkeys(("method", "layout", "rank", "budget", "projections", "scale", "alpha", "start", "options")),
        **dict.fromkeys(("split", "on_mismatch", "rates", "start_rate", "frozen", "shared", "sum", "map")),
        "rank_pattern": None,
        **{"paper": False, "rule": "add", "train": ("auto",), "tasks": (), "dropout": 0.0, "rank_dropout": 0.0},
    },
    "Training": {
        **{"head_lr": None, "optimizer": "adamw", "warmup": 0.1, "clip": 1.0, "weight_decay": 0.0},
        **{"precondition": None, "orthonormal": None, "precision": "fp32"},
    },
    "DataSpec": {
        "n_train": None,
        "n_validation": None,
        "n_test": None,
        "batch": 32,
        "max_length": 64,
        "readout": "model",
    },
    "RunConfig": {
        **{"kind": "adapter", "adapter": None, "data": DataSpec(), "seed": 0, "own": {}, "tuning": False},
        **{"fitted": False, "method": None},
    },
}


def test_defaults_are_those_of_the_format() -> None:
    found = {
        kind.__name__: {f.name: records.default_of(f) for f in fields(kind) if records.default_of(f) is not MISSING}
        for kind in RECORDS
    }
    assert (FORMAT, found) == (1, DEFAULTS)


def test_a_name_belongs_to_one_record() -> None:
    for one, other in combinations(RECORDS, 2):
        shared = set(records.names(one)) & set(records.names(other))
        # what tables call a run's method is its adapter's method, unless a sweep names it
        assert shared == ({"method"} if {one, other} == {AdapterSpec, RunConfig} else set())


def test_fit_has_the_names_and_defaults_of_training() -> None:
    written = inspect.signature(ta.fit).parameters
    for name, parameter in inspect.signature(Training).parameters.items():
        assert written[name].default == parameter.default, name


def test_the_id_is_that_of_the_format_and_the_fields_that_differ_from_their_defaults() -> None:
    asked = {"model": "tiny-random-bert", "task": "planted", "training": {"lr": 1e-3, "steps": 60}}
    assert CONFIG.id == records.digest({"format": FORMAT, **asked, "adapter": {"method": "cp", "rank": 4}})
    assert FULL.id == records.digest({"format": FORMAT, **asked, "kind": "full"})
    for same in (
        {"method": "mine"},
        {"data": DataSpec(batch=32)},
        {"training": Training(1e-3, 60.0, clip=1)},
        {"adapter": AdapterSpec("CP (LoRTA)", rank=4, rule="add")},
    ):
        assert replace(CONFIG, **same).id == CONFIG.id
    own = replace(CONFIG, own={"hash": "a"})
    assert own.id == replace(CONFIG, own={"hash": "a", "source": "here"}).id != CONFIG.id
    for other in (
        {"data": DataSpec(batch=16)},
        {"tuning": True},
        {"training": Training(1e-3, 60, clip=2.0)},
        {"adapter": AdapterSpec("cp", rank=4, alpha=2.0)},
        {"adapter": AdapterSpec("lorta", rank=4, paper=True)},
    ):
        assert replace(CONFIG, **other).id != CONFIG.id


@pytest.mark.parametrize("config", [CONFIG, FULL, replace(CONFIG, own={"hash": "a"}, seed=7, method="mine")])
def test_reading_a_config_json_gives_the_config(config: RunConfig) -> None:
    assert RunConfig.from_dict(json.loads(json.dumps(config.as_dict()))) == config


rates = st.floats(1e-6, 1e3, allow_subnormal=False)
some = st.none() | st.integers(1, 10**6)
trainings = st.builds(
    Training, rates, st.integers(1, 10**6), st.none() | rates, optimizer=st.sampled_from(OPTIMIZERS),
    warmup=st.floats(0, 0.9), clip=rates, weight_decay=st.floats(0, 1), precondition=st.none() | rates,
    orthonormal=st.none() | st.sampled_from(WAYS), precision=st.sampled_from(PRECISIONS),
)  # fmt: skip
datas = st.builds(DataSpec, some, some, some, st.integers(1, 512), st.integers(1, 512))


@settings(max_examples=50)
@drawn_from(trainings, datas, st.integers(0, 2**63 - 1))
def test_reading_what_was_written_is_the_identity(training: Training, data: DataSpec, seed: int) -> None:
    for record in (training, data):
        kind: Any = type(record)
        parser = argparse.ArgumentParser()
        records.add_options(parser, kind)
        words = records.given_options(parser.parse_args(to_words(record)), kind)
        tables = [json.loads(json.dumps(records.as_json(record))), tomllib.loads(to_toml(record)), words]
        assert [records.read(kind, table) for table in tables] == [record] * 3
    config = replace(CONFIG, training=training, data=data, seed=seed)
    again = RunConfig.from_dict(json.loads(json.dumps(config.as_dict())))
    assert again == config and again.id == config.id


def test_a_run_has_the_name_of_its_method_unless_a_sweep_names_it() -> None:
    assert (CONFIG.method, FULL.method) == ("cp", "full fine-tuning")
    assert replace(CONFIG, method="mine").title == "mine r=4, seed 0"


def test_a_run_plans_its_task_where_a_layout_has_one() -> None:
    assert CONFIG.to_plan(("classifier",)) == AdapterSpec("cp", rank=4, train=("classifier",))
    tasks = AdapterSpec("cp", "task layer proj : out : in", 4)
    assert replace(CONFIG, adapter=tasks).to_plan() == replace(tasks, train=(), tasks=("planted",))


def given(**fields: Any) -> dict[str, Any]:
    return {**CONFIG.as_dict(), **fields}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (given(format=0), "format is 0; this version of tensoradapt reads format 1"),
        (given(batch=2), "unknown key batch"),
        (given(tasks="planted"), "unknown key tasks; it is called task"),
        (given(kind="head"), "an adapter was given with kind 'head'; expected one exactly where kind is \"adapter\""),
        (given(adapter=None), "no adapter was given with kind 'adapter'"),
        (given(training={"lr": 1e-3}), "training: steps is missing; expected number of optimizer steps"),
        (given(training={"lr": True, "steps": 1}), "training: lr is True; expected a finite number above 0"),
        (given(data={"batsh": 2}), 'data: unknown key batsh; did you mean "batch"?'),
        (given(adapter={"rank": 2}), "adapter: method is None; expected the name of a method"),
        (
            given(adapter={"method": "cp", "train": ["a"]}),
            "adapter: train is ('a',); leave it out, as the task sets it",
        ),
        (given(adapter={"method": "cp", "start": "gradient"}), 'adapter: start is "gradient", which takes batches'),
        (
            given(adapter={"method": "eva"}),
            "adapter: method 'eva' has the start \"eva\", which takes batches; expected",
        ),
        (given(seed=-1), "seed is -1; expected a whole number from 0"),
        (given(own=[]), "own is []; expected a mapping"),
        (given(model="x" * 1001), "expected a name of at most 1,000 characters"),
    ],
)
def test_a_config_that_no_run_can_use_is_refused(record: dict[str, Any], message: str) -> None:
    with pytest.raises(TensorAdaptError) as error:
        RunConfig.from_dict(record)
    assert message in str(error.value)
