"""Models with the same frozen weights hold them once: each has modules of its own around shared parameters.

No torch at import.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


def sharing(model: nn.Module, base: nn.Module, also: Iterable[nn.Module] = ()) -> nn.Module:
    """Copy a model's modules and buffers; parameters with the same numbers in ``base`` are those of ``base``.

    Modules in ``also`` are shared whole.
    """
    theirs = dict(base.named_parameters(remove_duplicate=False))
    memo: dict[int, Any] = {id(module): module for module in also}
    memo |= {id(p): theirs[name] for name, p in model.named_parameters() if _same(p, theirs.get(name))}
    return copy.deepcopy(model, memo)


def _same(p: nn.Parameter, other: nn.Parameter | None) -> bool:
    import torch

    if other is None or other is p:
        return other is p
    return other.shape == p.shape and other.dtype == p.dtype and torch.equal(other, p.to(other.device))


def own(model: nn.Module, values: Iterable[tuple[nn.Parameter, Tensor]]) -> None:
    """Put parameters of its own into a model, trained and with these values, in place of those that it has."""
    from torch import nn

    new = {id(p): nn.Parameter(value.detach().to(p.device, copy=True)) for p, value in values}
    for module in model.modules():
        for name, p in module._parameters.items():
            if id(p) in new:
                module._parameters[name] = new[id(p)]


class SharedBase:
    """The models of runs that are trained in one process; frozen weights that they share are in memory once."""

    def __init__(self) -> None:
        self._loaded: dict[Hashable, nn.Module] = {}

    def model(self, key: Hashable, load: Callable[[], nn.Module]) -> nn.Module:
        """Return a model for a run, loaded once for each key; call ``separate`` once it is known what it trains."""
        if key not in self._loaded:
            loaded = load()
            first = next(iter(self._loaded.values()), loaded)
            self._loaded[key] = loaded if loaded is first else sharing(loaded, first)
        return sharing(self._loaded[key], self._loaded[key])

    def separate(self, model: nn.Module) -> None:
        """Give a model parameters of its own in place of the shared ones that it trains, such as those of its head."""
        shared = {id(p) for loaded in self._loaded.values() for p in loaded.parameters()}
        trained = [p for p in model.parameters() if p.requires_grad and id(p) in shared]
        own(model, [(p, p) for p in trained])
        for p in trained:
            p.requires_grad_(False)  # in the other models
