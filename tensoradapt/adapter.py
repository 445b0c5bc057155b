"""Adapter: every trainable number of a plan, once, and the pair or delta of each site."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from tensoradapt import checkpoint
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.factored import Bases, FactoredTensor
from tensoradapt.grouping import Member
from tensoradapt.plan import Plan
from tensoradapt.sites import Site


class Adapter(nn.Module):
    """The tensors of ``plan``, drawn from ``seed``; registered once, at the model's root.

    Wrapped layers read their pairs from here at forward time, so ``parameters()``, ``.to()`` and ``state_dict()`` see
    each number once.
    """

    def __init__(self, plan: Plan, seed: int = 0) -> None:
        super().__init__()
        self.plan, self.seed = plan, seed
        self.enabled, self.merged = True, False
        self.kept: dict[str, Tensor] | None = None  # the weights as they were, while merged
        self.before: tuple[dict[str, bool], dict[str, Tensor]] = ({}, {})  # requires_grad flags and heads at attach
        self.dropout, self.base = 0.0, ""  # of the attached model: dropout of the updates, hash of the base weights
        self._heads: tuple[Mapping[str, nn.Module]] = ({},)  # in a tuple: they are the model's, not registered here
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

    @property
    def _tensors(self) -> list[FactoredTensor]:
        return list(self.tensors)  # type: ignore[arg-type]  # nn.ModuleList does not know what it holds

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
            raise TensorAdaptError(
                f"site {name!r} is not in this adapter{did_you_mean(name, list(self._where)[:8])} ..."
            )
        i, member, factor = self._where[name]
        return self.tensors[i], member, factor  # type: ignore[return-value]

    def save(self, path: str | Path) -> None:
        """Writes the adapter and the heads trained with it into a folder, for ``load``.

        Raises TensorAdaptError while merged, for non-finite numbers, and for a folder that cannot be written.
        """
        if self.merged:
            raise TensorAdaptError("the adapter is merged into the weights; call unmerge(model) before saving")
        factors = {f"{i}.{name}": p for i, t in enumerate(self._tensors) for name, p in t.trained.items()}
        saved = {name: p.detach().contiguous().cpu() for name, p in factors.items()}
        heads = head_tensors(self._heads[0])
        for tensors in (saved, heads):
            checkpoint.check_tensors(tensors, {name: tuple(p.shape) for name, p in tensors.items()}, Path(path))
        scales = tuple(tensor.scale for tensor in self._tensors)
        checkpoint.write(
            checkpoint.Checkpoint(self.plan, self.seed, self.dropout, scales, self.base, saved, heads), Path(path)
        )

    @torch.no_grad()
    def restore(self, saved: checkpoint.Checkpoint) -> None:
        """Takes over a checkpoint's numbers, those of the heads too."""
        for i, tensor in enumerate(self._tensors):
            tensor.scale = saved.scales[i]
            for name, parameter in tensor.trained.items():
                parameter.copy_(saved.factors[f"{i}.{name}"])
        for head, module in self._heads[0].items():
            for name, parameter in module.named_parameters():
                parameter.copy_(saved.heads[f"{head}.{name}"])

    def follow(self, heads: Mapping[str, nn.Module], dropout: float, base: str) -> None:
        """Told by ``attach`` what it was attached to."""
        self._heads, self.dropout, self.base = (heads,), dropout, base

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


def head_tensors(heads: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Trained numbers of base modules by name, on the CPU."""
    return {f"{head}.{k}": p.detach().contiguous().cpu() for head, m in heads.items() for k, p in m.named_parameters()}


def multiplier(plan: Plan, group: int, site: Site) -> float:
    """The fixed factor of one site: matched scale steps as sqrt(1 / d_in) of each stored matrix, its tensor has one
    width.
    """
    return math.sqrt(plan.groups[group].network.layout.in_ / site.in_) if plan.scale == "matched" else 1.0
