"""Wrapped: a base layer plus the updates of its sites."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tensoradapt.adapter import Adapter
from tensoradapt.sites import Site


class Wrapped(nn.Module):
    """``base(x)`` plus, on each site's rows, ``dropout(x) A^T B^T``.

    The adapter is held in a tuple, so that it is registered (and saved, moved, counted) at the model's root alone.
    """

    def __init__(self, base: nn.Module, adapter: Adapter, sites: tuple[Site, ...], dropout: float) -> None:
        super().__init__()
        self.base, self.sites = base, sites
        self._adapter = (adapter,)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.train(base.training)

    @property
    def weight(self) -> Tensor:
        """The base weight, for code that reads its dtype or device (T5 does)."""
        return self.base.weight  # type: ignore[return-value]

    @property
    def bias(self) -> Tensor | None:
        return self.base.bias  # type: ignore[return-value]

    def forward(self, x: Tensor) -> Tensor:
        y, adapter = self.base(x), self._adapter[0]
        if adapter.merged or not adapter.enabled:
            return y
        x = self.dropout(x)
        for site in self.sites:
            read = x if site.cols is None else x[..., site.cols[0] : site.cols[1]]
            y = _add_rows(y, adapter.update(read, site), site.rows)
        bias = adapter.bias(self.sites[0])
        return y if bias is None else y + bias.to(y)

    def extra_repr(self) -> str:
        return ", ".join(site.name for site in self.sites)


def _add_rows(y: Tensor, update: Tensor, rows: tuple[int, int] | None) -> Tensor:
    if rows is None:
        return y + update
    start, stop = rows
    return torch.cat([y[..., :start], y[..., start:stop] + update, y[..., stop:]], dim=-1)
