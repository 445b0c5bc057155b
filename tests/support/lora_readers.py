"""How servers read a LoRA folder, written from their rules: each reader returns the updates it would serve, float64."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

LEAF = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    return config, {name: tensor.double() for name, tensor in tensors.items()}


def _scaling(config: Mapping[str, Any]) -> float:
    root = math.sqrt(config["r"]) if config.get("use_rslora") else config["r"]
    return config["lora_alpha"] / root


def vllm(folder: Path, supported: Iterable[str], max_lora_rank: int = 16) -> dict[str, Tensor]:
    """One scale from the top of the config, patterns unread; pairs in buffers of the flag's rank; other keys raise."""
    config, tensors = _read(folder)
    assert max_lora_rank in VLLM_RANKS
    if config.get("modules_to_save") or config.get("use_dora") or config.get("bias", "none") != "none":
        raise ValueError("the config has modules_to_save, DoRA or biases")
    if config["r"] > max_lora_rank:
        raise ValueError(f"rank {config['r']} is above max_lora_rank {max_lora_rank}")
    halves: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = LEAF.fullmatch(key)
        if match is None:
            raise ValueError(f"unsupported LoRA weight {key}")
        if match[1].rpartition(".")[2] not in set(supported):
            raise ValueError(f"unexpected module {match[1]}")
        halves.setdefault(match[1], {})[match[2]] = tensor
    found = {}
    for module, pair in halves.items():
        a = torch.zeros(max_lora_rank, pair["A"].shape[1], dtype=torch.float64)
        b = torch.zeros(pair["B"].shape[0], max_lora_rank, dtype=torch.float64)
        a[: len(pair["A"])], b[:, : pair["B"].shape[1]] = pair["A"], pair["B"] * _scaling(config)
        found[module] = b @ a
    return found


def tgi(folder: Path, projections: Iterable[Sequence[str]]) -> tuple[dict[str, Tensor], list[str]]:
    """Each projection's layers stacked, so of one rank; a projection that lacks a layer is passed over; and what was
    not used.
    """
    config, tensors = _read(folder)
    found: dict[str, Tensor] = {}
    for modules in projections:
        keys = [[f"base_model.model.{module}.lora_{side}.weight" for module in modules] for side in "AB"]
        if not all(key in tensors for side in keys for key in side):
            continue
        a, b = (torch.stack([tensors.pop(key) for key in side]) for side in keys)
        found |= dict(zip(modules, _scaling(config) * b @ a, strict=True))
    return found, sorted(tensors)


def llama_cpp(folder: Path, conv1d: Mapping[str, tuple[int, int]] | None = None) -> dict[str, Tensor]:
    """Each tensor's own rank, read from B, under the one alpha.

    ``conv1d``: the (out, in) of the modules that a base stores as (in, out). The converter turns their pairs with their
    weights, so that B^T is read as A and A^T as B; a pair that then has another shape raises.
    """
    config, tensors = _read(folder)
    found = {}
    for key, b in tensors.items():
        match = LEAF.fullmatch(key)
        if match is None:
            raise ValueError(f"unexpected tensor {key}")
        if match[2] == "B":
            a = tensors[key.replace("lora_B", "lora_A")]
            shape = (conv1d or {}).get(match[1])
            scale = config["lora_alpha"] / b.shape[1]
            update = scale * b @ a if shape is None else scale * a.T @ b.T
            if shape is not None and update.shape != shape:
                raise ValueError(f"tensor {match[1]} has incorrect shape")
            found[match[1]] = update
    return found
