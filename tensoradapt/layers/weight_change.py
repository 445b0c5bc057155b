"""Compute how an adapter changes a stored matrix: by its updates, or by the rule of DoRA or HiRA."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tensoradapt.adapter.adapter import Adapter
from tensoradapt.adapter.forward_pass import Pair, without_autocast
from tensoradapt.layers import hira
from tensoradapt.sites.site import RowBlock, Site


def change(
    adapter: Adapter,
    row_blocks: Sequence[RowBlock],  # all that the adapter has in one matrix
    matrix: Tensor,  # (out, in), as stored
    training: bool = False,
) -> Tensor:  # (out, in), in the matrix's dtype
    """Return ``W' - W``: the updates of the sites; with DoRA ``m (W + delta) / |W + delta| - W``, row by row.

    DoRA is Liu et al., arXiv 2402.09353, equation 5; the norm is held constant in the backward pass (section 4.3). With
    HiRA it is W times the updates, entry by entry (``layers/hira.py``).
    """
    delta = torch.zeros_like(matrix, requires_grad=False)
    for site in (site for row_block in row_blocks for site in row_block.sites):
        delta[site.block] = site_delta(adapter, site, training).to(matrix)
    if adapter.plan.spec.rule == "add":
        return delta
    if adapter.plan.spec.rule == "hira":
        return hira.multiplied(adapter, matrix, delta)
    scaled = torch.zeros_like(delta, requires_grad=False)
    for row_block in row_blocks:
        now = lengths(adapter, row_block, matrix)
        ratio = (adapter.magnitudes.of(row_block).to(now.device) / now)[:, None]
        scaled[row_block.rows] = ((ratio - 1) * matrix[row_block.rows] + ratio * delta[row_block.rows]).to(matrix)
    return scaled


@torch.no_grad()
def lengths(adapter: Adapter, row_block: RowBlock, matrix: Tensor) -> Tensor:  # (out,) of the row block
    """Return the norms of the block's rows of W + delta."""
    summed = matrix[row_block.rows].to(torch.promote_types(matrix.dtype, torch.float32), copy=True)
    for site in row_block.sites:
        summed[:, site.block[1]] += adapter.delta(site).to(summed)
    return _norms(summed)


@torch.no_grad()
def lengths_with(pair: Pair, matrix: Tensor) -> Tensor:  # (out,)
    """Return the norms of the rows of W + B A in one product, with nothing copied where W is wide.

    The squares could be expanded, with those of W kept: that is no faster, and loses what cancels between W and B A.
    """
    wide = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
    with without_autocast(wide):
        return _norms(torch.addmm(wide, pair[1].to(wide), pair[0].to(wide)))


def _norms(summed: Tensor) -> Tensor:
    return summed.norm(dim=1).clamp_min(torch.finfo(summed.dtype).tiny)  # above 0, for rows of zeros


def turned(y: Tensor, bias: Tensor | None, ratio: Tensor) -> Tensor:  # (*, out)
    """Return ``bias + ratio (y - bias)`` for a layer's output; it is exactly y where the ratio of lengths is 1."""
    return torch.addcmul(y, y if bias is None else y - bias.to(y), (ratio - 1).to(y))


def site_delta(adapter: Adapter, site: Site, training: bool) -> Tensor:  # (out, in)
    """Return the dense update of a site, with rank components dropped in training."""
    if not (training and adapter.plan.spec.rank_dropout):
        return adapter.delta(site)
    a, b = dropped(adapter, site, adapter.pair(site), training)
    return b @ a


def dropped(adapter: Adapter, site: Site, pair: Pair, training: bool) -> Pair:
    """Drop each rank component with probability ``rank_dropout`` in training, and scale the others up.

    A subtracted start loses the same components, so that it still cancels.
    """
    if not (training and adapter.plan.spec.rank_dropout):
        return pair
    copies = adapter.copies(site)
    mask = F.dropout(pair[0].new_ones(len(pair[0]) // copies, 1), adapter.plan.spec.rank_dropout)
    return pair[0] * mask.repeat(copies, 1), pair[1]
