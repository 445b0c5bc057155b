"""The adapters of a model by name, which of them are used, and whose heads the model has.

While there are any, transformers' save_pretrained is refused, as what it writes would load without them, and so is
resize_token_embeddings of what they adapt or train.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tensoradapt.adapter.adapter import Adapter, check_filled
from tensoradapt.checks import check_is, shown
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.layers.quantised import quantised
from tensoradapt.layers.wrapper import wrapped
from tensoradapt.sites.modules import ROOT, without_adapters

MERGED = "weights_are_merged"  # a buffer that says so in a state dict, while they are
SAVE, RESIZE, PRINT = "save_pretrained", "resize_token_embeddings", "print_trainable_parameters"


class Adapters(nn.ModuleDict):
    """The adapters, registered once at the model's root, and what ``detach`` needs to restore the model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.flags = {name: p.requires_grad for name, p in model.named_parameters()}
        self.originals: dict[str, Tensor] = {}  # heads' numbers before any adapter trained them
        self.head_modules: dict[str, nn.Module] = {}  # that adapters train, as they were when these were attached
        self.owners: dict[str, str | None] = {}  # by head, the adapter whose numbers the model has; None: the originals
        self.kept: list[Any] | None = None  # snapshots of the layers as they were, while merged
        self.merged = False
        self.used: dict[str, Adapter] = {}  # the adapters whose updates the layers add
        self.changed: list[tuple[Any, str, Any]] = []  # attributes of modules and config, as they were
        self.hooks: list[Any] = []  # on the model, that begin and end a forward pass and check what it loads

    @property
    def merged(self) -> bool:
        """Whether the updates are in the weights."""
        return MERGED in self._buffers

    @merged.setter
    def merged(self, value: bool) -> None:
        self._buffers.pop(MERGED, None)
        if value:
            self.register_buffer(MERGED, torch.ones((), device=next(self.parameters()).device))

    def follow_passes(self, model: nn.Module) -> None:
        """Let the adapters know when a forward pass of the model begins and ends, and what it loads."""
        self.unfollow()
        self.hooks = [
            model.register_forward_pre_hook(self._begin),
            model.register_forward_hook(self._end, always_call=True),
            model.register_load_state_dict_pre_hook(self._check_merged),
        ]

    def _check_merged(self, model: nn.Module, state: Mapping[str, Any], prefix: str, *_: Any) -> None:
        """Raise TensorAdaptError for merged weights in an unmerged model, and for unmerged ones in a merged model."""
        merged = f"{prefix}{ROOT}.{MERGED}" in state
        matrices = ((name, matrix) for name, layer in wrapped(model) for matrix in layer.matrices.values())
        keys = (f"{prefix}{name}.base.{matrix.site.parameter}" for name, matrix in matrices)
        if merged != self.merged and any(key in state for key in keys):
            words = ("merged", "unmerged", "twice") if merged else ("not merged", "merged", "not at all")
            raise TensorAdaptError(
                f"the state dict is of a model whose adapters are {words[0]}, and those of this model are {words[1]}: "
                f"their updates would count {words[2]}. Call ta.merge(model) or ta.unmerge(model) on one of the two"
            )

    def unfollow(self) -> None:
        """Take the hooks off the model."""
        for hook in self.hooks:
            hook.remove()
        self.hooks = []

    def _begin(self, model: nn.Module, *_: Any) -> None:
        if not torch.compiler.is_compiling():
            for adapter in self.used.values():
                if adapter.empty and not all(p.is_meta for p in model.parameters()):
                    check_filled(adapter)
                if model.training:
                    self.check_heads(model, adapter)
                adapter.begin_pass()

    def _end(self, *_: Any) -> None:
        if not torch.compiler.is_compiling():
            for adapter in self.used.values():
                adapter.forward_pass.end()

    def check_heads(self, model: nn.Module, adapter: Adapter) -> None:
        """Raise TensorAdaptError where the model has another module in the place of a head that the adapter trains.

        It would be trained, and what was there before saved. Evaluation without a head is allowed.
        """
        for name in adapter.attachment.heads:
            path, _, last = name.rpartition(".")
            if (now := getattr(model.get_submodule(path), last, None)) is not self.head_modules[name]:
                raise TensorAdaptError(
                    f"the adapter trains {name!r}, and the model has another module there now, a {type(now).__name__}, "
                    f"which would be trained while the former one is saved; put adapter.attachment.heads[{name!r}] "
                    "back. A head is to be replaced before attach, or after detach(model)"
                )

    def check_layers(self, model: nn.Module) -> None:
        """Raise TensorAdaptError where the model has another module in the place of a layer that an adapter changes.

        The adapter would have no effect there: its factors would get no gradient, and a merge would leave the weight
        out.
        """
        layers = [layer for _, layer in wrapped(model)]
        for adapter in self.named().values():
            blocks = (block for layer in layers for block in layer.updates.get(adapter, ()))
            there = {site.name for block in blocks for site in block.sites}
            if gone := [site.module for site in adapter.plan.sites if site.name not in there]:
                raise TensorAdaptError(
                    f"the adapter changes {gone[0]!r}, and the model has another module there now; {len(gone)} of "
                    f"{len(adapter.plan.sites)} adapted matrices are gone. Put the layer that attach made back; a "
                    "layer is to be replaced before attach, or after detach(model)"
                )

    def named(self) -> dict[str, Adapter]:
        """Return the adapters by name."""
        return dict(self.items())  # type: ignore[arg-type]  # nn.ModuleDict does not know what it holds


