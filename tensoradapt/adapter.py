"""Adapter: every trainable number of a plan, once, and the pair or delta of each site."""

from __future__ import annotations

import math
from contextlib import contextmanager
from collections.abc import Iterator

from torch import Tensor, nn

from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.factored import Bases, FactoredTensor
from tensoradapt.grouping import Member
from tensoradapt.plan import Plan
from tensoradapt.sites import Site


class Adapter(nn.Module):
    """The tensors of ``plan``, drawn from ``seed``; registered once, at the model's root.

    Wrapped layers read their pairs from here at forward time, so ``parameters()``, ``.to()`` and ``state_dict()`` see each
    number once.
    """

    def __init__(self, plan: Plan, seed: int = 0) -> None:
        super().__init__()
        self.plan, self.seed = plan, seed
        self.enabled, self.merged = True, False
        self.kept: dict[str, Tensor] | None = None  # the weights as they were, while merged
        self.before: tuple[dict[str, bool], dict[str, Tensor]] = ({}, {})  # requires_grad flags and heads at attach
        networks = [group.network for group in plan.groups]
        self.bases = Bases(networks, seed)
        self.tensors = nn.ModuleList(
            FactoredTensor(network, seed=seed, name=str(i), scale=plan.scale, alpha=plan.alpha, bases=self.bases)
            for i, network in enumerate(networks)
        )
        self._where: dict[str, tuple[int, Member, float]] = {
            member.site.name: (i, member, multiplier(plan, i, member.site))
            for i, group in enumerate(plan.groups)
            for member in group.members
        }

    def pair(self, site: Site | str) -> tuple[Tensor, Tensor]:  # A: (R, in), B: (out, R)
        """LoRA factors of a site as its matrix is stored (out, in), scale included: ``B @ A == delta(site)``."""
        tensor, member, factor = self._at(site)
        a, b = tensor.pair(member.at)
        a, b = (b.T, a.T) if member.transposed else (a, b)
        return a, b if factor == 1 else factor * b

    def delta(self, site: Site | str) -> Tensor:  # (out, in)
        """The dense update of a site as its matrix is stored, scale included."""
        tensor, member, factor = self._at(site)
        dense = tensor.delta(member.at)
        return factor * (dense.T if member.transposed else dense)

    def _at(self, site: Site | str) -> tuple[FactoredTensor, Member, float]:
        name = site if isinstance(site, str) else site.name
        if name not in self._where:
            raise TensorAdaptError(f"site {name!r} is not in this adapter{did_you_mean(name, list(self._where)[:8])} ...")
        i, member, factor = self._where[name]
        return self.tensors[i], member, factor  # type: ignore[return-value]

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Within it the wrapped layers are the base layers."""
        before, self.enabled = self.enabled, False
        try:
            yield
        finally:
            self.enabled = before

    @property
    def n_params(self) -> int:
        """Trainable numbers of the adapter."""
        return sum(p.numel() for p in self.parameters())

    def extra_repr(self) -> str:
        return f"{self.plan.parameterization}, {len(self._where)} sites, {self.n_params:,} parameters"


def multiplier(plan: Plan, group: int, site: Site) -> float:
    """The fixed factor of one site: matched scale steps as sqrt(1 / d_in) of each stored matrix, its tensor has one width."""
    return math.sqrt(plan.groups[group].network.layout.in_ / site.in_) if plan.scale == "matched" else 1.0
