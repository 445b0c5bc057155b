"""Models by name: a pinned asset, a tiny random one for tests, those of plug-ins, a folder, or any name on the hub."""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Protocol

from tensoradapt.checks import shown
from tensoradapt.errors import TensorAdaptError, first_line, of_extra
from tensoradapt.files import is_folder
from tensoradapt.lab.data import assets
from tensoradapt.lab.data.model_config import check_config
from tensoradapt.lab.data.model_names import check_name, hub_fault

MINILM, TINY = "all-minilm-l6-v2", "tiny-random-bert"
GROUP = "tensoradapt.models"  # entry points of plug-ins: the name of a model, and a function that returns its folder
VERBOSE = "TENSORADAPT_VERBOSE"  # set by --verbose, and inherited by the processes of a sweep
LOUD = ("torchao", "torch.utils._pytree", "bitsandbytes")  # warn of what was not built for them, in each process
UNPACKED = "config.json"  # the last file that is written
TINY_SIZES = {
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "vocab_size": 64,
}


class HeadSpec(Protocol):
    """What a task asks of a head: the number of outputs, "classification" or "regression", and names of classes."""

    @property
    def n_labels(self) -> int: ...

    @property
    def kind(self) -> str: ...
    @property
    def classes(self) -> tuple[str, ...]: ...


Encode = Callable[[Sequence[tuple[str, ...]], int], list[list[int]]]


def names() -> tuple[str, ...]:
    """Return the names of the models that are built in or of installed plug-ins."""
    return (MINILM, TINY, *_entries())


def holds(name: str) -> str:
    """Say what a model that is built in or of a plug-in is, in a line."""
    if name == TINY:
        return "a BERT of 3 layers and width 24 with random weights, made in memory: for tests"
    if name == MINILM:
        return assets.ASSETS[name].holds
    package = _entries()[name].dist
    return f"of the plug-in {package.name}" if package else "of a plug-in"


def load(name: str, task: HeadSpec) -> Any:
    """Load a sequence classifier for ``task``; its head is drawn from torch's generator.

    A causal model whose tokenizer has no token for padding pads with the one that ends texts. Raises TensorAdaptError
    for a name that is neither built in, nor a folder, nor on the hub, for a model that classifies no texts, and for a
    tokenizer without either token.
    """
    hf = transformers()
    if name == TINY:
        return _tiny(hf, task)
    check_classifies(name, "texts")
    model = from_pretrained(hf.AutoModelForSequenceClassification, name, **_labels(task))
    if model.config.pad_token_id is None:  # without one, causal models classify no batch of more than one text
        model.config.pad_token_id = _pad(name, model.config)
    return model


def _pad(name: str, settings: Any) -> int:
    """Return the token that fills up short texts: the tokenizer's, or else the one that ends texts."""
    known = tokenizer(name)
    ends = settings.eos_token_id
    given = (known.pad_token_id, known.eos_token_id, *(ends if isinstance(ends, list) else [ends]))
    if (found := next((token for token in given if token is not None), None)) is None:
        raise TensorAdaptError(
            f"the tokenizer of {name} has no token that pads and none that ends a text; expected one, as in "
            "tokenizer.pad_token = tokenizer.unk_token, saved with the model"
        )
    return int(found)


def check_classifies(name: str, what: str) -> None:
    """Raise TensorAdaptError for a named model that transformers has no classifier of ``what`` for."""
    if name == TINY and what == "texts":  # or "pictures"
        return
    hf, settings = transformers(), config(name)
    known = {
        "texts": hf.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
        "pictures": hf.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    }
    if type(settings) not in known[what]:
        others = [other for other, kinds in known.items() if type(settings) in kinds]
        also = f" (it has one of {others[0]})" if others else ""
        example = {"texts": "BERT or Llama", "pictures": "ViT or DINOv2"}[what]
        raise TensorAdaptError(
            f"model {name} is of type {settings.model_type!r}, of which transformers has no classifier of {what}"
            f"{also}; expected a model such as {example}, as the task has {what}"
        )


