"""Layouts and configs for plans."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

TIED = "layer proj : head dim : model"


def llama(**changes: Any) -> SimpleNamespace:
    sizes = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2}
    return SimpleNamespace(**{"model_type": "llama", **sizes, "head_dim": 8, "intermediate_size": 34, **changes})
