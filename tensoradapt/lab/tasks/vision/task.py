"""Classes of pictures, by an image classifier with a head of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.data import image_models
from tensoradapt.lab.tasks.classification import Classification
from tensoradapt.lab.tasks.splits import Split
from tensoradapt.lab.tasks.vision.pictures import Picture, pixels
from tensoradapt.planning.trained_modules import AUTO, with_heads

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Labelled:
    """A picture with its label, and the name of the model whose image processor prepares it; its length is constant."""

    picture: Picture
    label: int
    model: str

    def __len__(self) -> int:
        return 1


@dataclass(frozen=True)
class Pictures(Classification):
    """A task of classes of pictures, by transformers' image classifier of the model.

    Pictures are read when a batch needs them, as the model's own image processor makes them; nothing is augmented.
    """

    readouts: ClassVar[tuple[str, ...]] = ("model",)

    def base(self, name: str) -> nn.Module:
        """Return the modules of the image classifier without weights."""
        return image_models.skeleton(name, self)

    def described(self, name: str) -> str:
        """Say what the image processor makes of a picture, and which head is trained."""
        first = self.splits()[0].pictures or ()
        made, heads = _shapes(pixels(first[0], name, self.name)), ", ".join(self.heads(self.base(name)))
        return f"a picture becomes {made} by the image processor of {name}; head trained with each adapter: {heads}"

    def processor(self, name: str) -> Any:
        """Return the image processor of a named model."""
        return image_models.processor(name)

    def model(self, name: str) -> nn.Module:
        """Load the image classifier; its head is drawn from torch's generator."""
        return image_models.load(name, self)

    def heads(self, model: nn.Module) -> tuple[str, ...]:
        """Return the classifier's modules beside its base model, or its last layer with an output for each class."""
        layers = [name for name, layer in model.named_modules() if getattr(layer, "out_features", 0) == self.n_labels]
        return with_heads(model, (AUTO,), ()) or tuple(layers[-1:])

    def encode(self, split: Split, model: str, max_length: int) -> list[Any]:
        """Return the pictures, still to be read, with their labels."""
        rows = zip(split.pictures or (), split.labels.tolist(), strict=True)
        return [Labelled(picture, label, model) for picture, label in rows]

    def collate(self, examples: Sequence[Any], model: nn.Module, device: str) -> Mapping[str, Tensor]:
        """Return the pixel values, (batch, 3, height, width), and the labels."""
        import torch

        made = [pixels(row.picture, row.model, self.name) for row in examples]
        if odd := [i for i, one in enumerate(made) if _shapes(one) != _shapes(made[0])]:
            first, other = examples[0], examples[odd[0]]
            raise TensorAdaptError(
                f"the image processor of {first.model} makes {_shapes(made[0])} of {first.picture.path} and "
                f"{_shapes(made[odd[0]])} of {other.picture.path}; expected one size: give its "
                'preprocessor_config.json a "size" with height and width, or "do_center_crop" with a "crop_size"'
            )
        values = {key: torch.from_numpy(np.concatenate([one[key] for one in made])).to(device) for key in made[0]}
        kind = getattr(model, "dtype", torch.float32)
        values = {key: value.to(kind) if value.is_floating_point() else value for key, value in values.items()}
        return {**values, "labels": torch.tensor([row.label for row in examples]).to(device)}


def _shapes(made: Mapping[str, np.ndarray]) -> str:
    return ", ".join(f"{key} {' x '.join(map(str, value.shape[1:]))}" for key, value in made.items())
