"""A model of one matrix, for the layers of other libraries."""

from __future__ import annotations

from torch import Tensor, nn


class One(nn.Module):
    """A model of one matrix."""

    def __init__(self, out: int, in_: int) -> None:
        super().__init__()
        self.lin = nn.Linear(in_, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin(x)
