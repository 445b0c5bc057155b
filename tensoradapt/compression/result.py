"""Compressed: updates in factored form, with the true error and what it cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tensoradapt.adapter import checkpoint
from tensoradapt.adapter.adapter import Adapter
from tensoradapt.compression.core import Core, can_be_cut
from tensoradapt.compression.fit import Factors, Fit, Job
from tensoradapt.compression.sources import Source
from tensoradapt.lora.update import update_of
from tensoradapt.networks.layout import Mode
from tensoradapt.networks.network import Network
from tensoradapt.planning.plan import Plan
from tensoradapt.surgery.attach import attach

GROWN = 2.0  # components that do not cancel are at most about as large as the tensor


@dataclass(frozen=True)
class Tried:
    """One rank that was tried: its parameters and relative error."""

    rank: int
    n_params: int
    error: float

    def __str__(self) -> str:
        return f"{self.rank}: {self.error:.3g}"


@dataclass(frozen=True)
class Compressed:
    """Updates in factored form. ``plan`` has scale 1; ``factors`` are its tensors' values, float64, by factor name.

    ``error`` is the relative Frobenius error over all sites, ``site_errors`` that of each (of a site whose update is
    zero: relative to the root mean square norm of all), both computed in float64 from the factors and the source.
    ``growth``: of CP, the largest component's norm over the tensor's; far above 1 the components cancel.
    """

    plan: Plan
    factors: tuple[Factors, ...]
    error: float
    site_errors: Mapping[str, float]
    n_source_params: int
    seconds: float
    source: str = ""
    exact: bool = False  # by construction, without a decomposition
    growth: float | None = None
    orders: tuple[tuple[str, ...], ...] = ()  # of each tensor, its modes as the network chains them
    cuts: tuple[str, ...] = ()
    tried: tuple[Tried, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def n_params(self) -> int:
        return self.plan.n_params

    def attach(self, model: nn.Module, dropout: float = 0.0) -> Adapter:
        """Attaches an adapter with these factors, in torch's default dtype; training goes on from them."""
        return attach(model, self.plan, dropout=dropout, values=_tensors(self.factors))

    def save(self, path: str | Path) -> None:
        """Writes a checkpoint without a model. It does not know the base weights, so ``load(..., strict=False)`` it; to
        have them checked, save the attached adapter instead.
        """
        factors = {f"{i}.{k}": v.float() for i, own in enumerate(_tensors(self.factors)) for k, v in own.items()}
        scales = tuple(1.0 for _ in self.factors)
        checkpoint.write(checkpoint.Checkpoint(self.plan, 0, 0.0, 0.0, scales, "", factors, {}), Path(path))

    def __str__(self) -> str:
        worst = max(self.site_errors, key=lambda name: self.site_errors[name])
        spread = f"{min(self.site_errors.values()):.3g} to {self.site_errors[worst]:.3g} ({worst})"
        more = ", more than the source" if self.n_params > self.n_source_params else ""
        lines = [
            f"{self.plan.parameterization} of {self.source}: {self.n_params:,} parameters for {self.n_source_params:,} "
            f"({100 * self.n_params / self.n_source_params:.3g} %{more}) over {len(self.site_errors)} matrices",
            f"relative error {self.error:.3g}; of single matrices {spread}",
            f"ranks {'; '.join(dict.fromkeys(str(group.rank) for group in self.plan.groups))}",
            f"mode order {'; '.join(dict.fromkeys(' '.join(order) for order in self.orders))}",
            f"sides {'; '.join(dict.fromkeys(self.cuts))}",
        ]
        if self.growth is not None:
            warns = ": components cancel, so a small change of one factor is a large change of the update"
            lines.append(f"largest component {self.growth:.3g} times the tensor{warns if self.growth > GROWN else ''}")
        if self.tried:
            lines.append(f"tried ranks {', '.join(map(str, self.tried))}")
        if self.left_out:
            lines.append(f"not in the error: {len(self.left_out)} other parameters changed, such as {self.left_out[0]}")
        return "\n".join([*lines, f"{'exact by construction, ' if self.exact else ''}{self.seconds:.3g} s"])


def stated(job: Job, fit: Fit, fits: Mapping[int, Fit], seconds: float) -> Compressed:
    """The result of a job, with the errors computed anew."""
    updates = job.source.updates
    error, sites = _errors(fit, job.source)
    norms = [math.hypot(*(updates[m.site.name].norm for m in group.members)) for group in fit.plan.groups]
    growth = getattr(job.family, "growth", None)
    grown = max(map(growth, fit.factors, norms)) if growth else None
    orders = tuple(_order(group.network) for group in fit.plan.groups)
    cuts = tuple(_cut_text(group.network, core) for group, core in zip(fit.plan.groups, job.cores, strict=False))
    tried = tuple(Tried(rank, one.plan.n_params, one.error) for rank, one in sorted(fits.items()))
    return Compressed(
        *(fit.plan, fit.factors, error, sites, job.source.n_params, seconds, job.source.name, fit.exact, grown),
        *(orders, cuts or ("not needed",), tried, job.source.left_out),
    )


def _errors(fit: Fit, source: Source) -> tuple[float, dict[str, float]]:
    """Recomputed in float64 from factors and source, site by site, without a dense stack."""
    adapter = Adapter(fit.plan, values=_tensors(fit.factors)).double()
    with torch.no_grad():
        for tensor, factors in zip(adapter.tensors, fit.factors, strict=True):
            for name, parameter in tensor.trained.items():  # type: ignore[union-attr, operator]
                parameter.copy_(torch.from_numpy(factors[name]))
    left = {site.name: source.updates[site.name].minus(update_of(adapter, site)).norm for site in fit.plan.sites}
    norms = {name: source.updates[name].norm for name in left}
    whole = math.hypot(*norms.values())
    usual = whole / math.sqrt(len(norms)) or 1.0
    return math.hypot(*left.values()) / (whole or 1.0), {n: left[n] / (norms[n] or usual) for n in left}


def _order(network: Network) -> tuple[str, ...]:
    return tuple(dict.fromkeys(x for f in network.factors for x in f.labels if x in network.layout.size_of))


def _cut_text(network: Network, core: Core) -> str:
    sizes = network.layout.size_of
    cut = [f"{mode} {sizes[mode]} cut to {basis.shape[1]}" for mode, basis in core.bases.items()]
    sides = (network.layout.rows, network.layout.cols)
    whole = [_whole_text(network, side) for side in sides if side[0].name not in core.bases]
    return f"{', '.join([*cut, *whole])}: a core of {core.values.nbytes / 2**20:.3g} MiB"


def _whole_text(network: Network, side: Sequence[Mode]) -> str:
    if not can_be_cut(network, side):
        return f"{' '.join(mode.name for mode in side)} kept whole"
    return f"{side[0].name} {side[0].size} kept whole (the ranks of its matrices sum to its width or more)"


def _tensors(factors: Sequence[Factors]) -> list[dict[str, torch.Tensor]]:
    return [{name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in own.items()} for own in factors]
