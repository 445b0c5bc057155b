"""TensorLinear: a linear layer with the updates of the adapters that target it."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import Tensor, nn

from tensoradapt.adapter.adapter import Adapter
from tensoradapt.errors import TensorAdaptError
from tensoradapt.integrations.peft.stored import Stored
from tensoradapt.layers.kinds import shape_of
from tensoradapt.layers.wrapper import Wrapped
from tensoradapt.sites.site import RowBlock, Site, row_blocks


class TensorLinear(nn.Module, BaseTunerLayer):
    """``base_layer(x)`` plus the updates of the active adapters.

    Adapters are held in a tuple, so that they are registered (and saved, moved, counted) at the tuner's root alone; so
    is the wrapper that knows how a layer applies them.
    """

    adapter_layer_names = ("tensoradapt_bank",)
    other_param_names = ("tensoradapt_sites",)

    def __init__(self, base_layer: nn.Module, site: Site) -> None:
        super().__init__()
        self.base_layer, self.site = base_layer, site
        self.out_features, self.in_features = shape_of(base_layer, site)
        self._held = (nn.ModuleDict(),)
        self._wrapped = (Wrapped(base_layer, site),)
        self.tensoradapt_sites: dict[str, tuple[RowBlock, ...]] = {}
        self.merged_adapters: list[str] = []
        self._original: Stored | None = None  # the weight and bias as they were, while merged
        self.train(base_layer.training)

    @property
    def tensoradapt_bank(self) -> nn.ModuleDict:
        """The adapters that target this layer, by name."""
        return self._held[0]

    def add(self, name: str, adapter: Adapter, sites: tuple[Site, ...]) -> None:
        """Takes in an adapter, which stays registered at the root."""
        self.tensoradapt_bank[name] = adapter
        self.tensoradapt_sites[name] = row_blocks(sites)

    def train(self, mode: bool = True) -> TensorLinear:
        """The wrapper is no child, so it is told."""
        self._wrapped[0].training = mode
        return super().train(mode)

    def forward(self, x: Tensor, *args: Any, adapter_names: list[str] | None = None, **kwargs: Any) -> Tensor:
        """``adapter_names``: an adapter for each sample, in the place of the active ones."""
        if self.disable_adapters and self.merged:
            self.unmerge()
        base = y = self.base_layer(x, *args, **kwargs)
        if adapter_names is not None:
            return self._mixed(x, y, adapter_names)
        if self.disable_adapters or self.merged:
            return y
        for name in self.active_adapters:
            if name in self.tensoradapt_sites:
                y = self._updated(y, base, name, x)
        return y.to(base.dtype)

    def _updated(self, y: Tensor, base: Tensor, name: str, x: Tensor) -> Tensor:
        return self._wrapped[0].updated(y, base, self._adapter(name), self.tensoradapt_sites[name], x)

    def _mixed(self, x: Tensor, y: Tensor, names: list[str]) -> Tensor:
        if len(names) != len(x):
            raise TensorAdaptError(f"adapter_names has {len(names)} names and the batch {len(x)}; give each sample one")
        if self.merged:
            raise TensorAdaptError("adapter_names were given and adapters are merged; call unmerge_adapter() first")
        for name in sorted({*names}.intersection(self.tensoradapt_sites)):
            rows = torch.tensor([i for i, own in enumerate(names) if own == name], device=x.device)
            y = y.index_copy(0, rows, self._updated(y[rows], y[rows], name, x[rows]).to(y.dtype))
        return y

    def get_delta_weight(self, adapter: str) -> Tensor:  # as the weight is stored
        """What one adapter adds to the weight, in fp32 or wider; PEFT's conversion to LoRA reads it too."""
        original = self._original or Stored.of(self.base_layer, self.site)
        return original.as_stored(original.change(self._adapter(adapter), self.tensoradapt_sites[adapter]))

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Adds updates to the weight, summed in fp32 or wider and rounded once; the original is kept for ``unmerge``.

        Raises TensorAdaptError, with this layer unchanged, for weights that cannot be read or made anew and a shared
        bias without a place; and with ``safe_merge`` for a sum that is not finite.
        """
        names = [name for name in check_adapters_to_merge(self, adapter_names) if name in self.tensoradapt_sites]
        if not names:
            return
        original = self._original or Stored.of(self.base_layer, self.site)
        original.check()
        sums = original.sums()
        for name in [*self.merged_adapters, *names]:
            sums = original.plus(sums, self._adapter(name), self.tensoradapt_sites[name])
            if safe_merge and not all(torch.isfinite(value).all() for value in sums.values()):
                raise TensorAdaptError(
                    f"NaNs detected in the merged weights. The adapter {name} seems to be broken; nothing was merged "
                    f"into {self.site.module}. Load a good checkpoint first"
                )
        original.write(sums)
        self._original = original
        self.merged_adapters.extend(names)

    def unmerge(self) -> None:
        """The weight as it was before ``merge``, bit for bit."""
        if self._original is None:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
            return
        self._original.restore()
        self._original = None
        self.merged_adapters.clear()

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """Every adapter adds to the weight, so every adapter has a LoRA."""
        return True

    def _adapter(self, name: str) -> Adapter:
        return self.tensoradapt_bank[name]  # type: ignore[return-value]

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        """Nothing: adapters live where the root puts them, beside the first layer that each adapts."""

    def extra_repr(self) -> str:
        return ", ".join(f"{name}: {len(own)} sites" for name, own in self.tensoradapt_sites.items())
