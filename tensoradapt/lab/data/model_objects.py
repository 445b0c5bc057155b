"""Save a model that is given as an object, once and under the hash of its content, where every process loads it."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from tensoradapt.checks import its_model, shown
from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.data import assets, models

FOLDER = "models"  # in a folder of runs
BY_SAVING = ("architectures", "dtype", "transformers_version", "_name_or_path")  # written into a config by saving it
EXPECTED = "expected a name, a folder, or a model of transformers"


def with_saved_model(settings: Mapping[str, Any], root: Path) -> Mapping[str, Any]:
    """Return settings whose ``model`` is a name: a model object is saved under ``root`` with its ``tokenizer``.

    The tokenizer may be an image processor. Without one that of the model's ``name_or_path`` is taken. Raises
    TensorAdaptError for objects that transformers cannot save, and where there is no tokenizer.
    """
    rest = {key: value for key, value in settings.items() if key != "tokenizer"}
    model, tokenizer = settings.get("model"), settings.get("tokenizer")
    if model is None or isinstance(model, str | PathLike):
        if tokenizer is not None:
            raise TensorAdaptError("tokenizer was given with a model's name; expected it beside a model object alone")
        return rest
    if not isinstance(model, models.transformers().PreTrainedModel):
        raise TensorAdaptError(f"model is {shown(model)}; {EXPECTED}{its_model(model)}")
    return {**rest, "model": str(_saved(model, tokenizer or _tokenizer_of(model), root / FOLDER))}


def _tokenizer_of(model: Any) -> Any:
    name = model.config.name_or_path
    try:
        return models.from_pretrained(models.transformers().AutoTokenizer, name)
    except TensorAdaptError as error:
        raise TensorAdaptError(
            f"model is a {type(model).__name__} without its tokenizer, and none is found by its name {name!r}; give "
            'it (or the image processor) beside the model, as {"model": model, "tokenizer": tokenizer}'
        ) from error


def _saved(model: Any, tokenizer: Any, root: Path) -> Path:
    """Save a model into a folder named by the hash of its weights, renamed into place when complete; return that."""
    if not hasattr(tokenizer, "save_pretrained"):
        raise TensorAdaptError(f"tokenizer is {shown(tokenizer)}; expected a tokenizer or image processor")
    if meta := next((name for name, value in model.named_parameters() if value.is_meta), None):
        raise TensorAdaptError(f"model has no values yet: {meta} is on the meta device; load its weights first")
    folder = root / _hash(model, tokenizer)
    if not (folder / models.UNPACKED).exists():
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".save-", dir=root) as temporary:
            written = Path(temporary) / "model"
            tokenizer.save_pretrained(written)
            model.save_pretrained(written)
            assets.publish(written, folder, lambda: (folder / models.UNPACKED).exists())
    return folder


def _hash(model: Any, tokenizer: Any) -> str:
    """Return sixteen hex digits of the SHA-256 of configuration, tokenizer and weights."""
    import torch

    settings = {key: value for key, value in model.config.to_dict().items() if key not in BY_SAVING}
    digest = hashlib.sha256(f"{type(model).__name__} {json.dumps(settings, sort_keys=True, default=str)}".encode())
    with tempfile.TemporaryDirectory() as temporary:
        tokenizer.save_pretrained(temporary)
        for path in sorted(Path(temporary).rglob("*")):
            digest.update(path.name.encode() + path.read_bytes() if path.is_file() else b"")
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
