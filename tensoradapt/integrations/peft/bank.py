"""The bank: the adapters of a PEFT model, each registered once at the tuner's root."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from tensoradapt.adapter.adapter import Adapter
from tensoradapt.adapter.attachment import Attachment
from tensoradapt.errors import TensorAdaptError
from tensoradapt.integrations.peft.config import TensorConfig
from tensoradapt.integrations.peft.targets import planned
from tensoradapt.layers.kinds import weight_of
from tensoradapt.sites.site import Site
from tensoradapt.surgery.attach import set_magnitudes
from tensoradapt.surgery.base_weights import factors_from_weights

NOISE = 0.05  # standard deviation of what init_weights=False adds to each factor


class BankedAdapter(Adapter):
    """An adapter whose solved multipliers are saved with its numbers: solving them again may round in another way."""

    def get_extra_state(self) -> Tensor:  # (tensors,)
        """The multipliers of the tensors, in double precision."""
        return torch.tensor([tensor.scale for tensor in self.factored], dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        """Takes over saved multipliers."""
        if state.shape != (len(self.factored),):
            raise TensorAdaptError(
                f"the saved adapter has the multipliers of {state.numel()} tensors, and this model and config make "
                f"{len(self.factored)}; load it on the model it was trained on, with its own config"
            )
        for tensor, scale in zip(self.factored, state.tolist(), strict=True):
            tensor.scale = scale

    def sites_of(self, module: str) -> tuple[Site, ...]:
        """The sites that a module is."""
        return tuple(site for site in self.plan.sites if site.module == module)


def banked(model: nn.Module, targets: Mapping[str, nn.Module], config: TensorConfig) -> BankedAdapter:
    """The adapter of the targeted modules, beside the first of them; nothing in the model changes."""
    made = planned(model, targets, config)
    values = factors_from_weights(targets, made, config.seed) if made.needs_weights else None
    adapter = BankedAdapter(replace(made, family=None), config.seed, values)
    adapter.attachment = Attachment(config.dropout, config.rank_dropout)
    first = made.sites[0]
    placed(adapter, weight_of(targets[first.module], first).device)
    if not _is_empty(adapter):
        set_magnitudes(adapter, targets)
    if not config.init_weights:
        with torch.no_grad():
            for parameter in adapter.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=NOISE)
    return adapter


def placed(adapter: Adapter, device: torch.device) -> None:
    """Moves an adapter; numbers that are not there yet stay where they are."""
    if device.type != "meta" and not _is_empty(adapter):
        adapter.to(device)


def _is_empty(adapter: Adapter) -> bool:
    """Whether its numbers are yet to be loaded: PEFT makes them on the meta device if told to save memory."""
    return any(parameter.is_meta for parameter in adapter.parameters())


def cast(adapter: Adapter, base: torch.dtype, up: bool) -> None:
    """PEFT's rule: ``up``, factors have at least the precision of fp32; else that of the base weights."""
    if not up:
        adapter.to(base if base.is_floating_point and base.itemsize > 1 else torch.float32)
    elif any(parameter.dtype.itemsize < 4 for parameter in adapter.parameters()):
        adapter.float()


def refuse_clash(names: Iterable[str], bank: nn.Module) -> None:
    """PEFT tells adapters apart by the parts of parameter names, so no adapter may be called like another part."""
    parts = {part for key in bank.state_dict() for part in key.split(".")[1:]}
    if clash := sorted(parts.intersection(names)):
        raise TensorAdaptError(
            f"{clash[0]!r} is part of the names of this adapter's numbers, so an adapter of that name would be saved "
            "and loaded with parts of others; give adapter_name= another name"
        )
