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
    """Takes an adapter out; without its last one, weights, heads, requires_grad flags and module tree of the model are
    bit for bit as before attach.

    A merged model is unmerged first; one merged with ``keep=False`` keeps its merged weights. ``name`` is needed where
    there are several. Returns the adapter, which still has the heads it trained.
    """
    adapter = attached(model, name)
    refuse_sharded(model, "detach")
    found: Adapters = getattr(model, ROOT)
    name = next(key for key, one in found.named().items() if one is adapter)
    if found.merged and found.kept is not None:
        restore_weights(model)
    give_heads(model, [key for key in found.used if key != name])
    for module, layer in list(wrapped(model)):
        if not layer.remove(adapter):
            model.set_submodule(module, layer.base)
    del found[name]
    if not found.named():
        _unregister(model, found)
    return adapter


def _unregister(model: nn.Module, found: Adapters) -> None:
    delattr(model, ROOT)
    for module, attribute, value in found.fast:
        setattr(module, attribute, value)
    for key, parameter in model.named_parameters():
        parameter.requires_grad_(found.flags.get(key, parameter.requires_grad))  # it may be newer than the adapter


@contextmanager
def disabled(model: nn.Module) -> Iterator[None]:
    """Within it the model computes what it did before attach (trained heads stay)."""
    found = required(model)
    if found.merged:
        raise TensorAdaptError(
            "the adapter is merged into the weights and cannot be disabled; call unmerge(model) first"
        )
    with ExitStack() as held:
        for adapter in found.named().values():
            held.enter_context(adapter.disabled())
        yield
