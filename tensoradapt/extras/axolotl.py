"""The plug-in of Axolotl trains a TensorConfig for ``adapter: tensoradapt``: docs/guides/trainers.md has a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from peft import PeftModel, get_peft_model
from torch import nn
from transformers import TrainerCallback

from tensoradapt.errors import TensorAdaptError, check_installed, did_you_mean
from tensoradapt.integrations.peft.config import INSTEAD, TensorConfig  # registers the method too
from tensoradapt.integrations.trainer import EqualSteps

try:
    from axolotl.integrations.base import AdapterCapabilities, BasePlugin
    from pydantic import BaseModel
except ImportError:  # TensorPlugin raises when it is made
    AdapterCapabilities = BasePlugin = BaseModel = object  # type: ignore[assignment, misc]

__all__ = ["TensorPlugin"]
NAME = "tensoradapt"
STEPS = "equal_steps"
NAMES = {*(field.name for field in fields(TensorConfig)), "r", "lora_alpha", "lora_dropout", STEPS}


class TensorArguments(BaseModel):
    """The block ``tensoradapt:`` of an Axolotl config: TensorConfig's arguments, and ``equal_steps``."""

    tensoradapt: dict[str, Any] | None = None


class TensorPlugin(BasePlugin):
    """The plug-in, which ``plugins:`` names as ``tensoradapt.extras.axolotl.TensorPlugin``.

    Axolotl makes it. The block ``tensoradapt:`` has the arguments of ``integrations.peft.TensorConfig``, and
    ``equal_steps`` (docs/guides/trainers.md).

    Raises:
        TensorAdaptError: where Axolotl is not installed, and for a name in the block that is no argument.

    >>> config = {"plugins": ["tensoradapt.extras.axolotl.TensorPlugin"], "adapter": "tensoradapt"}
    >>> config["tensoradapt"] = {"method": "cp", "rank": 8, "equal_steps": True}  # and the keys of Axolotl's own
    """

    def __init__(self) -> None:
        check_installed("axolotl", __name__)
        super().__init__()

    def get_input_args(self) -> str:
        """Return the path of the class that the block is checked by."""
        return f"{__name__}.{TensorArguments.__name__}"

    def get_adapter_capabilities(self) -> list[Any]:
        """Return the name that ``adapter:`` takes."""
        return [AdapterCapabilities(name=NAME)]

    def register(self, cfg: Any) -> None:
        """Merge as PEFT does; Axolotl's memory-efficient way knows LoRA alone."""
        if cfg.get("adapter") == NAME:
            cfg["merge_method"] = "legacy"

    def load_adapter(
        self, model: nn.Module, cfg: Any, inference: bool = False, config_only: bool = False
    ) -> tuple[PeftModel | None, TensorConfig] | None:
        """Return the model with a new adapter, or with that of ``lora_model_dir``; DPO takes the config alone."""
        if cfg.adapter != NAME:
            return None
        config = config_of(cfg.tensoradapt or {})
        if config_only:
            return None, config
        if cfg.lora_model_dir:
            return PeftModel.from_pretrained(model, cfg.lora_model_dir, is_trainable=not inference), config
        return get_peft_model(model, config), config

    def add_callbacks_post_trainer(self, cfg: Any, trainer: Any) -> list[TrainerCallback]:
        """Return the callback of equal steps, where the block asks for them."""
        return [EqualSteps()] if cfg.adapter == NAME and (cfg.tensoradapt or {}).get(STEPS) else []


def config_of(block: Mapping[str, Any]) -> TensorConfig:
    """Make the config that a block describes; its task type is CAUSAL_LM unless the block has another.

    Raises TensorAdaptError for a name that TensorConfig does not have.
    """
    if unknown := [name for name in block if name not in NAMES and name not in INSTEAD]:
        raise TensorAdaptError(f"tensoradapt: has {unknown[0]!r}{did_you_mean(unknown[0], sorted(NAMES))}")
    return TensorConfig(**{"task_type": "CAUSAL_LM", **{name: block[name] for name in block if name != STEPS}})
