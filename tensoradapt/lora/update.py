"""A low-rank update (A, B) of one site, in double precision."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tensoradapt.adapter.adapter import Adapter
from tensoradapt.sites.site import Site


@dataclass(frozen=True)
class Update:
    """``B A``, or a dense matrix: ``b`` is None and ``a`` the matrix."""

    a: np.ndarray  # (R, in); dense: (out, in)
    b: np.ndarray | None = None  # (out, R)

    @property
    def shape(self) -> tuple[int, int]:
        return (len(self.a if self.b is None else self.b), self.a.shape[1])

    @property
    def rank(self) -> int:
        """What ``B A`` has at most; a dense matrix has its smaller side."""
        return min(self.shape) if self.b is None else len(self.a)

    @property
    def T(self) -> Update:
        """The transposed matrix, as a pair where it is one."""
        return Update(self.a.T) if self.b is None else Update(self.b.T, self.a.T)

    def dense(self) -> np.ndarray:  # (out, in)
        """The matrix."""
        return self.a if self.b is None else self.b @ self.a

    def minus(self, other: Update) -> Update:
        """The difference: a pair where that is smaller than the matrix."""
        if self.b is None or other.b is None or self.rank + other.rank >= min(self.shape):
            return Update(self.dense() - other.dense())
        return Update(np.concatenate([self.a, other.a]), np.concatenate([self.b, -other.b], axis=1))

    @cached_property
    def norm(self) -> float:
        """Frobenius norm; of a pair through its triangular factors, which keeps digits that Gram matrices lose."""
        if self.b is None:
            return float(np.linalg.norm(self.a))
        return float(np.linalg.norm(triangular(self.b) @ triangular(self.a.T).T))


def triangular(matrix: np.ndarray) -> np.ndarray:  # (min(n, m), m)
    """R of the matrix's QR."""
    return np.linalg.qr(matrix, mode="r")  # type: ignore[return-value]  # numpy's stubs do not know this mode


@torch.no_grad()
def in_double(adapter: Adapter, task: str | None) -> Adapter:
    """The adapter in float64 on the CPU, with a task of its own: products of the factors as they are stored, without
    float32's rounding.
    """
    tensors: list[Any] = list(adapter.tensors)
    values = [{f.name: t.factors[f.name].cpu() for f in t.network.factors if f.source == "base"} for t in tensors]
    twin = Adapter(adapter.plan, adapter.seed, values, [t.scale for t in tensors]).double()
    twin.load_state_dict(adapter.state_dict())
    if task is not None:
        twin.select(task=task)
    for name, base in adapter.bases.named_buffers():  # not in the state, and rounded where the adapter was cast
        twin.bases.get_buffer(name).copy_(base)
    return twin


@torch.no_grad()
def update_of(adapter: Adapter, site: Site) -> Update:
    """A site's update as an adapter computes it; dense where its pair would be larger."""
    a, b = map(_numpy, adapter.pair(site))
    return Update(b @ a) if len(a) >= min(site.out, site.in_) else Update(a, b)


def _numpy(values: Any) -> np.ndarray:
    if isinstance(values, Tensor):
        return values.detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64)
