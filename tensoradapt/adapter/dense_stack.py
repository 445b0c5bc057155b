"""The dense tensor of the matrices of the sites that share it, in float64."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tensoradapt.planning.plan import Group
from tensoradapt.sites.site import Site


def stack(
    group: Group,
    matrix: Callable[[Site], Tensor],  # a site's (out, in) matrix as stored
) -> Tensor:  # layout.shape
    """Stack the sites' matrices as slices of one tensor; zero where no site reads (cropped, or another task)."""
    layout = group.network.layout
    whole = torch.zeros(layout.shape, dtype=torch.float64)
    for member in group.members:
        values = matrix(member.site).detach().double().cpu()
        index = tuple(_place(member.at.get(name)) for name in layout.names)
        shape = whole[index].shape
        sides = layout.shape[len(layout.index) :]
        cropped = tuple(
            len(v) if isinstance(v := member.at.get(mode.name), range) else n
            for mode, n in zip((*layout.rows, *layout.cols), sides, strict=True)
        )
        whole[index] = (values.T if member.transposed else values).reshape(cropped).expand(shape)
    return whole


def _place(value: int | range | None) -> int | slice:
    if isinstance(value, range):
        return slice(value.start, value.stop)
    return slice(None) if value is None else value