def registered(model: nn.Module) -> Adapters | None:
    """Return a model's adapters, None where it has none."""
    registry = getattr(model, ROOT, None)
    return registry if isinstance(registry, Adapters) else None


def untouched(model: nn.Module, *names: str) -> list[nn.Module]:
    """Return the modules that a change of other adapters leaves alone, for ``transaction(apart=)``.

    They are the adapters neither in use nor of these names, and the tensors of those that are. There may be thousands,
    which a transaction need not go through.
    """
    if (registry := registered(model)) is None:
        return []
    touched = {*registry.used, *names}
    return [adapter.tensors if name in touched else adapter for name, adapter in registry.named().items()]


def model_itself(value: Any, where: str) -> nn.Module:
    """Return a model; raise TensorAdaptError for what is none, or an adapter in the place of its model."""
    check_is(where, value, nn.Module)
    if isinstance(value, Adapter):
        raise TensorAdaptError(f"{where} is an Adapter; expected the model that it is attached to")
    return value


def required(model: nn.Module) -> Adapters:
    """Return a model's adapters; raise TensorAdaptError where it has none."""
    model_itself(model, "model")
    if (registry := registered(model)) is None:
        raise TensorAdaptError(f"{type(model).__name__} has no adapter attached; call attach(model, plan) first")
    return registry


def adapters(model: nn.Module) -> dict[str, Adapter]:
    """Return the adapters of a model (docs/guides/several-adapters.md).

    Args:
        model: any module.

    Returns:
        Each adapter by its name; empty where the model has none.

    Raises:
        TensorAdaptError: for what is not a module.

    >>> import tensoradapt as ta
    >>> from transformers import BertConfig, BertForSequenceClassification
    >>> model = BertForSequenceClassification(BertConfig(hidden_size=12, num_hidden_layers=2, num_attention_heads=3))
    >>> adapter = ta.attach(model, "cp", rank=2)
    >>> list(ta.adapters(model))
    ['default']
    """
    check_is("model", model, nn.Module)
    registry = registered(model)
    return {} if registry is None else registry.named()


def print_trainable_parameters(model: nn.Module) -> None:
    """Print how many numbers of a model train, in the words of PEFT's method of this name.

    Frozen random factors, which are stored nowhere, do not count. A quantised weight counts as the matrix that its
    codes stand for.

    Args:
        model: any module; parameters that require gradients are counted.

    Raises:
        TensorAdaptError: for what is not a module.

    >>> from transformers import BertConfig, BertModel
    >>> import tensoradapt as ta
    >>> model = BertModel(BertConfig(hidden_size=24, num_attention_heads=4, num_hidden_layers=2, intermediate_size=32))
    >>> adapter = ta.attach(model, ta.plan(model, "lorta", rank=2))
    >>> ta.print_trainable_parameters(model)
    trainable params: 80 || all params: 753,768 || trainable%: 0.0106
    """
    check_is("model", model, nn.Module)
    layers: list[Any] = [module for module in model.modules() if quantised(module)]
    coded = {id(layer._parameters["weight"]): layer.out_features * layer.in_features for layer in layers}
    counts = [(coded.get(id(p), p.numel()), p.requires_grad) for p in model.parameters()]
    total, trained = sum(n for n, _ in counts), sum(n for n, trains in counts if trains)
    share = 100 * trained / total if total else 0.0
    print(f"trainable params: {trained:,d} || all params: {total:,d} || trainable%: {share:.4f}")


def attached(model: nn.Module, name: str | None = None) -> Adapter:
    """Return a model's adapter: the named one, else its only one, or the only one of several that is in use."""
    registry = required(model)
    named = registry.named()
    if name is not None:
        if not isinstance(name, str) or name not in named:
            raise TensorAdaptError(
                f"{type(model).__name__} has no adapter named {shown(name)}{did_you_mean(name, named)}"
            )
        return named[name]
    candidates = list((named if len(named) == 1 else registry.used).values())
    if len(candidates) != 1:
        raise TensorAdaptError(
            f"{type(model).__name__} has the adapters {', '.join(named)}, of which {len(candidates)} are in use; pass "
            f"the one that is meant, or its name, or use(model, {next(iter(named))!r}) first"
        )
    return candidates[0]


def original_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Return the model's modules as they are without adapters, by name."""
    return {name: module for name, module in without_adapters(model).named_modules() if name}


