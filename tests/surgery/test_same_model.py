"""A plan that was made from a model with other heads or layers is refused, though its modules and shapes are there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, BertModel, T5Config, T5ForConditionalGeneration

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


def test_other_heads_are_refused_of_a_saved_adapter_too(tmp_path: Path) -> None:
    ta.attach(BertModel(config()), "cp", rank=2).save(tmp_path / "adapter")
    model = BertModel(config(num_attention_heads=6))
    with pytest.raises(
        ta.TensorAdaptError, match=r"the adapter in .*adapter: site .* into head 6 x dim 4 in BertModel"
    ):
        ta.load(model, tmp_path / "adapter", strict=False)
    assert not ta.adapters(model)
    assert ta.load(BertModel(config()), tmp_path / "adapter", strict=False).n_params == 80


def test_a_part_of_the_layers_is_taken_where_the_plan_knows_the_others() -> None:
    whole = BertModel(config(layers=3))
    for sites in (ta.find_sites(whole, layers=[0, 1]), ta.find_sites(config(layers=3), exclude=["*layer.2.*"])):
        adapter = ta.attach(whole, ta.plan(sites, "cp", rank=2))
        assert {site.coord["layer"] for site in adapter.plan.sites} == {0, 1}
        ta.detach(whole)


def test_sites_listed_by_hand_are_taken_as_they_are() -> None:
    sites = [site for site in ta.find_sites(config(layers=3)) if site.coord["layer"] != 2]
    assert ta.attach(BertModel(config(layers=3)), ta.plan(sites, "cp", rank=2)).n_params > 0


def test_the_plan_of_a_loaded_adapter_goes_on_its_model_again(tmp_path: Path) -> None:
    model = BertModel(config(layers=3))
    ta.attach(model, ta.plan(ta.find_sites(model, layers=[0, 1]), "cp", rank=2)).save(tmp_path / "adapter")
    ta.detach(model)
    loaded = ta.load(model, tmp_path / "adapter")
    assert ta.attach(model, loaded.plan, name="again").plan.sites == loaded.plan.sites


@pytest.mark.parametrize("scope", ["encoder", "decoder", None])
def test_one_stack_of_two_is_taken_from_a_config_as_from_a_model(scope: str | None) -> None:
    t5 = T5Config(d_model=24, d_kv=6, num_heads=4, d_ff=48, num_layers=2, vocab_size=64, decoder_start_token_id=0)
    for source in (t5, T5ForConditionalGeneration(t5)):
        plan = ta.plan(ta.find_sites(source, ("q", "v"), scope=scope), "cp", ": head dim : model", rank=2)
        assert ta.attach(T5ForConditionalGeneration(t5), plan).n_params == plan.n_params


class Blocks(nn.Module):
    """A model of one's own without a config, of which a plan can adapt every matrix."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(layers))


def test_a_plan_that_skips_nothing_is_not_taken_by_a_model_of_more_layers() -> None:
    plan = ta.plan(ta.find_sites(Blocks(2), "all"), "lora", rank=1)
    assert plan.skipped == ()
    with pytest.raises(ta.TensorAdaptError, match=r"Blocks has blocks.2.0, which the plan neither adapts nor skips"):
        ta.attach(Blocks(3), plan)


def test_a_saved_adapter_of_fewer_layers_is_loaded_with_a_warning(tmp_path: Path) -> None:
    ta.attach(BertModel(config()), "cp", rank=2).save(tmp_path)
    with pytest.warns(
        UserWarning, match=r"this BertModel has encoder.layer.2.*, which the adapter in .* does not adapt"
    ):
        ta.load(BertModel(config(layers=3)), tmp_path, strict=False)
    ta.load(BertModel(config()), tmp_path, strict=False)  # where a warning would be an error
