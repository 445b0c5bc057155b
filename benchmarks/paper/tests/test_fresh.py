"""The test sentences that no run was scored on: none of them is in what was scored before."""

from __future__ import annotations

from importlib.resources import files

import pytest

import tensoradapt as ta
from tensoradapt.errors import TensorAdaptError
from tensoradapt_paper import fresh


@pytest.mark.slow
def test_no_test_sentence_was_scored_before() -> None:
    data, former = ta.load_task("snippets-fresh"), ta.load_task("snippets")
    assert (len(data.test), data.validation.ids) == (3000, former.validation.ids)
    assert set(data.test.ids) <= set(former.train.ids)
    parts = [set(part.ids) for part in data.parts]
    assert sum(map(len, parts)) == len(set.union(*parts)) == sum(map(len, former.parts))


@pytest.mark.slow
def test_sentences_of_sst2_are_left_in_training() -> None:
    try:
        found = fresh.scored_elsewhere()
    except TensorAdaptError as error:
        pytest.skip(str(error))
    listed = files("tensoradapt_paper").joinpath(fresh.SCORED).read_text().split()
    assert found == listed and not set(listed) & set(ta.load_task("snippets-fresh").test.ids)
