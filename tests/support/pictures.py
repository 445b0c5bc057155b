"""Folders of generated pictures, one colour for each class, and of small vision models with their image processors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image

SIZE = 16
TINY_VISION: dict[str, Any] = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIZE,
    "patch_size": 8,
}


def write(folder: Path | str, n: int = 20, classes: Sequence[str] = ("blue", "red"), seed: int = 0) -> Path:
    """Write ``n`` noisy pictures of each class, each class brighter in one channel; no two are equal."""
    rng = np.random.default_rng(seed)
    for channel, name in enumerate(classes):
        kind = Path(folder) / name
        kind.mkdir(parents=True)
        for i in range(n):
            values = rng.integers(0, 60, (SIZE + i % 3, SIZE, 3), dtype=np.uint8)
            values[..., channel] += 150
            Image.fromarray(values).save(kind / f"{i:03}.png")
    return Path(folder)


def write_digits(folder: Path | str, n: int) -> Path:
    """Write the first ``n`` of scikit-learn's handwritten digits, 8 x 8 pixels each, in a folder for each."""
    from sklearn.datasets import load_digits

    found = load_digits()
    for i, (pixels, digit) in enumerate(zip(found.images[:n], found.target, strict=False)):
        path = Path(folder) / str(digit) / f"{i:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * (255 / 16)).astype(np.uint8)).save(path)
    return Path(folder)


def save_model(folder: Path | str, model: transformers.PreTrainedModel, processor: bool = True) -> str:
    """Save a model, and beside it the image processor of a ViT for its size."""
    model.save_pretrained(folder)
    if processor:
        transformers.ViTImageProcessor(size={"height": SIZE, "width": SIZE}).save_pretrained(folder)
    return str(folder)


def vit(**changes: Any) -> transformers.PreTrainedModel:
    """A random ViT without a head."""
    torch.manual_seed(0)
    return transformers.ViTModel(transformers.ViTConfig(**{**TINY_VISION, "intermediate_size": 40, **changes}))


def dinov2(mlp_ratio: int = 2) -> transformers.PreTrainedModel:
    """A random DINOv2 without a head."""
    torch.manual_seed(0)
    return transformers.Dinov2Model(transformers.Dinov2Config(**TINY_VISION, mlp_ratio=mlp_ratio))
