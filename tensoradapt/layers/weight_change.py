"""Compute how an adapter changes a stored matrix: it adds its updates, or by DoRA sets direction and magnitude."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tensoradapt.adapter.adapter import Adapter
from tensoradapt.sites.site import RowBlock, Site


def change(
    adapter: Adapter,
    row_blocks: Sequence[RowBlock],  # all that the adapter has in one matrix
    matrix: Tensor,  # (out, in), as stored
    training: bool = False,
) -> Tensor:  # (out, in), in the matrix's dtype
    """Return ``W' - W``: the updates of the sites; with DoRA ``m (W + delta) / |W + delta| - W``, row by row.

    DoRA is Liu et al., arXiv 2402.09353, equation 5; the norm is held constant in the backward pass (section 4.3).
    """
    delta = torch.zeros_like(matrix, requires_grad=False)
    for site in (site for row_block in row_blocks for site in row_block.sites):
        delta[site.block] = site_delta(adapter, site, training).to(matrix)
    if adapter.plan.spec.rule == "add":
        return delta
    scaled = torch.zeros_like(delta, requires_grad=False)
    for row_block in row_blocks:
        ratio = (adapter.magnitudes.of(row_block) / lengths(adapter, row_block, matrix))[:, None]
        scaled[row_block.rows] = ((ratio - 1) * matrix[row_block.rows] + ratio * delta[row_block.rows]).to(matrix)
    return scaled


@torch.no_grad()
def lengths(adapter: Adapter, row_block: RowBlock, matrix: Tensor) -> Tensor:  # (out,) of the row block
    """Return the norms of the block's rows of W + delta."""
    summed = matrix[row_block.rows].to(torch.promote_types(matrix.dtype, torch.float32), copy=True)
    for site in row_block.sites:
        summed[:, site.block[1]] += adapter.delta(site).to(summed)
    return summed.norm(dim=1).clamp_min(torch.finfo(summed.dtype).tiny)  # above 0, for rows of zeros


def site_delta(adapter: Adapter, site: Site, training: bool) -> Tensor:  # (out, in)
    """Return the dense update of a site, with rank components dropped in training."""
    if not (training and adapter.plan.spec.rank_dropout):
        return adapter.delta(site)
    return sum(b @ a for a, b in dropped(adapter, adapter.pairs(site), training))  # type: ignore[return-value]


def dropped(adapter: Adapter, pairs: list[tuple[Tensor, Tensor]], training: bool) -> list[tuple[Tensor, Tensor]]:
    """Drop each of the R components with probability ``rank_dropout`` in training, and scale the others up.

    The two pairs of a subtracted start lose the same components, so that they still cancel.
    """
    if not (training and adapter.plan.spec.rank_dropout):
        return pairs
    mask = F.dropout(pairs[0][0].new_ones(len(pairs[0][0]), 1), adapter.plan.spec.rank_dropout)
    return [(a * mask, b) for a, b in pairs]
