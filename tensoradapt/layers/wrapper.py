"""Wrapped: a base layer plus the updates of its sites."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from tensoradapt.adapter.adapter import Adapter
from tensoradapt.errors import TensorAdaptError
from tensoradapt.layers.ddp_checks import check_ddp
from tensoradapt.layers.kinds import kind_of, matrix_of
from tensoradapt.layers.weight_change import change, dropped, lengths
from tensoradapt.sites.site import RowBlock, Site, row_blocks

Update = tuple[Adapter, tuple[RowBlock, ...]]  # an adapter, and its sites in this layer


class Wrapped(nn.Module):
    """``base(x)`` plus, for each adapter and on each site's rows, ``dropout(x) A^T B^T``; a layer that reads several
    weights at once (torch's attention, stacked experts) is computed with W + delta in their place.

    The adapters are held in a list, so that they are registered (and saved, moved, counted) at the model's root alone.
    Everything else asked of it is the base layer's: its weight's dtype (T5 reads it), its sizes.
    """

    wraps = True  # for without_adapters, which knows no torch

    def __init__(self, base: nn.Module, site: Site) -> None:
        super().__init__()
        self.base, self.kind = base, kind_of(base, site)
        self.updates: list[Update] = []
        self.train(base.training)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "base":  # not there yet: while a copy is made
                raise
            return getattr(self.base, name)

    @property
    def sites(self) -> tuple[Site, ...]:
        """Those of every adapter."""
        return tuple(site for _, own in self.updates for row_block in own for site in row_block.sites)

    def add(self, adapter: Adapter, sites: Iterable[Site]) -> None:
        """Adds an adapter's sites in this layer."""
        self.updates.append((adapter, row_blocks(sites)))

    def remove(self, adapter: Adapter) -> bool:
        """Takes an adapter out; whether others are left."""
        self.updates = [update for update in self.updates if update[0] is not adapter]
        return bool(self.updates)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        live = [update for update in self.updates if update[0].gate.live]
        if not live:
            return self.base(*args, **kwargs)
        if self.training and not torch.compiler.is_compiling():
            check_ddp(live)
        if self.kind.apply_pairs is None:
            return functional_call(self.base, self._weights(live), args, kwargs)
        base = y = self.base(*args, **kwargs)
        for adapter, own in live:
            y = self.updated(y, base, adapter, own, *args, **kwargs)
        return y

    def updated(self, y: Tensor, base: Tensor, adapter: Adapter, own: tuple[RowBlock, ...], x: Tensor) -> Tensor:
        """``y`` plus what one adapter adds to the base layer's output."""
        if adapter.attachment.dropout and x.is_floating_point():
            x = F.dropout(x, adapter.attachment.dropout, self.training)
        y, base = y.movedim(self.kind.axis, -1), base.movedim(self.kind.axis, -1)
        for row_block in own:
            first, *rest = (self._update(x, adapter, site) for site in row_block.sites)
            update = sum(rest, first)
            if adapter.plan.rule == "dora":
                update = self._dora_update(update, base, adapter, row_block)
            y = _add_rows(y, adapter.gate.times_share(update), row_block.sites[0])
        if (bias := adapter.bias(own[0].sites[0])) is not None:
            y = y + adapter.gate.times_share(bias.to(y).expand_as(y))
        return y.movedim(-1, self.kind.axis)

    def _update(self, x: Tensor, adapter: Adapter, site: Site) -> Tensor:
        apply_pairs = self.kind.apply_pairs

        def apply(x: Tensor, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
            return apply_pairs(self.base, x, dropped(adapter, pairs, self.training))  # type: ignore[misc]

        read = x if site.cols is None else x[..., site.cols[0] : site.cols[1]]
        return adapter.update(read, site, apply).movedim(self.kind.axis, -1)

    def _dora_update(self, update: Tensor, base: Tensor, adapter: Adapter, row_block: RowBlock) -> Tensor:
        """DoRA's change of the output: the rows' new length on what the base gives without its bias, and the update."""
        ratio = adapter.magnitudes.of(row_block) / lengths(adapter, row_block, matrix_of(self.base, row_block.sites[0]))
        bias = getattr(self.base, "bias", None)
        own = base if bias is None else base - bias
        return (ratio - 1).to(own) * own[..., row_block.rows] + ratio.to(update) * update

    def _weights(self, live: list[Update]) -> dict[str, Tensor]:
        """Every parameter that a site is in, with the changes of all adapters."""
        for adapter, own in live:
            if adapter.gate.per_sample:
                raise TensorAdaptError(
                    f"{own[0].sites[0].module} is a {self.kind.name}, whose weights are the same for the whole batch; "
                    "use(model, samples=) needs layers that take each sample by itself: leave it out of the adapter, "
                    "or use one adapter for the batch"
                )
        names = dict.fromkeys(site.parameter for _, own in live for row_block in own for site in row_block.sites)
        return {name: self._weight(name, live) for name in names}

    def _weight(self, parameter: str, live: list[Update]) -> Tensor:
        whole = self.base.get_parameter(parameter)
        if whole.ndim == 2:
            return whole + self._changes(live, parameter, None, whole)
        # stacked anew: writing each into one tensor would copy the whole gradient for each
        return whole + torch.stack([self._changes(live, parameter, i, matrix) for i, matrix in enumerate(whole)])

    def _changes(self, live: list[Update], parameter: str, slot: int | None, matrix: Tensor) -> Tensor:
        found = torch.zeros_like(matrix, requires_grad=False)
        for adapter, own in live:
            if here := in_matrix(own, parameter, slot):
                found = found + adapter.gate.times_share(change(adapter, here, matrix, self.training))
        return found

    def extra_repr(self) -> str:
        return ", ".join(dict.fromkeys(site.name for site in self.sites))


def wrapped(model: nn.Module) -> Iterator[tuple[str, Wrapped]]:
    """Names and wrapped layers of a model."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, Wrapped))


def in_matrix(own: Iterable[RowBlock], parameter: str, slot: int | None) -> tuple[RowBlock, ...]:
    """The blocks of rows in one stored matrix."""
    return tuple(
        row_block for row_block in own if (row_block.sites[0].parameter, row_block.sites[0].slot) == (parameter, slot)
    )


def _add_rows(y: Tensor, update: Tensor, site: Site) -> Tensor:
    if site.rows is None:
        return y + update
    start, stop = site.rows
    if site.period is None:
        return torch.cat([y[..., :start], y[..., start:stop] + update, y[..., stop:]], dim=-1)
    y, update = y.unflatten(-1, (-1, site.period)), update.unflatten(-1, (-1, stop - start))
    return torch.cat([y[..., :start], y[..., start:stop] + update, y[..., stop:]], dim=-1).flatten(-2)
