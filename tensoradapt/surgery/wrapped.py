"""Wrapped: a base layer plus the updates of its sites."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from tensoradapt.adapter import Adapter
from tensoradapt.sites import Site
from tensoradapt.surgery.kinds import kind_of


class Wrapped(nn.Module):
    """``base(x)`` plus, on each site's rows, ``dropout(x) A^T B^T``; a layer that reads several weights at once
    (torch's attention, stacked experts) is computed with W + delta in their place.

    The adapter is held in a tuple, so that it is registered (and saved, moved, counted) at the model's root alone.
    Everything else asked of it is the base layer's: its weight's dtype (T5 reads it), its sizes.
    """

    def __init__(self, base: nn.Module, adapter: Adapter, sites: tuple[Site, ...], dropout: float) -> None:
        super().__init__()
        self.base, self.sites, self.dropout = base, sites, dropout
        self._adapter = (adapter,)
        self.kind = kind_of(base, sites[0])
        self.train(base.training)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "base":  # not there yet: while a copy is made
                raise
            return getattr(self.base, name)

    @property
    def live(self) -> bool:
        """Whether the adapter is to be added: it is enabled, and not in the weights already."""
        return self._adapter[0].enabled and not self._adapter[0].merged

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if not self.live:
            return self.base(*args, **kwargs)
        if self.kind.through is None:
            return functional_call(self.base, self.weights(), args, kwargs)
        return self._add(self.base(*args, **kwargs), *args, **kwargs)

    def _add(self, y: Tensor, x: Tensor) -> Tensor:
        adapter, kind = self._adapter[0], self.kind
        if self.dropout and x.is_floating_point():
            x = F.dropout(x, self.dropout, self.training)
        for site in self.sites:
            read = x if site.cols is None else x[..., site.cols[0] : site.cols[1]]
            update = adapter.update(read, site, lambda x, pairs: kind.through(self.base, x, pairs))  # type: ignore[misc]
            y = _add_rows(y, update, site)
        bias = adapter.bias(self.sites[0])
        return y if bias is None else y + bias.to(y)

    def weights(self) -> dict[str, Tensor]:
        """Every parameter that a site is in, with the updates of all of its sites."""
        names = dict.fromkeys(site.parameter for site in self.sites)
        return {name: self._weight(name, [site for site in self.sites if site.parameter == name]) for name in names}

    def _weight(self, parameter: str, sites: list[Site]) -> Tensor:
        whole = self.base.get_parameter(parameter)
        if sites[0].slot is None:
            return whole + self._delta(sites, whole)
        # stacked anew: writing each into one tensor would copy the whole gradient for each
        own = [[site for site in sites if site.slot == slot] for slot in range(len(whole))]
        return whole + torch.stack([self._delta(part, whole[i]) for i, part in enumerate(own)])

    def _delta(self, sites: list[Site], matrix: Tensor) -> Tensor:
        """The updates of sites in one matrix, in its dtype."""
        delta = torch.zeros_like(matrix, requires_grad=False)
        for site in sites:
            delta[site.block] = self._adapter[0].delta(site).to(matrix)
        return delta

    def extra_repr(self) -> str:
        return ", ".join(site.name for site in self.sites)


def _add_rows(y: Tensor, update: Tensor, site: Site) -> Tensor:
    if site.rows is None:
        return y + update
    start, stop = site.rows
    if site.period is None:
        return torch.cat([y[..., :start], y[..., start:stop] + update, y[..., stop:]], dim=-1)
    y, update = y.unflatten(-1, (-1, site.period)), update.unflatten(-1, (-1, stop - start))
    return torch.cat([y[..., :start], y[..., start:stop] + update, y[..., stop:]], dim=-1).flatten(-2)
