"""A record of own data that was written, as JSON, as TOML or as words of a command line, is read as it was."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.written_records import from_words, to_toml, to_words

from tensoradapt.lab.tasks.kinds import kinds, roles
from tensoradapt.lab.tasks.own_settings import LABELLED, OwnData
from tensoradapt.records import as_json, read

TEXTS = st.text(min_size=1, max_size=6).filter(lambda text: text.isprintable() and text.strip())
WORDS = TEXTS | st.sampled_from(("8", "true", "null", "-x", "--text", "a=b", '"q"', "[1]", "a b"))
PLACES = WORDS.filter(lambda text: "\0" not in text).map(lambda text: str(Path(text)))
SHARE = st.floats(0.01, 0.99)
FIELDS: dict[str, Any] = {
    "name": WORDS,
    "train": PLACES,
    "validation": PLACES,
    "test": PLACES,
    "dataset": PLACES,
    "subset": WORDS,
    "split": st.dictionaries(st.sampled_from(("validation", "test")), SHARE, min_size=1),
    "seed": st.integers(0, 2**63 - 1),
    "text": st.lists(WORDS, min_size=1, max_size=2, unique=True),
    "label": WORDS,
    "labels": st.lists(WORDS | st.integers(0, 9), min_size=1, max_size=3, unique_by=str),
    "kind": st.sampled_from((*LABELLED, *kinds())),
    "columns": st.dictionaries(st.sampled_from(roles()), WORDS, min_size=1),
    "beta": st.floats(1e-3, 1e3),
    "metric": WORDS,
    "max_length": st.integers(1, 2**31 - 1),
}


def through_json(own: OwnData) -> OwnData:
    return read(OwnData, json.loads(json.dumps(as_json(own))))


def through_toml(own: OwnData) -> OwnData:
    return read(OwnData, tomllib.loads(to_toml(own)))


def through_words(own: OwnData) -> OwnData:
    return read(OwnData, from_words(OwnData, to_words(own)))


@pytest.mark.parametrize("through", [through_json, through_toml, through_words])
@given(
    drawn=st.fixed_dictionaries({"train": PLACES}, optional={name: FIELDS[name] for name in FIELDS if name != "train"})
)
def test_a_record_of_own_data_that_was_written_is_read_as_it_was(through: Any, drawn: dict[str, Any]) -> None:
    assert through(OwnData(**drawn)) == OwnData(**drawn)