def _tiny(hf: Any, task: HeadSpec) -> Any:
    """Make the tiny model: the base is always the same, like a pretrained one, and the head is random.

    Weights are ten times BERT's usual size, so that attention is far from uniform and worth adapting.
    """
    import torch

    config = hf.BertConfig(**TINY_SIZES, max_position_embeddings=128, initializer_range=0.2, **_labels(task))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = hf.BertForSequenceClassification(config)
    model.classifier.reset_parameters()
    return model


def load_causal(name: str) -> tuple[Any, Any]:
    """Load a causal language model in fp32, in eval mode, and its tokenizer.

    Raises TensorAdaptError for a name that is neither a plug-in's, nor a folder, nor on the hub.
    """
    model = from_pretrained(transformers().AutoModelForCausalLM, name)
    return model.float().eval(), tokenizer(name)


def tokenizer(name: str) -> Any:
    """Return the tokenizer of a named model; None for the tiny one, which has none."""
    return None if name == TINY else from_pretrained(transformers().AutoTokenizer, name)


def encoder(name: str) -> Encode:
    """Return the text encoder of a named model: token ids of one or two sentences each, cut to a length."""
    if not is_folder(name):
        return hashed_words if name == TINY else _encoder(name, ())
    folder = Path(name).absolute()
    return _encoder(str(folder), tuple(sorted((path.name, path.stat().st_mtime_ns) for path in folder.iterdir())))


@lru_cache(maxsize=2)
def _encoder(name: str, files: tuple[tuple[str, int], ...]) -> Encode:
    """Return the text encoder of a model; one name may be two folders, and a folder be written again."""
    split = tokenizer(name)

    def encode(texts: Sequence[tuple[str, ...]], max_length: int) -> list[list[int]]:
        columns = [list(column) for column in zip(*texts, strict=True)]
        rows = split(*columns, truncation=True, max_length=max_length)["input_ids"]
        if all(rows):
            return rows
        empty = [_pad(name, config(name))]  # some tokenizers make nothing of a blank text
        return [row or empty for row in rows]

    return encode


def config(name: str) -> Any:
    """Return the config of a named model, for planning without its weights."""
    check_name(name, names())  # before transformers is loaded, which takes seconds
    hf = transformers()
    return hf.BertConfig(**TINY_SIZES) if name == TINY else from_pretrained(hf.AutoConfig, name)


def skeleton(name: str, architecture: str | None = None) -> Any:
    """Make the modules of a named model without weights, of the class that is given or that its config names."""
    import torch

    hf, settings = transformers(), config(name)
    kind = architecture or next(
        iter(settings.architectures or ()), "BertForSequenceClassification" if name == TINY else ""
    )
    architecture_class = getattr(hf, str(kind), None) if kind else None
    if not (isinstance(architecture_class, type) and issubclass(architecture_class, hf.PreTrainedModel)):
        what = f"{kind!r} is no model class of transformers" if kind else f"the config of {name} names no architecture"
        raise TensorAdaptError(f"{what}; give its class, such as LlamaForCausalLM or BertForSequenceClassification")
    try:
        with torch.device("meta"):
            return architecture_class(settings)
    except Exception as error:  # as in from_pretrained, a broken config raises whatever reads it
        raise TensorAdaptError(
            f"{kind} cannot be built with the config of {name} ({first_line(error)}); expected a config of its own"
        ) from error


def transformers() -> Any:
    """Import the transformers library, without its warnings about new weights: the head is new on purpose."""
    if not os.environ.get(VERBOSE):
        for library in LOUD:
            logging.getLogger(library).setLevel(logging.ERROR)
    hf = of_extra("transformers", "demo", "loading a model")
    hf.logging.set_verbosity_error()
    hf.utils.logging.disable_progress_bar()
    return hf


def hashed_words(texts: Sequence[tuple[str, ...]], max_length: int) -> list[list[int]]:
    """Return token ids of the tiny model: a hash of each word, [CLS] 2 in front, [SEP] 1 behind each sentence."""
    size = TINY_SIZES["vocab_size"] - 3
    rows = [
        [2] + [i for part in text for i in [*(zlib.crc32(w.encode()) % size + 3 for w in part.split()), 1]]
        for text in texts
    ]
    return [row[:max_length] for row in rows]


