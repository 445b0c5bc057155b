"""A checkpoint is safetensors and strict JSON, with each trained number once; nothing is unpickled.

``adapter.json`` stores sites, networks (labels and sizes), multipliers and seed, so loading needs neither the plug-in
that built a network nor the recipe that found the sites. Random frozen entries are drawn again from the seed. It holds
checksums of every tensor and of itself, so a flipped bit is found and named. Files of another size are not read.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_tensors
from safetensors.torch import save as pack_tensors
from torch import Tensor, nn

from tensoradapt.adapter.factor_map import shapes as map_shapes
from tensoradapt.errors import TensorAdaptError
from tensoradapt.files import (
    LARGEST,
    NEVER,
    PICKLES,
    parse_json,
    read_bounded,
    read_or_former,
    read_safetensors,
    reason,
    replace_files,
)
from tensoradapt.networks import mapped
from tensoradapt.networks.network import MADE
from tensoradapt.planning.plan import Plan
from tensoradapt.planning.record import number, plan_from_record, plan_record, whole

SCHEMA = 5
JSON = "adapter.json"
FACTORS = "adapter.safetensors"
HEADS = "trained/model.safetensors"
DTYPES = {str(dtype)[6:]: dtype for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16)}
DRAWN = 2**28, 2**32  # the most frozen numbers of a factor: always allowed, and allowed for very large matrices
Shapes = Mapping[str, tuple[int, ...]]


KEYS = {"format", "schema", "seed", "plan", "scales", "base", "tensors", "checksum"}
CLASSES = "classes"  # a key of models whose classes have names


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a saved adapter: ``factors`` and ``heads`` by name, ``base`` the hash of the base weights.

    ``classes`` are the names that the model's config had for them.
    """

    plan: Plan
    seed: int
    scales: tuple[float, ...]
    base: str
    factors: Mapping[str, Tensor]
    heads: Mapping[str, Tensor]
    classes: tuple[str, ...] = ()


