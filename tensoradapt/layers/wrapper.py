"""A wrapped layer is the base layer plus the updates of the adapters on it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from tensoradapt.adapter.adapter import Adapter
from tensoradapt.adapter.chosen_updates import Samples
from tensoradapt.adapter.forward_pass import Pair
from tensoradapt.errors import TensorAdaptError
from tensoradapt.layers import hira
from tensoradapt.layers.ddp_checks import check_ddp
from tensoradapt.layers.fused_linear import fits, fused_linear
from tensoradapt.layers.stored_matrix import Matrices, StoredMatrix
from tensoradapt.layers.weight_change import change, dropped, lengths, lengths_with, turned
from tensoradapt.sites.modules import named_modules
from tensoradapt.sites.site import RowBlock, Site, row_blocks

Update = tuple[Adapter, tuple[RowBlock, ...]]  # an adapter, and its blocks of rows in this layer


class Wrapped(nn.Module):
    """A layer that computes ``base(x)`` plus ``dropout(x) A^T B^T`` of each adapter, on the rows of its sites.

    A layer that reads several weights at once (torch's attention, stacked experts) is computed with W + delta in their
    place. The adapters are held in a list, so that they are registered (and saved, moved, counted) at the model's root
    alone. Other attributes are the base layer's, such as its sizes, or its weight, whose dtype T5 reads.
    """

    wraps = True  # lets without_adapters recognise it without torch

    def __init__(self, base: nn.Module, first: StoredMatrix) -> None:
        super().__init__()
        self.base, self.kind = base, first.kind
        self.matrices = {first.key: first}  # the matrices that adapters have sites in
        self.updates: dict[Adapter, tuple[RowBlock, ...]] = {}  # every adapter with sites here, and its rows
        self.used: list[Update] = []  # only those that ``use`` chose: a forward pass does not see the others
        self.training = base.training  # alone: parts of the base may be in another mode

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "base":  # not set yet while copy makes a copy
                raise
            return getattr(self.base, name)

    def add(self, adapter: Adapter, sites: Sequence[Site], matrices: Matrices) -> None:
        """Add an adapter's sites in this layer."""
        self.updates[adapter] = row_blocks(sites)
        for matrix in (matrices[site.name] for site in sites):
            self.matrices.setdefault(matrix.key, matrix)

    def remove(self, adapter: Adapter) -> bool:
        """Take an adapter out, and return whether others are left."""
        self.updates.pop(adapter, None)
        self.choose(other for other, _ in self.used)
        return bool(self.updates)

    def choose(self, adapters: Iterable[Adapter]) -> None:
        """Add the updates of these adapters to the layer's output from now on, in this order, where they have any."""
        self.used = [(adapter, self.updates[adapter]) for adapter in adapters if adapter in self.updates]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        base: Any = self._modules["base"]  # at once, not through __getattr__
        live = [update for update in self.used if update[0].gate.live]
        if not live:
            return base(*args, **kwargs)
        if self.training and not torch.compiler.is_compiling():
            check_ddp(live)
        if self.kind.apply_pair is None:
            return functional_call(self.base, self._weights(live), args, kwargs)
        given = (*args, *kwargs.values())  # the input alone, whatever the layer calls it
        if len(given) == 1 and (fused := self.fused(live, given[0])) is not None:
            return fused
        product = y = base(*args, **kwargs)
        if live[0][0].gate.samples is not None:
            return self._grouped(product, live, *given)
        for adapter, blocks in live:
            y = self.updated(y, product, adapter, blocks, *given)
        return y

    def fused(self, live: list[Update], x: Any) -> Tensor | None:
        """Compute the layer and its only update in one node; None where the layer or the update is not plain."""
        base: Any = self._modules["base"]
        if not fits(base, x) or (pair := self.only_pair(live)) is None:
            return None
        adapter, blocks = live[0]
        site = blocks[0].sites[0]
        if adapter.plan.spec.rule == "hira":
            return hira.linear(base, x, pair[0], pair[1] * hira.divisor(adapter, base.weight))
        y = fused_linear(base, x, *pair)
        if adapter.plan.spec.rule == "add":
            return y
        matrix = self.matrices[site.parameter, site.slot].read()
        now = lengths_with(pair, matrix) if _are_small(pair) else lengths(adapter, blocks[0], matrix)
        return turned(y, base._parameters["bias"], adapter.magnitudes.of(blocks[0]).to(now.device) / now)

    def _grouped(self, y: Tensor, live: list[Update], x: Tensor) -> Tensor:
        """Add to ``y`` what each adapter adds to the output of its own samples, computed from those samples alone."""
        samples: Samples = live[0][0].gate.samples  # type: ignore[assignment]  # all have the same
        if len(set(samples.sizes)) == 1 and fits(self.base, x) and (pairs := self._alike(live)) is not None:
            return y + _side_by_side(samples, [adapter.gate.group for adapter, _ in live], x, *pairs).to(y)
        ys, xs = samples.split(y), samples.split(x)
        for adapter, blocks in live:
            i = adapter.gate.group
            ys[i] = self.updated(ys[i], ys[i], adapter, blocks, xs[i])
        return samples.join(ys)

    def _alike(self, live: list[Update]) -> tuple[Tensor, Tensor] | None:  # A: (adapters, R, in), B: (adapters, out, R)
        """Stack the pairs of adapters that are all pairs of one rank; return None for others."""
        pairs = [pair for update in live if _adds(update) and (pair := self._pair(*update)) is not None]
        if len(pairs) < len(live) or len({a.shape for a, _ in pairs}) > 1:
            return None
        return torch.stack([a for a, _ in pairs]), torch.stack([b for _, b in pairs])

    def only_pair(self, live: list[Update]) -> tuple[Tensor, Tensor] | None:
        """Return the pair of the whole layer, where it is all that changes the layer."""
        return self._pair(*live[0]) if len(live) == 1 and live[0][0].gate.samples is None else None

    def _pair(self, adapter: Adapter, blocks: tuple[RowBlock, ...]) -> tuple[Tensor, Tensor] | None:
        """Return the pair of the whole layer, where it is all of an adapter's update."""
        site = blocks[0].sites[0]
        if len(blocks) > 1 or site.rows or site.cols or not adapter.has_one_pair:
            return None
        if (self.training and adapter.plan.spec.dropout) or (adapter.plan.biases and adapter.bias(site) is not None):
            return None
        pair = adapter.forward_pass.ready(site.name, adapter.task_choice.selected) or adapter.pair(site)
        return dropped(adapter, site, pair, self.training)

    def updated(self, y: Tensor, base: Tensor, adapter: Adapter, blocks: tuple[RowBlock, ...], x: Tensor) -> Tensor:
        """Return ``y`` plus what one adapter adds to the base layer's output."""
        if adapter.plan.spec.dropout and x.is_floating_point():
            x = F.dropout(x, adapter.plan.spec.dropout, self.training)
        y, base = y.movedim(self.kind.axis, -1), base.movedim(self.kind.axis, -1)
        for row_block in blocks:
            first, *rest = (self._update(x, adapter, site) for site in row_block.sites)
            update = sum(rest, first)
            if adapter.plan.spec.rule == "dora":
                update = self._dora_update(update, base, adapter, row_block)
            y = _add_rows(y, adapter.gate.times_share(update), row_block.sites[0])
        if (bias := adapter.bias(blocks[0].sites[0])) is not None:
            y = y + adapter.gate.times_share(bias.to(y).expand_as(y))
        return y.movedim(-1, self.kind.axis)

    def _update(self, x: Tensor, adapter: Adapter, site: Site) -> Tensor:
        apply_pair = self.kind.apply_pair

        def apply(x: Tensor, pair: Pair) -> Tensor:
            kept = dropped(adapter, site, pair, self.training)
            if adapter.plan.spec.rule == "hira":
                kept = hira.pair(adapter, self.matrices[site.parameter, site.slot].read(), site.block, kept)
            return apply_pair(self.base, x, kept)  # type: ignore[misc]

        read = x if site.cols is None else x[..., site.cols[0] : site.cols[1]]
        return adapter.update(read, site, apply).movedim(self.kind.axis, -1)

    def _dora_update(self, update: Tensor, base: Tensor, adapter: Adapter, row_block: RowBlock) -> Tensor:
        """Return DoRA's change of the output: the product with W and the update, scaled to the new lengths."""
        site = row_block.sites[0]
        matrix = self.matrices[site.parameter, site.slot].read()
        now = lengths(adapter, row_block, matrix)
        ratio = adapter.magnitudes.of(row_block).to(now.device) / now
        bias = getattr(self.base, "bias", None)
        product = base if bias is None else base - bias
        return (ratio - 1).to(product) * product[..., row_block.rows] + ratio.to(update) * update

    def _weights(self, live: list[Update]) -> dict[str, Tensor]:
        """Return every parameter that holds a site, with the changes of all adapters added, by name."""
        for adapter, blocks in live:
            if adapter.gate.per_sample:
                raise TensorAdaptError(
                    f"{blocks[0].sites[0].module} is a {self.kind.name}, whose weights are the same for the whole "
                    "batch; use(model, samples=) needs layers that take each sample by itself: leave it out of the "
                    "adapter, or use one adapter for the batch"
                )
        names = dict.fromkeys(site.parameter for _, blocks in live for block in blocks for site in block.sites)
        return {name: self._weight(name, live) for name in names}

    def _weight(self, name: str, live: list[Update]) -> Tensor:
        whole = self.base.get_parameter(name)
        if whole.ndim == 2:
            return whole + self._changes(live, (name, None), whole)
        # changes are stacked: writing each into one tensor would copy the whole gradient for each
        return whole + torch.stack([self._changes(live, (name, i), matrix) for i, matrix in enumerate(whole)])

    def _changes(self, live: list[Update], key: tuple[str, int | None], matrix: Tensor) -> Tensor:
        total = torch.zeros_like(matrix, requires_grad=False)
        for adapter, blocks in live:
            if here := in_matrix(blocks, key):
                total = total + adapter.gate.times_share(change(adapter, here, matrix, self.training))
        return total

    def extra_repr(self) -> str:
        blocks = (block for blocks in self.updates.values() for block in blocks)
        return ", ".join(dict.fromkeys(site.name for block in blocks for site in block.sites))


def _adds(update: Update) -> bool:
    return update[0].plan.spec.rule == "add"


def _are_small(pair: Pair) -> bool:
    """Say whether the product of a pair is cheaper than the contraction that gives delta."""
    a, b = pair
    return 2 * len(a) * (a.shape[1] + len(b)) < a.shape[1] * len(b)


def _side_by_side(samples: Samples, groups: list[int], x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Compute ``x A^T B^T`` by one batched product of groups of one size, each with its own pair."""
    # groups without a pair get 0
    batch = samples.by_group(x).reshape(len(samples.sizes), -1, x.shape[-1])
    every = groups == list(range(len(batch)))
    update = (batch if every else batch[samples.places.index(tuple(groups), x.device)]) @ a.to(x).mT @ b.to(x).mT
    if not every:
        where = samples.places.tensor(groups, x.device)
        update = update.new_zeros(len(batch), *update.shape[1:]).index_copy(0, where, update)
    return samples.as_given(update.reshape(*x.shape[:-1], b.shape[1]))


def wrapped(model: nn.Module) -> Iterator[tuple[str, Wrapped]]:
    """Yield the wrapped layers of a model, with their names."""
    return ((name, module) for name, module in named_modules(model) if isinstance(module, Wrapped))


def in_matrix(blocks: Iterable[RowBlock], key: tuple[str, int | None]) -> tuple[RowBlock, ...]:
    """Return the blocks of rows in one stored matrix."""
    return tuple(block for block in blocks if (block.sites[0].parameter, block.sites[0].slot) == key)


def _add_rows(y: Tensor, update: Tensor, site: Site) -> Tensor:
    if site.rows is None:
        return y + update
    start, stop = site.rows
    if site.period is None:
        return torch.cat([y[..., :start], y[..., start:stop] + update, y[..., stop:]], dim=-1)
    y, update = y.unflatten(-1, (-1, site.period)), update.unflatten(-1, (-1, stop - start))
    return torch.cat([y[..., :start], y[..., start:stop] + update, y[..., stop:]], dim=-1).flatten(-2)
