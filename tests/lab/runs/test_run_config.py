"""The records of a run: their names, their defaults, their ids, and that reading what was written changes nothing."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given as drawn_from
from hypothesis import settings
from hypothesis import strategies as st
from support.written_records import from_words, to_toml, to_words

from tensoradapt import doors, records
from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.runs.config import FORMAT, DataSpec, RunConfig
from tensoradapt.planning.spec import AdapterSpec
from tensoradapt.training.options import OPTIMIZERS, PRECISIONS, Training

CONFIG = RunConfig("tiny-random-bert", "planted", Training(1e-3, 60), adapter=AdapterSpec("cp", rank=4))
FULL = replace(CONFIG, kind="full", adapter=None, method=None)


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
    orthonormal=st.sampled_from((None, *doors.names("steps"))), precision=st.sampled_from(PRECISIONS),
)  # fmt: skip
datas = st.builds(DataSpec, some, some, some, st.integers(1, 512), st.integers(1, 512))


@settings(max_examples=50)
@drawn_from(trainings, datas, st.integers(0, 2**63 - 1))
def test_reading_what_was_written_is_the_identity(training: Training, data: DataSpec, seed: int) -> None:
    for record in (training, data):
        kind: Any = type(record)
        words = from_words(kind, to_words(record))
        tables = [json.loads(json.dumps(records.as_json(record))), tomllib.loads(to_toml(record)), words]
        assert [records.read(kind, table) for table in tables] == [record] * 3
    config = replace(CONFIG, training=training, data=data, seed=seed)
    again = RunConfig.from_dict(json.loads(json.dumps(config.as_dict())))
    assert again == config and again.id == config.id


def given(**fields: Any) -> dict[str, Any]:
    return {**CONFIG.as_dict(), **fields}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (given(format=0), "format is 0; this version of tensoradapt reads format 1"),
        (given(batch=2), "unknown key batch"),
        (given(kind="head"), "an adapter was given with kind 'head'; expected one exactly where kind is \"adapter\""),
        (given(training={"lr": 1e-3}), "training: steps is missing; expected number of optimizer steps"),
        (given(adapter={"rank": 2}), "adapter: method is None; expected the name of a method"),
        (
            given(adapter={"method": "cp", "train": ["a"]}),
            "adapter: train is ('a',); leave it out, as the task sets it",
        ),
        (given(adapter={"method": "cp", "start": "gradient"}), 'adapter: start is "gradient", which takes batches'),
        (given(own=[]), "own is []; expected a mapping"),
    ],
)
def test_a_config_that_no_run_can_use_is_refused(record: dict[str, Any], message: str) -> None:
    with pytest.raises(TensorAdaptError) as error:
        RunConfig.from_dict(record)
    assert message in str(error.value)