def give_heads(model: nn.Module, names: Iterable[str], write: Callable[[Tensor, Tensor], None]) -> None:
    """Put the heads that these adapters trained into the model, and the original heads where none of them did.

    ``write`` copies numbers into a parameter. Raises TensorAdaptError, with nothing changed, where two of them trained
    the same head, and where a head was replaced.
    """
    registry = required(model)
    for adapter in registry.used.values():
        registry.check_heads(model, adapter)
    attachments = {name: adapter.attachment for name, adapter in registry.named().items()}
    wanted = _owners(registry.named(), names)
    for key, original in registry.originals.items():
        old, new = registry.owners.get(key), wanted.get(key)
        if old == new:
            continue
        head = model.get_parameter(key)
        if new is None and original.is_meta and not head.is_meta:
            raise TensorAdaptError(
                f"the original numbers of {key!r} are not known: the adapter was attached on the meta device, before "
                "they were loaded; load the base model again"
            )
        if old in attachments:
            attachments[old].inactive_heads[key] = head.detach().clone()
        write(head, original if new is None else attachments[new].inactive_heads.pop(key, original))
        registry.owners[key] = new


def _owners(named: Mapping[str, Adapter], names: Iterable[str]) -> dict[str, str]:
    owners: dict[str, str] = {}
    for name in names:
        for key in named[name].attachment.head_parameters():
            if (other := owners.setdefault(key, name)) != name:
                raise TensorAdaptError(
                    f"adapters {other!r} and {name!r} both trained {key!r}, and the model has one; use one of them, or "
                    "plan them with train=() and train the head apart from the adapters"
                )
    return owners


def guard(model: nn.Module) -> None:
    """Put ``save_attached`` before ``save_pretrained`` of a model and of the models inside it, and ``resize_attached``.

    The model gets PEFT's method ``print_trainable_parameters`` too, unless it has one.
    """
    if not hasattr(model, PRINT):
        setattr(model, PRINT, partial(print_trainable_parameters, model))
    put: dict[str, Callable[..., Any]] = {SAVE: save_attached, RESIZE: partial(resize_attached, required(model))}
    for module in model.modules():
        for name, method in put.items():
            if hasattr(type(module), name) and name not in vars(module):
                setattr(module, name, partial(method, module))


def unguard(model: nn.Module) -> None:
    """Leave the methods of a model and of the models inside it as they were before ``guard``."""
    if getattr(vars(model).get(PRINT), "func", None) is print_trainable_parameters:
        delattr(model, PRINT)
    for module in model.modules():
        for name, method in ((SAVE, save_attached), (RESIZE, resize_attached)):
            if getattr(vars(module).get(name), "func", None) is method:
                delattr(module, name)


def save_attached(model: nn.Module, save_directory: str | os.PathLike[str], *arguments: Any, **options: Any) -> Any:
    """Save a checkpoint of training, as transformers' Trainer asks for it; raise TensorAdaptError for another call.

    A checkpoint has the names of the adapted model, which it is loaded into again. ``from_pretrained`` would draw its
    adapted weights anew: a folder that is not named as the Trainer's checkpoints are is written with a warning.
    """
    if not {"state_dict", "is_main_process"} & options.keys():
        raise TensorAdaptError(
            f"{type(model).__name__} has an adapter attached, and from_pretrained would load this without "
            "it and with new weights in place of the adapted ones; call ta.merge_and_unload(model) first to save the "
            "adapted model, adapter.save(folder) for the adapter alone, or ta.detach(model) first for the base"
        )
    if not Path(save_directory).name.startswith("checkpoint-"):
        warnings.warn(
            f"{save_directory} is written from a model with an adapter attached: it only resumes training, and "
            "from_pretrained would draw the adapted weights anew. Call adapter.save(folder) to keep the adapter, for "
            "ta.load(model, folder)",
            stacklevel=2,
        )
    return type(model).save_pretrained(model, save_directory, *arguments, **options)  # type: ignore[attr-defined]


def resize_attached(
    registry: Adapters,
    model: Any,
    new_num_tokens: int | None = None,
    pad_to_multiple_of: int | None = None,
    mean_resizing: bool = True,
) -> Any:
    """Resize a vocabulary; raise TensorAdaptError where an adapter adapts or trains a matrix of its rows.

    transformers refuses an adapted one too, but after it has resized the other of the two.
    """
    layers = [layer for layer in (model.get_input_embeddings(), model.get_output_embeddings()) if layer is not None]
    trained = {id(p) for one in registry.named().values() for p in one.attachment.head_parameters().values()}
    changes = pad_to_multiple_of is not None or new_num_tokens not in (None, len(layers[0].weight))
    if changes and any(getattr(x, "wraps", False) or trained & set(map(id, x.parameters())) for x in layers):
        raise TensorAdaptError(
            f"an adapter adapts or trains the vocabulary of this {type(model).__name__}, whose size would change; call "
            "resize_token_embeddings before attach, or after ta.detach(model)"
        )
    return type(model).resize_token_embeddings(model, new_num_tokens, pad_to_multiple_of, mean_resizing)
