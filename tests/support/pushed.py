"""Adapters to push to a fake hub, and models that have what is on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.fake_hub import FakeHub
from support.models import inputs, make, perturb
from torch import nn

import tensoradapt as ta

OURS = {"adapter.json", "adapter.safetensors", "trained/model.safetensors"}
NAME = "me/my-adapter"


def trained(head: bool = True, seed: int = 7, **options: Any) -> tuple[nn.Module, ta.Adapter]:
    """A model with an adapter and a head that both changed."""
    model = make("bert", torch.float32)
    how = {"layout": "layer proj : head dim : model", "method": "cp", "rank": 2, **options}
    adapter = ta.attach(model, ta.plan(model, **how, train=("classifier",) if head else ()), seed=seed)
    perturb(adapter)
    with torch.no_grad():
        adapter.factored[0].trained["head"].mul_(1 + seed / 10)
        model.classifier.weight.mul_(1.5 if head else 1)
    return model, adapter


def logits(model: nn.Module) -> torch.Tensor:
    return model(**inputs("bert")).logits


def get(hub: FakeHub, path: Path, name: str = NAME, **options: Any) -> nn.Module:
    """A fresh base with what the hub has."""
    model = make("bert", torch.float32)
    ta.from_pretrained(model, name, endpoint=hub.url, cache_dir=path, **options)
    return model


def refuses(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ta.TensorAdaptError, match=message) as error:
        call()
    assert len(str(error.value)) < 700
