"""Run LLaMA-Factory's command line with a TensorConfig in place of LoRA; docs/guides/trainers.md has a complete run."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from peft import PeftModel
from transformers import TrainerCallback

from tensoradapt.checks import one_of
from tensoradapt.errors import TensorAdaptError, check_installed
from tensoradapt.integrations.peft.config import TensorConfig  # registers the method too

__all__ = ["launch"]
COMMANDS = ("train", "export", "chat", "api")
# options of LoRA that a run may have asked for; ranks and targets, which LLaMA-Factory always gives, are not read
ASKED = ("use_dora", "use_rslora", "init_lora_weights")


def launch(config: TensorConfig, *callbacks: TrainerCallback) -> None:
    """Run the command of ``sys.argv``: ``train``, ``export``, ``chat`` or ``api``, with its file or options.

    ``finetuning_type: lora`` then means the config, which alone says what is trained; ``lora_rank``, ``lora_alpha``,
    ``lora_dropout`` and ``lora_target`` are not read. ``additional_target`` holds where the config has no
    ``modules_to_save``. On several GPUs start the script with torchrun (docs/guides/trainers.md).

    Args:
        config: what is trained, in place of LoRA.
        callbacks: callbacks of transformers' Trainer, for instance ``EqualSteps()``.

    Raises:
        TensorAdaptError: where LLaMA-Factory is not installed, for other commands, with USE_RAY, for options of LoRA
            that the config says otherwise, and when a run would train anything but the config's adapter.

    >>> from tensoradapt.extras.llama_factory import launch
    >>> from tensoradapt.integrations.peft import TensorConfig
    >>> from tensoradapt.integrations.trainer import EqualSteps
    >>> config = TensorConfig(task_type="CAUSAL_LM", method="cp", rank=8)
    >>> launch(config, EqualSteps())  # doctest: +SKIP
    """
    check_installed("llamafactory", __name__)
    command = one_of(COMMANDS, sys.argv[1] if len(sys.argv) > 1 else "", "the command")
    if os.environ.get("USE_RAY", "").lower() in ("1", "true", "y"):
        raise TensorAdaptError(
            "USE_RAY is set, and Ray's workers know nothing of the config: they would train LoRA. Unset it; on several "
            "GPUs start this script with torchrun"
        )
    # first: it patches what transformers knows of installed packages, before anything loads TRL
    tuner = importlib.import_module("llamafactory.train.tuner")
    from llamafactory import launcher
    from llamafactory.model import adapter, loader

    adapter.LoraConfig = lambda **given: replaced(config, given)
    loader.init_adapter = checked(adapter.init_adapter)
    if command != "train":
        launcher.launch()
        return
    del sys.argv[1]
    tuner.run_exp(callbacks=list(callbacks))  # the launcher's own training would start processes without this config


def replaced(config: TensorConfig, given: dict[str, Any]) -> TensorConfig:
    """Return the config in place of what LLaMA-Factory gives to LoraConfig."""
    if asked := {name: given[name] for name in ASKED if given.get(name)}:
        TensorConfig(**asked)  # raises, and says what to give instead
    made = deepcopy(config)
    made.task_type = made.task_type or given.get("task_type")
    made.modules_to_save = made.modules_to_save or list(given.get("modules_to_save") or ()) or None
    return made


def checked(init_adapter: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap LLaMA-Factory's function that prepares a model, to raise TensorAdaptError where it trains something else."""

    def prepared(config: Any, model: Any, model_args: Any, finetuning_args: Any, is_trainable: bool) -> Any:
        made = init_adapter(config, model, model_args, finetuning_args, is_trainable)
        found = made.active_peft_config if isinstance(made, PeftModel) else None
        if is_trainable and not isinstance(found, TensorConfig):
            raise TensorAdaptError(
                f"this run would train {'no adapter' if found is None else f'a {type(found).__name__}'}, not the "
                "TensorConfig: give finetuning_type: lora, without use_unsloth or another method's adapter"
            )
        return made

    return prepared
