"""A plan that was made from a model with other heads or layers is refused, though its modules and shapes are there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from transformers import BertConfig, BertForSequenceClassification, BertModel

import tensoradapt as ta

SIZES = {"hidden_size": 24, "intermediate_size": 48, "vocab_size": 64, "num_attention_heads": 4}


def config(layers: int = 2, **other: int) -> BertConfig:
    return BertConfig(**{**SIZES, **other}, num_hidden_layers=layers)


@pytest.mark.parametrize("projections", ["attention", ("q", "v"), ("up", "down")])
def test_layers_that_a_plan_says_nothing_of_are_refused(projections: str | Sequence[str]) -> None:
    plan = ta.plan(config(), "cp", rank=2, projections=projections)
    model = BertForSequenceClassification(config(layers=3))
    with pytest.raises(
        ta.TensorAdaptError, match=r"has bert.encoder.layer.2.*, which the plan neither adapts nor skips"
    ):
        ta.attach(model, plan)
    assert not ta.adapters(model)


def test_other_heads_are_refused() -> None:
    plan = ta.plan(config(), "cp", rank=2)
    with pytest.raises(ta.TensorAdaptError, match="head 4 x dim 6 in the plan and into head 6 x dim 4 in BertModel"):
        ta.attach(BertModel(config(num_attention_heads=6)), plan)


def test_a_saved_adapter_of_fewer_layers_is_loaded_with_a_warning(tmp_path: Path) -> None:
    ta.attach(BertModel(config()), "cp", rank=2).save(tmp_path)
    with pytest.warns(
        UserWarning, match=r"this BertModel has encoder.layer.2.*, which the adapter in .* does not adapt"
    ):
        ta.load(BertModel(config(layers=3)), tmp_path, strict=False)
    ta.load(BertModel(config()), tmp_path, strict=False)  # where a warning would be an error
