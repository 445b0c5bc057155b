"""detach and disabled: take an adapter out of a model, or switch it off for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from torch import nn

from tensoradapt.adapter.adapter import Adapter
from tensoradapt.adapter.sharding import refuse_sharded
from tensoradapt.errors import TensorAdaptError
from tensoradapt.layers.wrapper import wrapped
from tensoradapt.sites.unwrapped import ROOT
from tensoradapt.surgery.merge import restore_weights
from tensoradapt.surgery.registry import Adapters, attached, give_heads, required


def detach(model: nn.Module, name: str | None = None) -> Adapter:
    """Take an adapter out of a model and return it, with the heads that it trained.

    Without its last adapter, the model's weights, heads, ``requires_grad`` flags and modules are bit for bit as before
    ``attach``. A merged model is unmerged first, unless ``keep=False`` gave up its original weights. ``name`` is needed
    where the model has several adapters.
    """
    adapter = attached(model, name)
    refuse_sharded(model, "detach")
    registry = required(model)
    name = next(key for key, other in registry.named().items() if other is adapter)
    if registry.merged and registry.kept is not None:
        restore_weights(registry)
    give_heads(model, [key for key in registry.used if key != name])
    for module, layer in list(wrapped(model)):
        if not layer.remove(adapter):
            model.set_submodule(module, layer.base)
    del registry[name]
    if not registry.named():
        _unregister(model, registry)
    return adapter


def _unregister(model: nn.Module, registry: Adapters) -> None:
    delattr(model, ROOT)
    for module, attribute, value in registry.fast:
        setattr(module, attribute, value)
    for key, parameter in model.named_parameters():
        parameter.requires_grad_(registry.flags.get(key, parameter.requires_grad))  # it may be newer than the adapter


@contextmanager
def disabled(model: nn.Module) -> Iterator[None]:
    """Make the model compute, inside this context, what it did before ``attach``; trained heads stay."""
    registry = required(model)
    if registry.merged:
        raise TensorAdaptError(
            "the adapter is merged into the weights and cannot be disabled; call unmerge(model) first"
        )
    with ExitStack() as held:
        for adapter in registry.named().values():
            held.enter_context(adapter.disabled())
        yield
