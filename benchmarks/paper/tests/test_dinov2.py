"""DINOv2 out of an ONNX file: what is saved computes what the network does, and a file that is none is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.numpy import load_file
from support.pictures import dinov2 as random_dinov2

import tensoradapt as ta
from tensoradapt.lab.data import image_models, models
from tensoradapt_paper import archives, dinov2

NAME = "dinov2-small-focus"
TINY = {"hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 2, "image_size": 16, "patch_size": 8}


def number(value: int) -> bytes:
    """A protobuf number: seven bits a byte, the last without the high bit."""
    rest = value >> 7
    return bytes([value & 127 | 128]) + number(rest) if rest else bytes([value])


def field(key: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return number(key << 3) + number(value)
    return number(key << 3 | 2) + number(len(value)) + value


def tensor(name: str, values: np.ndarray) -> bytes:
    sizes = b"".join(field(1, n) for n in values.shape)
    return field(5, sizes + field(2, 1) + field(8, name.encode()) + field(9, values.astype("<f4").tobytes()))


def node(name: str, kind: str, *inputs: str) -> bytes:
    return field(1, b"".join(field(1, i.encode()) for i in inputs) + field(3, name.encode()) + field(4, kind.encode()))


def onnx(weights: Mapping[str, np.ndarray]) -> bytes:
    """A graph as the package's: matrices of products are named by their nodes and transposed."""
    parts = [node("/backbone/Sqrt", "Sqrt"), node("/head/MatMul", "MatMul", "x", "onnx::MatMul_7")]
    parts.append(tensor("onnx::MatMul_7", np.ones((2, 3))))
    for i, (name, values) in enumerate(weights.items()):
        if name == "embeddings.position_embeddings":
            parts += [tensor("onnx::Concat_1957", values[:, :1]), tensor("onnx::Reshape_1962", values[:, 1:])]
        elif name.startswith("encoder") and values.ndim == 2:
            path = name.removesuffix(".weight").replace(".", "/").replace("layer/", "layer.")
            parts += [tensor(f"onnx::MatMul_{100 + i}", values.T)]
            parts += [node(f"/backbone/{path}/MatMul", "MatMul", "x", f"onnx::MatMul_{100 + i}")]
        elif name != "embeddings.mask_token":
            parts.append(tensor(f"backbone.{name}", values))
    return field(1, 8) + field(7, b"".join(parts))


@pytest.fixture
def packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache with a small network in place of the pinned one."""
    monkeypatch.setattr(dinov2, "SHAPE", TINY)
    monkeypatch.setenv("TENSORADAPT_CACHE", str(tmp_path))
    random_dinov2(mlp_ratio=4).save_pretrained(tmp_path / "saved")
    asset = archives.DINOV2
    folder = tmp_path / f"{asset.name}-{asset.version}"
    folder.mkdir()
    (folder / dinov2.ONNX).write_bytes(onnx(load_file(tmp_path / "saved" / "model.safetensors")))
    return folder


def test_the_saved_folder_computes_what_the_network_does(packed: Path) -> None:
    model = models.from_pretrained(transformers.Dinov2Model, NAME).eval()
    network = transformers.Dinov2Model.from_pretrained(packed.parent / "saved").eval()
    values = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(model(values).last_hidden_state, network(values).last_hidden_state)
    assert sorted(path.name for path in packed.parent.iterdir()) == [packed.name, f"{packed.name}-fp32", "saved"]
    (packed / dinov2.ONNX).write_bytes(b"no longer read")
    assert models.config(NAME).hidden_size == 24


def test_its_pictures_are_112_pixels_wide_and_scaled_as_those_of_imagenet(packed: Path) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    found = image_models.processed(NAME, picture)["pixel_values"]
    larger = np.asarray(picture.resize((112, 112), Image.Resampling.BICUBIC)) / 255
    expected = (larger - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert found.shape == (1, 3, 112, 112) and np.allclose(found[0], expected.transpose(2, 0, 1), atol=1e-5)


@pytest.mark.parametrize("kind", ["cut off", "empty", "text", "other", "fewer"])
def test_a_file_that_is_another_is_refused_and_nothing_is_kept(packed: Path, kind: str) -> None:
    path = packed / dinov2.ONNX
    whole, weights = path.read_bytes(), load_file(packed.parent / "saved" / "model.safetensors")
    changed = {
        "cut off": whole[:-1000],
        "empty": b"",
        "text": b"<html>not found</html>",
        "other": onnx({**weights, "embeddings.cls_token": np.zeros((1, 1, 8))}),
        "fewer": onnx({name: value for name, value in weights.items() if name != "layernorm.bias"}),
    }
    path.write_bytes(changed[kind])
    with pytest.raises(ta.TensorAdaptError, match=r"model\.onnx does not hold the network .*; remove the folder") as e:
        models.from_pretrained(transformers.Dinov2Model, NAME)
    assert len(str(e.value).splitlines()) == 1
    assert sorted(path.name for path in packed.parent.iterdir()) == [packed.name, "saved"]


@pytest.mark.slow
def test_the_pinned_network_has_every_weight_and_no_other_and_computes_what_onnxruntime_does() -> None:
    model, loaded = models.from_pretrained(transformers.Dinov2Model, NAME, output_loading_info=True)
    assert not any(loaded.values())
    assert sum(value.numel() for value in model.parameters()) == 22_056_576
    row = torch.linspace(-2, 2, 224)
    values = (torch.outer(row, row)[None] + torch.arange(3)[:, None, None] / 3)[None]
    with torch.no_grad():
        found = model.eval()(values).last_hidden_state[0]
    # by onnxruntime 1.32 from the ONNX file: the output of /backbone/layernorm/Add_1 for the same input
    assert found[0, :4].tolist() == pytest.approx([-0.37544, 0.60927, 1.78107, -4.99058], abs=1e-4)
    assert found[-1, :4].tolist() == pytest.approx([-0.53946, -0.62222, -0.1894, -4.1116], abs=1e-4)
    assert float(found.double().norm()) == pytest.approx(779.495003, rel=1e-5)
