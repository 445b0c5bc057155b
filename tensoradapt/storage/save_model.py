"""save_model writes a whole model with what it needs to be used: weights, class names, tokenizer and a card."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

from tensoradapt.checks import as_path, check_arguments, of_kind, shown
from tensoradapt.errors import TensorAdaptError, of_extra
from tensoradapt.files import explained
from tensoradapt.surgery.registry import registered

CARD = "README.md"


def save_model(model: nn.Module, path: str | Path, tokenizer: Any = None) -> None:
    """Write a merged model, its tokenizer and a card into a folder that pipelines of transformers load.

    ``save_pretrained`` of transformers writes no tokenizer, and without the right one a pipeline answers nonsense.
    Names of classes are in the model's config, where a task of ``ta.sweep`` has them; else set
    ``model.config.id2label`` and ``label2id`` first.

    Args:
        model: a model of transformers without adapters, such as ``merge_and_unload`` returns.
        path: the folder.
        tokenizer: the model's tokenizer or image processor; default that of the folder or hub name it was loaded from.

    Raises:
        TensorAdaptError: with nothing written, for a model with adapters or not of transformers, and what is no
            tokenizer; for a folder that cannot be written.

    Warns where no tokenizer is known: save one beside the model before it is served.

    >>> import tempfile
    >>> import tensoradapt as ta
    >>> from transformers import BertConfig, BertForSequenceClassification
    >>> model = BertForSequenceClassification(BertConfig(hidden_size=12, num_hidden_layers=2, num_attention_heads=3))
    >>> adapter = ta.attach(model, "cp", rank=2)
    >>> ta.save_model(ta.merge_and_unload(model), tempfile.mkdtemp())  # doctest: +SKIP
    """
    check_arguments(locals(), model=of_kind(nn.Module), path=as_path)
    path, whole = Path(path), _whole(model)
    if tokenizer is not None and not hasattr(tokenizer, "save_pretrained"):
        raise TensorAdaptError(
            f"tokenizer is {shown(tokenizer)}; expected a tokenizer or image processor of transformers, which has "
            "save_pretrained"
        )
    found = _known(whole) if tokenizer is None else tokenizer
    with explained("written", path, "expected a folder with free space: choose another, or free some", Exception):
        if found is not None:  # first, so that a folder with weights has all that it needs
            found.save_pretrained(path)
        whole.save_pretrained(path)
        (path / CARD).write_text("\n".join(_card(whole, path.name, found)) + "\n")
    if found is None:
        warnings.warn(
            f"no tokenizer was written into {path}, as none is known for this model; a pipeline would make one of a "
            "few tokens and answer nonsense: give save_model(model, path, tokenizer)",
            stacklevel=2,
        )


def _whole(model: nn.Module) -> Any:
    """Return the model; raise TensorAdaptError where it has adapters or is no model of transformers."""
    if registered(model) is not None:
        raise TensorAdaptError(
            "the model has adapters; call ta.merge_and_unload(model) first, or adapter.save(path) to save the adapter "
            "alone"
        )
    if hooked := [name or type(model).__name__ for name, module in model.named_modules() if module._forward_hooks]:
        raise TensorAdaptError(
            f'{hooked[0]} has a hook that changes what it computes, as readout = "mean" of a run sets, and a saved '
            "model has none; keep the adapter (adapter.save, ta.load_run), or train with the readout of the model"
        )
    if not hasattr(model, "save_pretrained") or not hasattr(model, "config"):
        raise TensorAdaptError(f"model is {shown(model)}; expected a model of transformers, which has save_pretrained")
    return model


def _known(model: Any) -> Any:
    """Return the tokenizer or image processor of the folder or hub name that a model was loaded from, or None."""
    hf, name = of_extra("transformers", "demo", "saving a model"), getattr(model.config, "_name_or_path", "")
    kind = hf.AutoImageProcessor if getattr(model, "main_input_name", "") == "pixel_values" else hf.AutoTokenizer
    try:
        return kind.from_pretrained(name, local_files_only=True, trust_remote_code=False) if name else None
    except Exception:  # a folder without one, or a damaged one: the caller warns
        return None


def _card(model: Any, name: str, processor: Any) -> Iterator[str]:
    """Yield the lines of a card that says how the model is loaded."""
    kinds = [type(part).__name__ for part in (model, processor) if part is not None]
    labels = getattr(model.config, "id2label", None) or {}
    yield from (f"# {name}\n", f"A {kinds[0]} with the updates of an adapter of tensoradapt in its weights.\n")
    yield from ("```python", f"from transformers import {', '.join(kinds)}\n")
    for variable, kind in zip(("model", "processor"), kinds, strict=False):
        yield f'{variable} = {kind}.from_pretrained("{name}")'
    yield "```"
    if kinds[0].endswith("Classification") and model.config.num_labels > 1:
        yield f"\nIts classes are {', '.join(map(str, labels.values()))}."
