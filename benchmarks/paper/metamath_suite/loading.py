"""The base model and its tokenizer, on a device and in the type of its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from metamath_suite.setting import Setting
from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.data import models
from tensoradapt.training.fit import computed_in


@dataclass(frozen=True)
class Loaded:
    """A model on its device, its tokenizer, the device, and the type of its weights as PEFT calls it."""

    model: Any
    tokenizer: Any
    device: str
    dtype: str

    @property
    def sha(self) -> str | None:
        """The commit of the hub that the model is of; None for a folder."""
        return getattr(self.model.config, "_commit_hash", None)


def load(setting: Setting, device: str) -> Loaded:
    """Load the model of a setting; raises TensorAdaptError where it is unknown, or no token ends its texts."""
    hf = models.transformers()
    tokenizer = models.from_pretrained(hf.AutoTokenizer, setting.model_id)
    if tokenizer.eos_token_id is None:
        raise TensorAdaptError(
            f"the tokenizer of {setting.model_id} has no token that ends a text; expected one, as in "
            "tokenizer.eos_token = ..., saved with the model"
        )
    dtype = weights_in(setting.dtype, device)
    model = models.from_pretrained(hf.AutoModelForCausalLM, setting.model_id, dtype=getattr(torch, dtype))
    return Loaded(model.to(device).eval(), tokenizer, device, dtype)


def weights_in(dtype: str, device: str) -> str:
    """Return the type of weights on a device: "auto" is bfloat16 on a GPU with units for it, and elsewhere float32."""
    if dtype != "auto":
        return dtype
    return {"bf16": "bfloat16", "fp32": "float32"}[computed_in("auto", device)]
