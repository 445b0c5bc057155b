"""A plan of a name, which has the base model's names, goes on the models that hold it, and one of those on the base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.models import inputs, make, perturb
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification

import tensoradapt as ta


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