class OtherHead(TensorAdaptError):
    """Raised for a saved head of another shape than the model's: the file is whole, and the model another."""

    def __init__(self, name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
        super().__init__(f"the adapter's {name} is {found}, and this model's is {expected}")
        self.found, self.expected = found, expected


def write(checkpoint: Checkpoint, path: Path) -> None:
    """Write a folder, once all files are whole on disk; adapter.json comes last, with the checksums of all tensors."""
    files = {FACTORS: dict(checkpoint.factors), HEADS: dict(checkpoint.heads)}
    record = {
        "format": "tensoradapt",
        "schema": SCHEMA,
        "seed": checkpoint.seed,
        "plan": plan_record(checkpoint.plan),
        "scales": checkpoint.scales,
        "base": checkpoint.base,
        "tensors": {
            file: {k: [str(v.dtype)[6:], checksum(v)] for k, v in named.items()} for file, named in files.items()
        },
        **({CLASSES: checkpoint.classes} if checkpoint.classes else {}),
    }
    text = json.dumps({**record, "checksum": seal(record)}, separators=(",", ":"), allow_nan=False).encode()
    if len(text) > LARGEST:
        raise TensorAdaptError(
            f"{path / JSON} would have {len(text):,} bytes, and at most {LARGEST:,} are read back; adapt fewer sites"
        )
    replace_files(
        {**{path / name: pack_tensors(tensors) for name, tensors in files.items() if tensors}, path / JSON: text}
    )


def seal(record: Mapping[str, Any]) -> str:
    """Compute the checksum of a record over all but its own entry."""
    rest = {key: value for key, value in record.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def checksum(tensor: Tensor) -> str:
    """Compute the checksum of a tensor's dtype, shape and bytes."""
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
    digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read(path: Path, head_shapes: Callable[[Plan], Shapes] | None = None) -> Checkpoint:
    """Read the checkpoint in a folder; raise TensorAdaptError for a missing, damaged, foreign or future file.

    ``head_shapes`` returns the shapes of a plan's trained heads in the model; without it they stay in their file.
    """
    record, plan = _checked(path)
    shapes = head_shapes(plan) if head_shapes else None
    factors = _tensors(path, FACTORS, record, expected(plan))
    heads = {} if shapes is None else _tensors(path, HEADS, record, shapes)
    numbers = record["seed"], tuple(record["scales"]), record["base"]
    return Checkpoint(plan, *numbers, factors, heads, tuple(record.get(CLASSES, ())))


def files(path: Path, head_shapes: Callable[[Plan], Shapes]) -> dict[str, int]:
    """Return the other files that the adapter.json in a folder needs, and the most bytes of each."""
    record, plan = _checked(path)
    sizes = {}
    for name, shapes in ((FACTORS, expected(plan)), (HEADS, head_shapes(plan))):
        _check_names(record["tensors"][name], shapes, path / JSON)
        sizes[name] = LARGEST + _n_bytes(record["tensors"][name], shapes)
    return {name: most for name, most in sizes.items() if record["tensors"][name]}


def _checked(path: Path) -> tuple[dict[str, Any], Plan]:
    record = _record(path)
    plan = plan_from_record(record["plan"], path / JSON)
    _check_record(record, plan, path / JSON)
    return record, plan


def _n_bytes(listed: Mapping[str, Any], shapes: Shapes) -> int:
    """Count the bytes of tensors of these shapes, in the dtypes that adapter.json lists."""
    return sum(math.prod(shape) * DTYPES[listed[name][0]].itemsize for name, shape in shapes.items())


def expected(plan: Plan) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of a checkpoint's tensors: factors, bases from weights, subtracted values, biases."""
    shapes: dict[str, tuple[int, ...]] = {f"bias.{proj}": (width,) for proj, width in plan.biases}
    shapes |= {f"magnitude.{i}": (row_block.out,) for i, row_block in enumerate(plan.row_blocks)}
    if isinstance(plan.spec.map, Mapping):
        sizes = mapped.lengths(plan.spec.map, [group.network for group in plan.groups])
        shapes |= {f"map.{name}": (n,) for name, n in sizes.items()}
    for i, group in enumerate(plan.groups):
        for factor in group.network.factors:
            shape = group.network.shape(factor)
            if factor.trainable and plan.spec.map:
                continue
            if factor.trainable:
                shapes[f"{i}.{factor.name}"] = shape
                shapes |= {f"{i}.initial.{factor.name}": shape} if plan.begins.update == "subtract" else {}
            elif factor.source not in MADE:
                shapes[f"{i}.fixed.{factor.name}"] = shape
    return shapes


def check_tensors(tensors: Mapping[str, Tensor], expected: Shapes, path: Path) -> None:
    """Raise TensorAdaptError for tensors that are missing, unexpected, of another shape or dtype, or not finite."""
    _check_names(tensors, expected, path)
    for name, shape in expected.items():
        tensor = tensors[name]
        if tuple(tensor.shape) != shape or tensor.dtype not in DTYPES.values():
            raise TensorAdaptError(
                f"{path}: tensor {name!r} is {tensor.dtype} {tuple(tensor.shape)}; expected floating point {shape} of "
                "two bytes or more"
            )
        if not torch.isfinite(tensor).all():
            raise TensorAdaptError(
                f"{path}: tensor {name!r} has non-finite entries; go back to a checkpoint from before training diverged"
            )


def _check_names(names: Iterable[str], expected: Shapes, path: Path) -> None:
    if wrong := sorted({*names} ^ {*expected}):
        side = "lacks" if wrong[0] in expected else "has an unexpected"
        raise TensorAdaptError(
            f"{path} {side} tensor {wrong[0]!r}; the checkpoint does not fit its plan and this model"
        )


def _record(folder: Path) -> dict[str, Any]:
    path = folder / JSON
    try:
        data = read_bounded(path, "the most that save writes; it is no checkpoint of tensoradapt")
    except OSError as error:
        raise TensorAdaptError(f"{path} cannot be read ({reason(error)}); {_instead(folder)}") from None
    record = parse_json(data, path, "the checkpoint is damaged, save it again")
    if not isinstance(record, dict) or record.get("format") != "tensoradapt":
        raise TensorAdaptError(f"{path} is not a tensoradapt checkpoint; expected a folder that adapter.save wrote")
    if (schema := record.get("schema")) != SCHEMA or type(schema) is not int:
        advice = "it was written before the first release or is damaged: train again, or export_lora it with the"
        newer = type(schema) is int and schema > SCHEMA
        advice = "update tensoradapt to the" if newer else advice
        raise TensorAdaptError(
            f"{path} has schema {schema!r}, and this version reads {SCHEMA}; {advice} version that wrote it"
        )
    if odd := sorted((set(record) - {CLASSES}) ^ KEYS):
        raise TensorAdaptError(
            f"{path} lacks or has unexpected keys {', '.join(odd)}; the checkpoint is damaged, save it again"
        )
    if record["checksum"] != (actual := seal(record)):
        raise TensorAdaptError(
            f"{path} has checksum {actual[:12]}..., and says {str(record['checksum'])[:12]}...; it is damaged or was "
            "edited. Change an adapter with tensoradapt and save it again"
        )
    return record


def _instead(folder: Path) -> str:
    """Say what a folder without adapter.json is, and what to do with it."""
    wanted = f"expected a folder that adapter.save wrote, with {JSON} in it"
    if not folder.is_dir():
        pickled = folder.is_file() and folder.suffix in PICKLES
        return f"{folder.name} is {NEVER}; {wanted}" if pickled else wanted
    names = sorted(path.name for path in folder.iterdir())
    pickles = [name for name in names if Path(name).suffix in PICKLES and not name.startswith("training_args")]
    if "adapter_config.json" in names:
        advice = f"the folder was saved by PEFT: use compress({str(folder)!r}, model, ...) to make an adapter of it"
        if "adapter_model.safetensors" in names or not pickles:
            return advice
        return f"{advice}, but first save it with safe_serialization=True: its {pickles[0]} is {NEVER}"
    return f"its {pickles[0]} is {NEVER}; {wanted}" if pickles else wanted


def _check_record(record: Mapping[str, Any], plan: Plan, path: Path) -> None:
    """Raise TensorAdaptError for values that ``save`` never writes, before anything is allocated for them."""
    try:
        whole(record["seed"])
        if not isinstance(record["scales"], list) or len(record["scales"]) != len(plan.groups):
            raise ValueError(f"scales are not a list of {len(plan.groups)} numbers")
        for scale in record["scales"]:
            number(scale)
        if not isinstance(record["base"], str):
            raise ValueError(f"base is {record['base']!r}, not a hash")
        if not all(isinstance(name, str) for name in [*record.get(CLASSES, ())]):
            raise ValueError("classes are not a list of names")
        if set(record["tensors"]) != {FACTORS, HEADS}:
            raise ValueError(f"tensors names the files {sorted(record['tensors'])}, not {FACTORS} and {HEADS}")
        for name, (dtype, digest) in (item for named in record["tensors"].values() for item in named.items()):
            if dtype not in DTYPES or not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
                raise ValueError(f"tensor {name!r} has dtype {dtype!r} or a checksum that are none")
        _check_names_and_draws(plan)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise TensorAdaptError(
            f"{path} holds no checkpoint ({str(error)[:300]}); it is damaged, save it again"
        ) from None


def _check_names_and_draws(plan: Plan) -> None:
    taken = set(dir(nn.ParameterDict()))
    most = min(max(DRAWN[0], 4 * plan.n_dense), DRAWN[1])
    own = sum(math.prod(g.network.shape(factor)) for g in plan.groups for factor in g.network.own_draws)
    own += sum(math.prod(shape) for shape in map_shapes(plan).values())
    if own > most:
        raise ValueError(f"frozen factors of single tensors have {own:,} numbers; expected at most {most:,}")
    for network in dict.fromkeys(group.network for group in plan.groups):
        for factor in network.factors:
            drawn = factor in network.frozen_draws
            if factor.name in taken or (drawn and factor.name in ("seed", "read")):  # as Bases holds them
                raise ValueError(f"factor {factor.name!r} has a name that torch's modules need")
            if drawn and (n := math.prod(network.shape(factor))) > most:
                raise ValueError(f"frozen factor {factor.name!r} has {n:,} numbers; expected at most {most:,}")
    if odd := [proj for proj, _ in plan.biases if proj in taken]:
        raise ValueError(f"bias {odd[0]!r} has a name that torch's modules need")


def _tensors(folder: Path, name: str, record: Mapping[str, Any], shapes: Shapes) -> dict[str, Tensor]:
    listed = record["tensors"][name]
    _check_names(listed, shapes, folder / JSON)
    n_bytes = _n_bytes_of_heads if name == HEADS else lambda listed, shapes, _: _n_bytes(listed, shapes)
    return read_or_former(folder / name, lambda path: _read(path, listed, shapes, n_bytes)) if shapes else {}


def _n_bytes_of_heads(listed: Mapping[str, Any], shapes: Shapes, header: bytes) -> int:
    """Count the bytes of heads; raises OtherHead where the header of their file gives one another shape."""
    for name, shape in shapes.items():
        found = _shape_in(header, name, DTYPES[listed[name][0]].itemsize)
        if found not in (None, shape):
            raise OtherHead(name, found, shape)
    return _n_bytes(listed, shapes)


def _shape_in(header: bytes, name: str, itemsize: int) -> tuple[int, ...] | None:
    """Return a tensor's shape in a header of safetensors; None where the header is damaged, as reading it says."""
    try:
        entry = json.loads(header)[name]
        shape, (first, end) = tuple(entry["shape"]), entry["data_offsets"]
        return shape if math.prod(shape) * itemsize == end - first else None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _read(
    path: Path, listed: Mapping[str, Any], shapes: Shapes, n_bytes: Callable[[Mapping[str, Any], Shapes, bytes], int]
) -> dict[str, Tensor]:
    """Read a safetensors file with the tensors that adapter.json lists; its size is checked first."""
    wanted = "the safetensors file that adapter.save wrote"
    try:
        tensors = parse_tensors(read_safetensors(path, partial(n_bytes, listed, shapes), JSON, wanted))
    except OSError as error:
        raise TensorAdaptError(f"{path} cannot be read ({reason(error)}); it is incomplete, save it again") from None
    except TensorAdaptError:
        raise
    # an unknown dtype raises KeyError, and shapes with a zero reach torch unchecked
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise TensorAdaptError(f"{path} is not a safetensors file ({error}); save the adapter again") from None
    for key in sorted(set(tensors) & set(listed)):
        if (actual := checksum(tensors[key])) != listed[key][1]:
            raise TensorAdaptError(
                f"{path}: tensor {key!r} has checksum {actual[:12]}..., and {JSON} says {listed[key][1][:12]}...; it "
                "is damaged or of another save. Copy or save the adapter again"
            )
    check_tensors(tensors, shapes, path)
    return tensors
