"""The table of methods says what plans say, and the candidates for a purpose fit the budget."""

from __future__ import annotations

from typing import Any

import pytest

import tensoradapt as ta
from tensoradapt import parameterizations, published
from tensoradapt.lab.choose import PURPOSES
from tensoradapt.lab.methods import COLUMNS, MINILM, paper_arguments, usual_arguments
from tensoradapt.published import registry as every

TABLE = ta.methods()


def test_each_method_is_a_row_with_its_kind_and_texts_without_marks() -> None:
    assert list(TABLE.columns) == COLUMNS and TABLE["name"].tolist() == list(every.names())
    kinds = {name: "parameterization" if name in parameterizations.names() else "published" for name in TABLE["name"]}
    assert dict(zip(TABLE["name"], TABLE["kind"], strict=True)) == kinds
    texts = TABLE[["formula", "when", "source"]].to_numpy().ravel()
    assert not [text for text in texts if "`" in text or ":math:" in text]
    assert all(TABLE["formula"]) and all(TABLE.loc[TABLE["name"] != "dense", ["when", "source"]].to_numpy().ravel())


@pytest.mark.parametrize("name", TABLE["name"])
def test_a_row_has_the_numbers_of_its_plan(name: str) -> None:
    row = TABLE.set_index("name").loc[name]
    plan = ta.plan(MINILM, **usual_arguments(name, MINILM), rank=8)
    assert row["n_params"] == plan.n_params
    assert row["lora_rank"] == max(group.network.cut.rank for group in plan.groups)
    assert set(row["layout"].split("; ")) == {str(group.network.layout) for group in plan.groups}


@pytest.mark.parametrize("row", published.every(), ids=lambda row: row.name)
def test_the_arguments_of_a_paper_plan_its_adapter(row: Any) -> None:
    assert ta.plan(MINILM, **paper_arguments(row), rank=4).paper == row.name


@pytest.mark.thorough
@pytest.mark.parametrize("budget", [500, 5_000, 50_000])
def test_a_budget_leaves_what_fits_it(budget: int) -> None:
    table = ta.methods(budget=budget)
    assert (table["n_params"] <= budget).all() and set(table["name"]) < set(TABLE["name"])
    assert len(ta.methods(budget=2 * budget)) >= len(table)


def test_a_model_may_be_a_name_a_config_or_a_model_without_some_methods() -> None:
    table = ta.methods("tiny-random-bert", rank=2)
    assert table["n_params"].isna().any() and table["n_params"].notna().any()  # no split of width 24 is published
    with pytest.raises(ta.TensorAdaptError, match="unknown model"):
        ta.methods("./no-such-model")


@pytest.mark.parametrize("purpose", PURPOSES)
@pytest.mark.parametrize("budget", [4_000, 20_000, 200_000])
def test_candidates_fit_the_budget_and_are_planned_as_they_say(purpose: str, budget: int) -> None:
    table = ta.choose(MINILM, budget, purpose)
    assert 1 <= len(table) <= 3 and (table["n_params"] <= budget).all()
    for row in table.itertuples():
        given = usual_arguments(row.method, MINILM, row.layout)
        assert ta.plan(MINILM, **given, budget=budget).n_params == row.n_params
    if purpose == "rank":
        assert table["lora_rank"].is_monotonic_decreasing


def test_a_budget_that_nothing_fits_says_what_the_smallest_needs() -> None:
    with pytest.raises(ta.TensorAdaptError, match=r"budget is 400, which no candidate .* the smallest needs 438"):
        ta.choose(MINILM, 400)
    assert ta.choose(MINILM, 438)["n_params"].tolist() == [438]
