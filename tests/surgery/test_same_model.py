"""A plan goes on the model that it was made for, without its head too, and on none with other heads or layers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from support.models import inputs, make, perturb
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
)

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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small BERT without a head."""
    folder = tmp_path_factory.mktemp("bert")
    make("bert").bert.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("auto", [AutoModelForMaskedLM, AutoModelForSequenceClassification])
def test_a_plan_of_a_name_is_attached_saved_and_loaded(auto: Any, folder: Path, tmp_path: Path) -> None:
    plan = ta.plan(str(folder), "cp", rank=3)
    torch.manual_seed(0)
    first, second = (auto.from_pretrained(folder) for _ in range(2))
    second.load_state_dict(first.state_dict())  # the head of a classifier is drawn
    adapter = ta.attach(first, plan)
    assert [site.module for site in adapter.plan.sites] == [f"bert.{site.module}" for site in plan.sites]
    own = ta.plan(first, "cp", rank=3)
    assert [group.members for group in adapter.plan.groups] == [group.members for group in own.groups]
    perturb(adapter)
    adapter.save(tmp_path / "adapter")
    ta.load(second, tmp_path / "adapter")
    batch = {"input_ids": inputs("bert")["input_ids"]}
    torch.testing.assert_close(first(**batch).logits, second(**batch).logits, rtol=0, atol=0)


def test_a_plan_of_a_language_model_goes_on_its_base(folder: Path) -> None:
    plan, base = (
        ta.plan(AutoModelForMaskedLM.from_pretrained(folder), "lora", rank=2),
        AutoModel.from_pretrained(folder),
    )
    adapter = ta.attach(base, plan)
    assert {f"bert.{site.name}" for site in adapter.plan.sites} == {site.name for site in plan.sites}
