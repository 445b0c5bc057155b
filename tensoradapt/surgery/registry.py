"""The adapters of a model, by name; which of them are used, and whose heads the model has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tensoradapt.adapter.adapter import Adapter
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.sites.unwrapped import ROOT, without_adapters


class Adapters(nn.ModuleDict):
    """Registered once, at the model's root. What the model was before is kept here, for ``detach``."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.flags = {name: p.requires_grad for name, p in model.named_parameters()}
        self.originals: dict[str, Tensor] = {}  # numbers of heads as they were before any adapter trained them
        self.owners: dict[str, str | None] = {}  # whose numbers each of them are now; None: the originals
        self.kept: list[Any] | None = None  # snapshots of the layers as they were, while merged
        self.merged = False
        self.fast: list[tuple[nn.Module, str, Any]] = []  # torch's fast paths that were switched off

    def named(self) -> dict[str, Adapter]:
        """The adapters by name."""
        return dict(self.items())  # type: ignore[arg-type]  # nn.ModuleDict does not know what it holds

    @property
    def used(self) -> dict[str, Adapter]:
        """Those that the layers add."""
        return {name: adapter for name, adapter in self.named().items() if adapter.gate.used}


def registered(model: nn.Module) -> Adapters | None:
    """A model's adapters, None where it has none."""
    found = getattr(model, ROOT, None)
    return found if isinstance(found, Adapters) else None


def required(model: nn.Module) -> Adapters:
    """A model's adapters; TensorAdaptError where it has none."""
    if (found := registered(model)) is None:
        raise TensorAdaptError(f"{type(model).__name__} has no adapter attached; call attach(model, plan) first")
    return found


def adapters(model: nn.Module) -> dict[str, Adapter]:
    """The adapters of a model by name; empty where it has none."""
    found = registered(model)
    return {} if found is None else found.named()


def attached(model: nn.Module, name: str | None = None) -> Adapter:
    """A model's adapter: the named one, else the only one, or of several the only one in use."""
    found = required(model).named()
    if name is not None:
        if name not in found:
            raise TensorAdaptError(f"{type(model).__name__} has no adapter named {name!r}{did_you_mean(name, found)}")
        return found[name]
    few = found if len(found) == 1 else {key: one for key, one in found.items() if one.gate.used}
    if len(few) != 1:
        raise TensorAdaptError(
            f"{type(model).__name__} has the adapters {', '.join(found)}, of which {len(few)} are in use; pass "
            f"the one that is meant, or its name, or use(model, {next(iter(found))!r}) first"
        )
    return next(iter(few.values()))


def original_modules(model: nn.Module) -> dict[str, nn.Module]:
    """The model's modules as they are without adapters."""
    return {name: module for name, module in without_adapters(model).named_modules() if name}


@torch.no_grad()
def give_heads(model: nn.Module, names: Iterable[str]) -> None:
    """Puts the heads that these adapters trained into the model, and the originals where none of them did.

    Raises TensorAdaptError, with nothing changed, where two of them trained the same one.
    """
    found: Adapters = getattr(model, ROOT)
    wanted = _owners(found.named(), names)
    parameters = dict(model.named_parameters(remove_duplicate=False))  # a head may be tied to an embedding
    for key, original in found.originals.items():
        old, new = found.owners.get(key), wanted.get(key)
        if old == new:
            continue
        if old is not None and old in found:
            found.named()[old].attachment.inactive_heads[key] = parameters[key].detach().clone()
        parameters[key].copy_(
            original if new is None else found.named()[new].attachment.inactive_heads.pop(key, original)
        )
        found.owners[key] = new


def _owners(named: Mapping[str, Adapter], names: Iterable[str]) -> dict[str, str]:
    owners: dict[str, str] = {}
    for name in names:
        for key in named[name].attachment.head_parameters():
            if (other := owners.setdefault(key, name)) != name:
                raise TensorAdaptError(
                    f"adapters {other!r} and {name!r} both trained {key!r}, and the model has one; use one of them, or "
                    "train the head apart from the adapters"
                )
    return owners
