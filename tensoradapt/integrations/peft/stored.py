"""Stored: what a layer holds of its weight and bias, as it is before any adapter is merged into it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tensoradapt.adapter.adapter import Adapter
from tensoradapt.errors import TensorAdaptError
from tensoradapt.layers.kinds import kind_of
from tensoradapt.layers.quantised import quantised
from tensoradapt.layers.weight_change import change
from tensoradapt.sites.site import RowBlock, Site
from tensoradapt.surgery.checks import DEQUANTISE, check_readable

UNMERGED = f"{DEQUANTISE}, or use the adapter unmerged"


@dataclass(frozen=True)
class Stored:
    """Values by reference: a merge writes new ones, so these are the original bits."""

    module: nn.Module
    site: Site  # one of the module's, to name it
    weight: Any  # the stored values; of a quantised layer, all its state
    bias: Tensor | None

    @classmethod
    def of(cls, module: nn.Module, site: Site) -> Stored:
        """What the module holds now."""
        packed, bias = quantised(module), module._parameters.get("bias")
        weight: Any = packed.state(module) if packed else module.weight.data  # type: ignore[union-attr]
        return cls(module, site, weight, None if bias is None else bias.data)

    def check(self) -> None:
        """Refuses weights whose entries are not the layer's matrix, and codes that cannot be made anew."""
        check_readable(self.module, self.site, "merge", UNMERGED)
        if (packed := quantised(self.module)) and packed.store is None:
            raise TensorAdaptError(
                f"{self.site.module} holds a weight of {packed.name}, which cannot be made anew. {UNMERGED}"
            )

    @torch.no_grad()
    def matrix(self) -> Tensor:  # (out, in), in fp32 or wider
        """The logical matrix."""
        packed = quantised(self.module)
        if packed is None:
            own = kind_of(self.module, self.site).logical(self.weight)
            return own.to(torch.promote_types(own.dtype, torch.float32))
        now = packed.state(self.module)
        packed.restore(self.module, self.weight)
        found = packed.matrix(self.module)
        packed.restore(self.module, now)
        return found

    def change(self, adapter: Adapter, own: tuple[RowBlock, ...]) -> Tensor:  # (out, in)
        """What an adapter adds to the matrix."""
        with torch.no_grad():
            return change(adapter, own, self.matrix())

    def as_stored(self, matrix: Tensor) -> Tensor:
        """A matrix in the weight's layout."""
        shape = matrix.shape if quantised(self.module) else self.weight.shape
        return kind_of(self.module, self.site).stored(matrix, shape).contiguous()

    def sums(self) -> dict[str, Tensor]:
        """Matrix and bias, wide enough to add to."""
        bias = self.bias
        found = {"weight": self.matrix()}
        return found if bias is None else {**found, "bias": bias.to(torch.promote_types(bias.dtype, torch.float32))}

    @torch.no_grad()
    def plus(self, sums: dict[str, Tensor], adapter: Adapter, own: tuple[RowBlock, ...]) -> dict[str, Tensor]:
        """The sums and what an adapter adds to the originals."""
        found = {**sums, "weight": sums["weight"] + self.change(adapter, own)}
        if (shared := adapter.bias(own[0].sites[0])) is None:
            return found
        if "bias" not in sums:
            raise TensorAdaptError(
                f"{self.site.module} has no bias to merge the adapter's shared bias into; use it unmerged"
            )
        return {**found, "bias": sums["bias"] + shared.to(sums["bias"])}

    @torch.no_grad()
    def write(self, sums: dict[str, Tensor]) -> None:
        """Puts sums in the module, rounded to the dtypes that are stored; the originals are not touched."""
        if packed := quantised(self.module):
            packed.restore(self.module, self.weight)
            packed.store(self.module, sums["weight"])  # type: ignore[misc]  # ``check`` refused None
        else:
            self._put("weight", self.as_stored(sums["weight"].to(self.weight.dtype)))
        if self.bias is not None:
            self._put("bias", sums["bias"].to(self.bias.dtype))

    def restore(self) -> None:
        """Puts the originals back."""
        if packed := quantised(self.module):
            packed.restore(self.module, self.weight)
        else:
            self._put("weight", self.weight)
        if self.bias is not None:
            self._put("bias", self.bias)

    def _put(self, name: str, value: Tensor) -> None:
        parameter = self.module.get_parameter(name)
        parameter.data = value.to(parameter.device)
