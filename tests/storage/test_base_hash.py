"""The hash of the base that an adapter was attached to: of every entry, by value, and of the base as it is saved."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel

import tensoradapt as ta
from tensoradapt.layers.stored_matrix import stored_matrices
from tensoradapt.surgery.base_hash import base_hash

VALUE = "encoder.layer.1.attention.self.value"


def bert() -> nn.Module:
    torch.manual_seed(0)
    return BertModel(
        BertConfig(hidden_size=48, num_attention_heads=4, num_hidden_layers=2, intermediate_size=60)
    ).eval()


def attached() -> tuple[nn.Module, ta.Adapter]:
    model = bert()
    return model, ta.attach(model, ta.plan(model, ": out : in", "lora", 2))


def refused(model: nn.Module, folder: Path) -> None:
    with pytest.raises(ta.TensorAdaptError, match="load the same base in the same dtype"):
        ta.load(model, folder)


def test_a_base_that_differs_in_any_entry_is_refused(tmp_path: Path) -> None:
    attached()[1].save(tmp_path)
    other = bert()
    other.get_submodule(VALUE).weight.data[-1, -1] += 1e-6  # its entry 2,304
    refused(other, tmp_path)
    ta.load(bert(), tmp_path)


def test_a_base_that_is_cast_after_attaching_is_the_one_that_is_asked_for(tmp_path: Path) -> None:
    model, adapter = attached()
    model.half()
    adapter.float().save(tmp_path)
    ta.load(bert().half(), tmp_path)
    refused(bert(), tmp_path)


def test_while_another_adapter_is_merged_the_hash_is_that_of_the_base(tmp_path: Path) -> None:
    model, adapter = attached()
    other = ta.attach(model, ta.plan(model, ": out : in", "lora", 2), name="other")
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.fill_(0.1)
    ta.merge(model)
    adapter.save(tmp_path)
    assert ta.load(bert(), tmp_path).attachment.base == adapter.attachment.base


def test_it_is_that_of_the_values_in_every_dtype_that_holds_them() -> None:
    model = bert().bfloat16()
    sites = ta.find_sites(model)
    dtypes = (torch.bfloat16, torch.float32, torch.float64)
    hashes = {base_hash(stored_matrices(dict(model.to(dtype).named_modules()), sites)) for dtype in dtypes}
    assert len(hashes) == 1


def test_weights_that_begin_at_an_odd_place_of_their_memory_have_the_same_hash() -> None:
    one, other = bert(), bert()
    weight = other.get_submodule(VALUE).weight
    memory = torch.zeros(weight.numel() + 1)
    memory[1:] = weight.detach().flatten()
    other.get_submodule(VALUE).weight = nn.Parameter(memory[1:].view_as(weight))
    sites = ta.find_sites(one)
    first, second = (base_hash(stored_matrices(dict(model.named_modules()), sites)) for model in (one, other))
    assert first == second
