"""Checkpoint files: safetensors and strict JSON, each trained number once; never unpickles.

``adapter.json`` stores sites, networks (labels and sizes), multipliers and seed, so loading needs neither the plug-in
that built a network nor the recipe that found the sites. Random frozen entries are drawn again from the seed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_tensors
from safetensors.torch import save as pack_tensors
from torch import Tensor

from tensoradapt.errors import TensorAdaptError
from tensoradapt.files import reason, replace_file
from tensoradapt.plan import Plan
from tensoradapt.records import plan_from_record, plan_record

SCHEMA = 2
JSON, FACTORS, HEADS = "adapter.json", "adapter.safetensors", "trained/model.safetensors"
KEYS = {"format", "schema", "seed", "dropout", "plan", "scales", "base", "sha256"}


@dataclass(frozen=True)
class Checkpoint:
    """What a saved adapter consists of. ``factors`` and ``heads`` by name; ``base`` is the base weights' hash."""

    plan: Plan
    seed: int
    dropout: float
    scales: tuple[float, ...]
    base: str
    factors: Mapping[str, Tensor]
    heads: Mapping[str, Tensor]


def write(checkpoint: Checkpoint, path: Path) -> None:
    """Writes a folder, each file whole or not at all; adapter.json comes last and names the hashes of the others."""
    files = {FACTORS: pack_tensors(dict(checkpoint.factors))}
    if checkpoint.heads:
        files[HEADS] = pack_tensors(dict(checkpoint.heads))
    record = {
        "format": "tensoradapt",
        "schema": SCHEMA,
        "seed": checkpoint.seed,
        "dropout": checkpoint.dropout,
        "plan": plan_record(checkpoint.plan),
        "scales": checkpoint.scales,
        "base": checkpoint.base,
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    }
    for name, data in files.items():
        replace_file(path / name, data)
    replace_file(path / JSON, json.dumps(record, separators=(",", ":"), allow_nan=False).encode())


def read(path: Path) -> Checkpoint:
    """The checkpoint in a folder; TensorAdaptError for a missing, damaged, foreign or future file."""
    record = _record(path / JSON)
    plan = plan_from_record(record["plan"], path / JSON)
    factors, heads = (_tensors(path, name, record["sha256"]) for name in (FACTORS, HEADS))
    check_tensors(factors, _expected(plan), path / FACTORS)
    return Checkpoint(plan, record["seed"], record["dropout"], tuple(record["scales"]), record["base"], factors, heads)


def _expected(plan: Plan) -> dict[str, tuple[int, ...]]:
    """Names and shapes of what a plan's checkpoint holds: factors, bases from weights, subtracted values, biases."""
    shapes: dict[str, tuple[int, ...]] = {f"bias.{proj}": (width,) for proj, width in plan.biases}
    for i, group in enumerate(plan.groups):
        for factor in group.network.factors:
            shape = group.network.shape(factor)
            if factor.trainable:
                shapes[f"{i}.{factor.name}"] = shape
                shapes |= {f"{i}.initial.{factor.name}": shape} if plan.start == "subtract" else {}
            elif factor.source == "base":
                shapes[f"{i}.fixed.{factor.name}"] = shape
    return shapes


def check_tensors(found: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]], path: Path) -> None:
    """Refuses tensors that are missing, unexpected, of another shape, not floating point or not finite."""
    if wrong := sorted(set(found) ^ set(expected)):
        side = "lacks" if wrong[0] in expected else "has an unexpected"
        raise TensorAdaptError(
            f"{path} {side} tensor {wrong[0]!r}; the checkpoint does not fit its plan and this model"
        )
    for name, shape in expected.items():
        tensor = found[name]
        if tuple(tensor.shape) != shape or not tensor.is_floating_point():
            raise TensorAdaptError(
                f"{path}: tensor {name!r} is {tensor.dtype} {tuple(tensor.shape)}; expected floating point {shape}"
            )
        if not torch.isfinite(tensor).all():
            raise TensorAdaptError(
                f"{path}: tensor {name!r} has non-finite entries; go back to a checkpoint from before training diverged"
            )


def _record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text())
    except OSError as error:
        raise TensorAdaptError(
            f"{path} cannot be read ({reason(error)}); expected a folder that adapter.save wrote, with {JSON} in it"
        ) from None
    except ValueError as error:
        raise TensorAdaptError(f"{path} is not JSON ({error}); the checkpoint is damaged, save it again") from None
    if not isinstance(record, dict) or record.get("format") != "tensoradapt":
        raise TensorAdaptError(f"{path} is not a tensoradapt checkpoint; expected a folder that adapter.save wrote")
    if record.get("schema") != SCHEMA:
        raise TensorAdaptError(
            f"{path} has schema {record.get('schema')!r}, and this version reads {SCHEMA}; use the version that "
            f"wrote it"
        )
    if odd := sorted(set(record) ^ KEYS):
        raise TensorAdaptError(
            f"{path} lacks or has unexpected keys {', '.join(odd)}; the checkpoint is damaged, save it again"
        )
    return record


def _tensors(path: Path, name: str, hashes: Mapping[str, str]) -> dict[str, Tensor]:
    if name not in hashes:
        return {}
    try:
        data = (path / name).read_bytes()
    except OSError as error:
        raise TensorAdaptError(
            f"{path / name} cannot be read ({reason(error)}); the checkpoint is incomplete, save it again"
        ) from None
    if (found := hashlib.sha256(data).hexdigest()) != hashes[name]:
        raise TensorAdaptError(
            f"{path / name} has SHA-256 {found[:12]}..., and {JSON} says {hashes[name][:12]}...; it is damaged or of "
            f"another save"
        )
    try:
        return parse_tensors(data)
    except SafetensorError as error:
        raise TensorAdaptError(f"{path / name} is not a safetensors file ({error}); save the adapter again") from None
