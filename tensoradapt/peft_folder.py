"""LoRA adapters as PEFT saves them: a folder with adapter_config.json and adapter_model.safetensors.

``delta = s B A`` with A (r, in), B (out, r) and s = lora_alpha / r, or / sqrt(r) with rslora; A and B have these shapes
whichever way the layer stores its weight. What changes a model in any other way is refused by name. Nothing is
unpickled.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_tensors
from torch import Tensor

from tensoradapt.errors import TensorAdaptError
from tensoradapt.files import reason

CONFIG, TENSORS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
PREFIX = "base_model.model."
# settings under which the updates are more than B A, or not B A on the base model's own weights
OTHER_UPDATES = (
    *("lora_bias", "modules_to_save", "target_parameters", "trainable_token_indices", "layer_replication"),
    *("alora_invocation_tokens", "arrow_config", "kasa_config", "velora_config", "monteclora_config"),
)
HARMLESS = {"use_rslora"}
PLAIN_STARTS = (True, False, None, "gaussian", "orthogonal", "eva")  # others change the base weights before training
LEAF = re.compile(r"^(?P<module>.+)\.lora_(?P<side>[AB])\.weight$")

Pair = tuple[Tensor, Tensor]  # A: (r, in), B: (out, r), the scale in B


def read_lora(path: str | Path) -> dict[str, Pair]:
    """The pair of every LoRA module in a folder, by the module's name in its base model; float64, scale included.

    Raises TensorAdaptError for a missing or damaged file, pickled tensors, other methods than LoRA, settings under
    which the updates are not B A alone, and tensors that do not fit each other or the config.
    """
    path = Path(path)
    config, tensors = _config(path), _tensors(path)
    halves: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = LEAF.match(key.removeprefix(PREFIX))
        if match is None:
            raise TensorAdaptError(
                f"{path / TENSORS} holds {key!r}, which is not A or B of a LoRA layer; only adapters whose whole "
                "update is B A can be read (no DoRA, biases, embeddings or modules_to_save)"
            )
        halves.setdefault(match["module"], {})[match["side"]] = tensor
    if not halves:
        raise TensorAdaptError(f"{path / TENSORS} holds no tensors; save the adapter again")
    return {module: _pair(path, module, found, config) for module, found in halves.items()}


def _pair(path: Path, module: str, found: Mapping[str, Tensor], config: Mapping[str, Any]) -> Pair:
    if missing := {"A", "B"} - set(found):
        raise TensorAdaptError(f"{path / TENSORS}: module {module!r} has no lora_{missing.pop()}.weight; it is damaged")
    a, b = found["A"].double(), found["B"].double()
    rank = _of(config, "rank_pattern", module, config.get("r"))
    if a.ndim != 2 or b.ndim != 2 or len(a) != b.shape[1] or len(a) != rank:
        raise TensorAdaptError(
            f"{path}: module {module!r} has A {tuple(a.shape)} and B {tuple(b.shape)}; expected (r, in) and (out, r) "
            f"with r = {rank} of {CONFIG}"
        )
    if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
        raise TensorAdaptError(f"{path}: module {module!r} has non-finite entries; the training has diverged")
    alpha = _of(config, "alpha_pattern", module, config.get("lora_alpha", 8))
    return a, b * (alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))


def _of(config: Mapping[str, Any], pattern: str, module: str, usual: Any) -> Any:
    """A module's own setting: the first pattern that matches the end of its name, as PEFT reads them."""
    for key, value in (config.get(pattern) or {}).items():
        if re.match(rf"(.*\.)?({key})$", module):
            return value
    return usual


def _config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads((path / CONFIG).read_text())
    except OSError as error:
        raise TensorAdaptError(
            f"{path / CONFIG} cannot be read ({reason(error)}); expected a LoRA folder as PEFT saves it, with {CONFIG} "
            f"and {TENSORS}"
        ) from None
    except ValueError as error:
        raise TensorAdaptError(f"{path / CONFIG} is not JSON ({error}); save the adapter again") from None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else type(config).__name__
        raise TensorAdaptError(f"{path / CONFIG} has peft_type {kind!r}; expected 'LORA'. Convert it to LoRA first")
    _refuse(config, path / CONFIG)
    return config


def _refuse(config: Mapping[str, Any], path: Path) -> None:
    switches = [key for key in config if key.startswith("use_")]
    on = [key for key in (*switches, *OTHER_UPDATES) if config.get(key) and key not in HARMLESS]
    if config.get("bias", "none") != "none":
        on.append("bias")
    if on:
        raise TensorAdaptError(
            f"{path} sets {', '.join(f'{key}={config[key]!r}' for key in on)}; only plain LoRA can be read, whose "
            "whole update is B A. Train without it, or pass the updates themselves as a mapping of site names"
        )
    start = config.get("init_lora_weights", True)
    if start not in PLAIN_STARTS:
        raise TensorAdaptError(
            f"{path} has init_lora_weights={start!r}, which changed the base weights before training, so B A is not "
            "the update. Save it with path_initial_model_for_weight_conversion, which converts it to plain LoRA"
        )


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return parse_tensors((path / TENSORS).read_bytes())
    except OSError as error:
        hint = f"; {PICKLE} is there, but pickled files run code when read: save with safe_serialization=True"
        raise TensorAdaptError(
            f"{path / TENSORS} cannot be read ({reason(error)}){hint if (path / PICKLE).exists() else ''}"
        ) from None
    except SafetensorError as error:
        raise TensorAdaptError(
            f"{path / TENSORS} is not a whole safetensors file ({error}); copy or save the adapter again"
        ) from None
