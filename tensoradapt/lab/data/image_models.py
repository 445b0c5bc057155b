"""Image classifiers of transformers by name, their modules without weights, and their image processors."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from tensoradapt.errors import TensorAdaptError, first_line
from tensoradapt.lab.data.models import HeadSpec, check_classifies, config, from_pretrained, label_entries, transformers


def load(name: str, task: HeadSpec) -> Any:
    """Load an image classifier for ``task``; a head for another number of classes is replaced by one that is drawn.

    Raises TensorAdaptError for a name that is neither a folder nor on the hub, for a model that classifies no pictures,
    and where other weights than the head's are not of the config's shapes.
    """
    check_classifies(name, "pictures")
    labels = {"num_labels": task.n_labels, "problem_type": "single_label_classification", **label_entries(task.classes)}
    options = {"ignore_mismatched_sizes": True, "output_loading_info": True}
    model, loaded = from_pretrained(transformers().AutoModelForImageClassification, name, **labels, **options)
    for key, stored, wanted in sorted(loaded["mismatched_keys"]):
        if wanted[0] != task.n_labels or stored[1:] != wanted[1:]:
            raise TensorAdaptError(
                f"{name}: weight {key} has shape {tuple(stored)}; expected {tuple(wanted)}, as its config says: save "
                "the model with the config that it was made with"
            )
    return model


def skeleton(name: str, task: HeadSpec) -> Any:
    """Make the modules of an image classifier for ``task`` without weights. Raises TensorAdaptError as ``load``."""
    import torch

    check_classifies(name, "pictures")
    settings = config(name)
    settings.num_labels = task.n_labels
    try:
        with torch.device("meta"):
            return transformers().AutoModelForImageClassification.from_config(settings)
    except Exception as error:  # a broken config raises whatever reads it
        raise TensorAdaptError(
            f"the config of {name} makes no image classifier ({first_line(error)}); expected one of a saved model"
        ) from error


def processed(name: str, picture: Any) -> Mapping[str, np.ndarray]:
    """Return what the image processor of a named model makes of a Pillow image: arrays by name, (1, ...)."""
    made = processor(name)(images=[picture], return_tensors="np")
    return {key: np.asarray(value) for key, value in made.items()}


def processor(name: str) -> Any:
    """Return the image processor of a named model."""
    return _processor(name, processor_time(name))


def processor_time(name: str) -> int:
    """Return when the settings of a folder's image processor were last written, as they may be edited; else 0."""
    path = Path(name) / "preprocessor_config.json"
    return path.stat().st_mtime_ns if path.is_file() else 0


@lru_cache(maxsize=2)
def _processor(name: str, written: int) -> Any:
    """Load the image processor of a named model, by Pillow: torchvision's has other last digits."""
    try:
        return from_pretrained(transformers().AutoImageProcessor, name, backend="pil")
    except TensorAdaptError as error:
        raise TensorAdaptError(
            f"the image processor of {name} cannot be loaded ({first_line(error.__cause__ or error)}); expected its "
            "preprocessor_config.json: save that of the model it was made from, "
            'AutoImageProcessor.from_pretrained("...").save_pretrained(folder)'
        ) from error
