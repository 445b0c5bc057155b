"""save_pretrained of a model with adapters: refused, but for a Trainer's checkpoints and once adapters are gone."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

import tensoradapt as ta
from tensoradapt.errors import TensorAdaptError

SIZES = {"hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 3, "vocab_size": 30}
IDS = torch.arange(8)[None]


def adapted() -> BertForSequenceClassification:
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(**SIZES)).eval()
    adapter = ta.attach(model, ta.plan(model, method="lora", rank=2, scale=1.0))
    for parameter in adapter.parameters():
        nn.init.normal_(parameter)
    return model


def again(model: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(model))


@pytest.mark.parametrize("change", [lambda model: model, ta.merge, copy.deepcopy, again])
def test_an_adapted_model_is_not_saved(change: Callable[[nn.Module], nn.Module], tmp_path: Path) -> None:
    model = adapted()
    changed = change(model)
    model = changed if isinstance(changed, nn.Module) else model
    for part in (model, model.bert):
        with pytest.raises(TensorAdaptError, match=r"call ta.merge_and_unload\(model\) first to save"):
            part.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("end", [ta.merge_and_unload, ta.detach])
def test_a_model_without_adapters_is_saved_as_it_computes(end: Callable[[nn.Module], object], tmp_path: Path) -> None:
    model = adapted()
    end(model)
    model.save_pretrained(tmp_path)
    loaded = BertForSequenceClassification.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(loaded(IDS).logits, model(IDS).logits, rtol=0, atol=1e-7)
    assert not any("save_pretrained" in vars(module) for module in model.modules())


def test_a_checkpoint_of_training_is_saved_and_loads_again(tmp_path: Path) -> None:
    model, other = adapted(), adapted()
    for parameter in other.parameters():
        nn.init.zeros_(parameter)
    model.save_pretrained(tmp_path / "checkpoint-1", state_dict=model.state_dict())
    from safetensors.torch import load_file

    other.load_state_dict(load_file(tmp_path / "checkpoint-1" / "model.safetensors"), strict=False)
    assert torch.equal(other(IDS).logits, model(IDS).logits)


def test_merged_weights_are_not_loaded_into_an_unmerged_model_nor_the_other_way() -> None:
    merged, unmerged = adapted(), adapted()
    ta.merge(merged)
    for source, target, found in ((merged, unmerged, "merged"), (unmerged, merged, "not merged")):
        before = {name: value.clone() for name, value in target.state_dict().items()}
        for strict in (True, False):
            with pytest.raises(TensorAdaptError, match=f"a model whose adapters are {found}, and those of this model"):
                target.load_state_dict(source.state_dict(), strict=strict)
        assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())
