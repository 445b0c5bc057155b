"""Gate: whether the layers add an adapter's updates, and times what."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tensoradapt.errors import TensorAdaptError


class Gate(nn.Module):
    """State that ``use``, ``merge`` and ``disabled`` set and wrapped layers read.

    A module, so that ``share`` moves with the adapter.
    """

    def __init__(self) -> None:
        super().__init__()
        self.enabled, self.used, self.merged = True, True, False
        self.by_share = False  # whether updates are multiplied by ``share``
        self.share: Tensor  # a number, or one for each sample of the batch
        self.register_buffer("share", torch.ones(()), persistent=False)

    @property
    def live(self) -> bool:
        """Whether the layers are to add the updates: used, enabled, and not merged into their weights."""
        return self.used and self.enabled and not self.merged

    @property
    def per_sample(self) -> bool:
        """Whether each sample of the batch has its own share."""
        return self.by_share and self.share.ndim > 0

    def times_share(self, update: Tensor) -> Tensor:  # of the update's shape
        """Multiply an update by the share."""
        if not self.by_share:
            return update
        if self.share.ndim and len(self.share) != len(update):
            raise TensorAdaptError(
                f"use(model, samples=) was given {len(self.share)} samples and the batch has {len(update)}; give one "
                "each"
            )
        share = self.share.to(update)
        return (share.reshape(-1, *[1] * (update.ndim - 1)) if share.ndim else share) * update
