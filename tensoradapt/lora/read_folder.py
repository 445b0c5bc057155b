"""Read a LoRA adapter as PEFT saves it: a folder with adapter_config.json and adapter_model.safetensors.

``delta = s B A`` with A (r, in), B (out, r) and s = lora_alpha / r, or / sqrt(r) with rslora; A and B have these shapes
whichever way the layer stores its weight. Nothing is unpickled.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as parse_tensors
from torch import Tensor

from tensoradapt.checks import shown
from tensoradapt.errors import TensorAdaptError
from tensoradapt.files import explained, parse_json, read_safetensors
from tensoradapt.lora.config import AGAIN, CONFIG, LONGEST, TENSORS, check_cost, rank_of, read_config, scale_of
from tensoradapt.lora.pair import LoraPair

PICKLE = "adapter_model.bin"
PREFIX = "base_model.model."
LEAF = re.compile(r"^(?P<module>.+)\.lora_(?P<side>[AB])\.weight$")
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}  # the bytes of an entry
LARGEST = 2**35  # the most bytes of all tensors: rank 256 on every matrix of the largest open models has 20 GB


class LoraPairs(dict[str, LoraPair]):
    """The pairs of a LoRA folder by module, and the names of the parameters of modules that it holds whole."""

    whole: tuple[str, ...] = ()


def read_lora(path: str | Path) -> LoraPairs:
    """Read the pair of every LoRA module, by the module's name in its base model, in float64 and with the scale in B.

    Modules of ``modules_to_save``, such as the head of a classifier, are no updates: their parameters are named alone.
    Raises TensorAdaptError for all that ``read_config`` refuses, a missing, damaged or oversized file of tensors,
    pickled tensors, and tensors that do not fit each other or the config.
    """
    path = Path(path)
    config, tensors = read_config(path), _tensors(path)
    halves: dict[str, dict[str, Tensor]] = {}
    whole: list[str] = []
    for key, tensor in tensors.items():
        match = LEAF.match(name := key.removeprefix(PREFIX))
        if match is None and any(f".{module}." in f".{name}" for module in config.get("modules_to_save") or ()):
            whole.append(name)
            continue
        if match is None:
            raise TensorAdaptError(
                f"{path / TENSORS} holds {key!r}, which is not A or B of a LoRA layer; only adapters whose whole "
                "update is B A can be read (no DoRA, biases or embeddings)"
            )
        halves.setdefault(match["module"], {})[match["side"]] = tensor
    if not halves:
        raise TensorAdaptError(f"{path / TENSORS} holds no tensors; save the adapter again")
    if both := [name for name in whole if any(name.startswith(f"{module}.") for module in halves)]:
        raise TensorAdaptError(
            f"{path / TENSORS} holds {both[0]!r} whole, and A and B of its module too, so B A is not the whole update; "
            "expected one of them: train with that module in target_modules or in modules_to_save alone"
        )
    check_cost(config, halves, path)
    pairs = LoraPairs({module: _pair(path, module, sides, config) for module, sides in halves.items()})
    pairs.whole = tuple(whole)
    return pairs


def _pair(path: Path, module: str, sides: Mapping[str, Tensor], config: Mapping[str, Any]) -> LoraPair:
    if missing := {"A", "B"} - set(sides):
        raise TensorAdaptError(f"{path / TENSORS}: module {module!r} has no lora_{missing.pop()}.weight; it is damaged")
    a, b = sides["A"].double(), sides["B"].double()
    rank = rank_of(config, module)
    if a.ndim != 2 or b.ndim != 2 or len(a) != b.shape[1] or len(a) != rank:
        raise TensorAdaptError(
            f"{path}: module {module!r} has A {tuple(a.shape)} and B {tuple(b.shape)}; expected (r, in) and (out, r) "
            f"with r = {rank} of {CONFIG}"
        )
    if not (a.isfinite().all() and b.isfinite().all()):
        raise TensorAdaptError(f"{path}: module {module!r} has non-finite entries; the training has diverged")
    return LoraPair(a.numpy(), (b * scale_of(config, module)).numpy())


def _tensors(path: Path) -> dict[str, Tensor]:
    folder, path = path, path / TENSORS
    pickled = f"{PICKLE} is there, but pickled files run code when read: save with safe_serialization=True"
    with explained("read", path, pickled if (folder / PICKLE).exists() else AGAIN):
        data = read_safetensors(path, lambda text: _n_bytes(text, path), "its header", "a safetensors file")
    try:
        return parse_tensors(data)
    # overlapping offsets raise in the parser; shapes with a zero reach torch unchecked
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise TensorAdaptError(f"{path} is not a whole safetensors file ({error}); {AGAIN}") from None


def _n_bytes(text: bytes, path: Path) -> int:
    """Return the bytes of all tensors in a safetensors header, which is read as strictly as the config."""
    header = parse_json(text, f"the header of {path}", AGAIN)
    if not isinstance(header, dict):
        raise TensorAdaptError(f"the header of {path} is a {type(header).__name__}; expected names of tensors. {AGAIN}")
    total = sum(_size(name, entry, path) for name, entry in header.items() if name != "__metadata__")
    if longest := next((name for name in header if len(name) > LONGEST), None):
        raise TensorAdaptError(f"{path} has a tensor whose name has {len(longest):,} characters; {AGAIN}")
    if total > LARGEST:
        raise TensorAdaptError(f"{path} lists tensors of {total:,} bytes, and at most {LARGEST:,} are read; {AGAIN}")
    return total


def _size(name: str, entry: Any, path: Path) -> int:
    fits = isinstance(entry, dict) and set(entry) == {"dtype", "shape", "data_offsets"}
    shape = entry["shape"] if fits else None
    if not isinstance(shape, list) or not all(type(n) is int and 0 <= n < 2**63 for n in shape) or len(shape) > 8:
        raise TensorAdaptError(f"the header of {path} has {shown(entry)} for tensor {shown(name)}; {AGAIN}")
    if entry["dtype"] not in SIZES:
        raise TensorAdaptError(
            f"{path}: tensor {shown(name)} has dtype {shown(entry['dtype'])}; expected one of {', '.join(SIZES)}. Save "
            "the adapter in one of these"
        )
    return math.prod(shape) * SIZES[entry["dtype"]]
