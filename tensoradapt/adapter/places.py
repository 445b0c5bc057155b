"""Indices of what is picked from a tensor, kept on the device that picks it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class Places:
    """The index tensors of one owner, made once for each device.

    A GPU would be waited for to copy an index, and a CUDA graph cannot hold such a copy. They live as long as their
    owner, a network's factors say, as a captured graph reads them at every replay.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[torch.device, tuple[int, ...]], Tensor] = {}

    def index(self, places: tuple[int, ...], device: torch.device) -> Any:
        """Return an index: a list on the CPU and for the meta device, a tensor on others."""
        return list(places) if device.type in ("cpu", "meta") else self.tensor(places, device)

    def tensor(self, places: Sequence[int], device: torch.device) -> Tensor:
        """Return an index as a tensor."""
        places = tuple(places)
        if torch.compiler.is_compiling():
            return torch.tensor(places, device=device)
        if (device, places) not in self._kept:
            with torch.inference_mode(False):  # a pass with gradients uses it too
                self._kept[device, places] = torch.tensor(places, device=device)
        return self._kept[device, places]

    def __reduce__(self) -> tuple[type[Places], tuple[()]]:
        return Places, ()  # a copy of the owner may be on another device