def _labels(task: HeadSpec) -> dict[str, Any]:
    regression = {"problem_type": "regression"} if task.kind == "regression" else {}
    return {"num_labels": task.n_labels, **regression, **label_entries(task.classes)}


def label_entries(classes: Sequence[str]) -> dict[str, Any]:
    """Return the entries of a config of transformers by which a pipeline answers names of classes; none without."""
    if not classes:
        return {}
    return {"id2label": dict(enumerate(classes)), "label2id": {name: i for i, name in enumerate(classes)}}


def from_pretrained(kind: Any, name: str, **options: Any) -> Any:
    """Call ``kind.from_pretrained`` with a name; raise TensorAdaptError where that fails."""
    check_name(name, names())
    if is_folder(name):
        check_config(Path(name))
    # without the last, code that a folder names is asked about on the terminal
    options = {**options, "trust_remote_code": False}
    where = model_folder(name)
    if where == name and not is_folder(name) and hub_fault():
        options["local_files_only"] = True  # what was fetched before
    try:
        return kind.from_pretrained(where, **options)
    except Exception as error:  # a broken config raises whatever reads it
        if "memory" in type(error).__name__.lower():
            raise
        raise TensorAdaptError(_unknown(name, error)) from error


def model_folder(name: str) -> str:
    """Return what transformers' ``from_pretrained`` takes for a model: its folder, fetched on first use, or its name.

    Args:
        name: a model that is built in, such as "all-minilm-l6-v2", or a plug-in's (docs/guides/plugins.md); or a folder
            or a name on the hub, which are returned as they are.

    Returns:
        The folder, or the name on the hub.

    Raises:
        TensorAdaptError: for a name that no model has, for "tiny-random-bert", which is made in memory, and for a
            folder that cannot be fetched.

    >>> import tensoradapt as ta
    >>> from transformers import AutoTokenizer
    >>> tokenizer = AutoTokenizer.from_pretrained(ta.model_folder("all-minilm-l6-v2"))  # doctest: +SKIP
    >>> ta.model_folder("FacebookAI/roberta-base")
    'FacebookAI/roberta-base'
    """
    check_name(name, names())
    if name == TINY:
        raise TensorAdaptError(f"model {TINY} is made in memory and has no folder; name {MINILM} or another model")
    if name == MINILM:
        return str(assets.fetch(MINILM))
    return str(_folder_of(_entries()[name]) if name in _entries() else name)


@lru_cache(maxsize=1)
def _entries() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _folder_of(entry: EntryPoint) -> Path:
    """Return the folder that the function of an entry point returns."""
    where = f"the entry point {entry.name!r}{f' of {entry.dist.name}' if entry.dist else ''}"
    try:
        found = entry.load()()
    except TensorAdaptError:
        raise
    except Exception as error:  # it is anybody's code
        raise TensorAdaptError(
            f"{where} raised {type(error).__name__}: {first_line(error)}; expected a function that returns the folder "
            "of a model: mend or uninstall it"
        ) from error
    if not isinstance(found, str | os.PathLike) or not Path(found).is_dir():
        raise TensorAdaptError(f"{where} returned {shown(found)}; expected the folder of a model: mend or uninstall it")
    return Path(found)


def _unknown(name: str, error: Exception) -> str:
    if is_folder(name):
        if not (Path(name) / UNPACKED).exists():
            return f"folder {name} holds no {UNPACKED}; expected a model's folder, as save_pretrained writes it"
        return f"folder {name} does not hold a model that transformers can load ({first_line(error)})"
    built_in = name.rpartition("/")[2].lower()
    also = f'; "{built_in}" is built in or of a plug-in' if built_in in names() else ""
    if wrong := hub_fault():
        return f"unknown model {name!r}: no such folder, not fetched before, and {wrong}{also}"
    return f"unknown model {name!r}: no such folder, and not loaded from the hub ({first_line(error)}){also}"
